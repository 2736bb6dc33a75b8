# SMTP's tables: verbs, keywords, states. Filled once from smtp.verbs and smtp.states.
from libc.stdint cimport uint16_t, uint32_t, uint8_t

from nfmailguard.cext.policy.numbers cimport MOST_VERBS
from nfmailguard.cext.smtp.name cimport NAME_BYTES, Name

cdef enum:  # Input: smtp.verbs.Input
    INPUT_COMMANDS = 0
    INPUT_DATA = 1
    INPUT_CHUNK = 2
    INPUT_SASL = 3
    INPUT_OPAQUE = 4

cdef enum:  # Argument: smtp.verbs.Argument
    ARGUMENT_IGNORED = 0
    ARGUMENT_SENDER = 1
    ARGUMENT_RECIPIENT = 2
    ARGUMENT_CHUNK_SIZE = 3
    ARGUMENT_SECRET = 4
    ARGUMENT_SHOWN = 5

cdef enum:  # bits of Grammar.traits
    TRAIT_RECORDED = 1             # its commands and replies are recorded
    TRAIT_WAITS = 2            # the client has to wait for the reply (RFC 2920 3.1)
    TRAIT_UNREMARKABLE = 4     # the command and its reply do nothing but move the session by the table
    TRAIT_ANSWERED = 8         # a reply of one line is but an answer, if it is not 354, 334 or 421
    TRAIT_ANEW = 16            # begins the session anew: outstanding.begins_anew
    TRAIT_ADDRESS = 32         # its argument is an address
    TRAIT_SENDER = 64          # and a sender's, with parameters
    TRAIT_SECRET = 128         # it may have a secret behind it
    TRAIT_FREE = 256           # its argument means nothing to anybody
    TRAIT_PLAIN = 512          # a line of it that has nothing odd is read by plain_lines

# The dialogue's tables, filled once from smtp.verbs and smtp.states.
cdef struct Grammar:
    Name verbs[MOST_VERBS]
    uint8_t argument[MOST_VERBS]
    uint16_t traits[MOST_VERBS]
    uint8_t reads[MOST_VERBS]
    uint16_t continues[MOST_VERBS]
    uint8_t long_line[MOST_VERBS]
    uint8_t next_state[16][MOST_VERBS][6]
    uint8_t takes_chunk[16]    # by state: a server reads one
    uint8_t first_verb[256]    # by its first octet; 0: none begins with it
    uint8_t next_verb[MOST_VERBS]
    uint8_t first_of[32][NAME_BYTES + 1]  # by its first octet's lowest bits, and its length
    uint8_t next_of[MOST_VERBS]
    uint32_t first_four[MOST_VERBS]    # its first octets, and what of a line's is compared with them
    uint32_t first_mask[MOST_VERBS]
    uint32_t verb_count
    uint8_t verb_end_of_data
    uint8_t verb_empty
    uint8_t verb_greeting
    uint8_t verb_masked
    uint8_t verb_dot
    uint8_t state_connect
    uint8_t state_greeted
    uint8_t state_ready
