# SMTP's tables of verbs, keywords and states, filled once from smtp.verbs and smtp.states.
from libc.stdint cimport uint16_t, uint32_t, uint8_t

from nfmailguard.cext.policy.numbers cimport MOST_VERBS
from nfmailguard.cext.smtp.name cimport NAME_BYTES, Name

cdef enum:  # Input: how the client's next bytes are read, as in smtp.verbs.Input
    INPUT_COMMANDS = 0
    INPUT_DATA = 1
    INPUT_CHUNK = 2
    INPUT_SASL = 3
    INPUT_OPAQUE = 4

cdef enum:  # Argument: what kind of argument a verb has, as in smtp.verbs.Argument
    ARGUMENT_IGNORED = 0
    ARGUMENT_SENDER = 1
    ARGUMENT_RECIPIENT = 2
    ARGUMENT_CHUNK_SIZE = 3
    ARGUMENT_SECRET = 4
    ARGUMENT_SHOWN = 5

cdef enum:  # bits of Grammar.traits: properties of a verb
    TRAIT_RECORDED = 1             # event records are made of its commands and replies
    TRAIT_WAITS = 2            # the client has to wait for the reply (RFC 2920 3.1)
    TRAIT_UNREMARKABLE = 4     # command and reply only move the session's state by the table, without other effects
    TRAIT_ANSWERED = 8         # a one-line reply is no more than an answer, unless its code is 354, 334 or 421
    TRAIT_ANEW = 16            # the command begins the session anew: outstanding.begins_anew
    TRAIT_ADDRESS = 32         # the verb's argument is an address
    TRAIT_SENDER = 64          # the verb's argument is a sender's address, with parameters
    TRAIT_SECRET = 128         # a secret may follow the verb (AUTH)
    TRAIT_FREE = 256           # the verb's argument is ignored: ARGUMENT_IGNORED
    TRAIT_PLAIN = 512          # a line with this verb and nothing unusual in it is read by plain_lines

# SMTP's tables, filled once from smtp.verbs and smtp.states; arrays of MOST_VERBS are indexed by verb number.
cdef struct Grammar:
    Name verbs[MOST_VERBS]
    uint8_t argument[MOST_VERBS]
    uint16_t traits[MOST_VERBS]
    uint8_t reads[MOST_VERBS]
    uint16_t continues[MOST_VERBS]
    uint8_t long_line[MOST_VERBS]
    uint8_t next_state[16][MOST_VERBS][6]
    uint8_t takes_chunk[16]    # by session state: 1 where a server accepts a chunk (BDAT)
    uint8_t first_verb[256]    # by first byte: the first verb that begins with it, 0: none; next_verb has the others
    uint8_t next_verb[MOST_VERBS]
    uint8_t first_of[32][NAME_BYTES + 1]  # by first byte's low bits and length: the first such verb; next_of: others
    uint8_t next_of[MOST_VERBS]
    uint32_t first_four[MOST_VERBS]    # each verb's first four bytes; first_mask: the bits of them to compare
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
