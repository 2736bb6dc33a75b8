# The compiled policy: one FlowRule as the packet path reads it.
from libc.stdint cimport uint32_t, uint8_t

from nfmailguard.cext.policy.network cimport Network
from nfmailguard.cext.policy.numbers cimport CUT_BYTES, LINE_BYTES_SHOWN, MOST_FINDINGS, MOST_KEYWORDS, MOST_VERBS
from nfmailguard.cext.smtp.grammar cimport Grammar
from nfmailguard.cext.smtp.name cimport Name

cdef enum:  # bits of CompiledPolicy.restore: on which side of the firewall the gateway stands
    RESTORE_COMMANDS = 1       # the server's
    RESTORE_REPLIES = 2        # the client's

cdef enum:                     # Conduct, what may become of a flow's bytes: policy.model.Conduct
    CONDUCT_WATCH = 0          # monitor, --dry-run: all goes on as it came, and is only followed and reported
    CONDUCT_EDIT = 1           # restore: bytes are changed in place, and the client's never wait
    CONDUCT_GATE = 2           # enforce: nothing is delivered that is not decided; what cannot be decided yet waits
    CONDUCTS = 3

cdef enum AddressByte:         # what a byte is in the argument of MAIL and RCPT
    ADDRESS_ILLEGAL = 1        # to be blanked
    ADDRESS_OPENS = 2          # <, which no other may stand behind
    ADDRESS_CLOSES = 4         # >, before which there has to be one (S-ASDM)

# A line of an EHLO reply that the firewall upstream masks.
cdef struct Candidate:
    uint8_t data[LINE_BYTES_SHOWN]
    uint8_t length
    uint8_t restored           # it may be

# What some servers say where nothing is masked.
cdef struct Listing:
    Network *servers           # any when server_count is 0
    uint32_t server_count
    uint32_t count             # of candidates, in their order
    uint32_t banner_length     # 0: not known
    uint8_t digits             # every 2 and 0 of a masked banner is its own (rule B51)
    uint8_t spaces             # and a space behind a 0 has been kept
    uint8_t banner[LINE_BYTES_SHOWN]
    Candidate candidates[MOST_KEYWORDS]

# One FlowRule, compiled. Immutable.
cdef struct CompiledPolicy:
    Grammar *grammar           # its generation's, whose numbers of verbs are the policy's
    uint32_t *flows            # how many are under that generation
    uint8_t generation         # its number
    uint8_t apart              # packets carry marks by which conntrack tells connections apart
    uint8_t conduct            # Conduct
    uint8_t action[MOST_FINDINGS]
    uint8_t allow[MOST_VERBS]
    uint8_t unknown            # UnknownForm
    uint8_t letter
    uint8_t per_packet         # partial_lines = mask
    uint8_t banner             # BannerRule
    uint8_t banner_separator
    uint8_t banner_dash
    uint8_t mask_ehlo
    uint8_t hide               # `keywords` are those to mask, in the reply to an EHLO that was restored
    uint8_t restore            # RESTORE_COMMANDS, RESTORE_REPLIES; 0 in other modes
    uint8_t restore_starttls
    uint8_t restore_auth
    uint8_t hold_end_of_data   # an end of data leaves in one segment
    uint8_t restore_noop       # the firewall makes NOOP of what it denies
    uint8_t address_byte[256]  # bits of AddressByte
    uint8_t keyword_end[256]
    uint8_t seven_bits         # the client's octets lose their eighth bit
    uint8_t bug_dot_crlf
    uint8_t bug_data_bypass
    uint8_t bug_noop_body
    uint8_t internal_error     # Action
    uint8_t midstream_at_start  # Action
    uint32_t line_length       # 0: no limit, as below
    uint32_t longest_line      # what every server reads as one
    uint32_t longest_parameters  # the same where extensions may lengthen it
    uint32_t longest_secret    # of AUTH's line, and of one behind it
    uint8_t cuts[CUT_BYTES]    # bits: where in one a server may find another line's beginning
    uint32_t near_length       # a line of so many octets has reached none of these, nor will its next few
    uint32_t sender_length
    uint32_t recipients
    uint32_t header_line_length
    uint32_t body_line_length
    uint32_t filename_length
    uint32_t header_length
    uint32_t body_length
    uint32_t to_fields
    uint32_t invalid_recipients
    uint32_t outstanding_commands
    uint32_t junk_commands     # UINT32_MAX: any number
    uint32_t findings_told
    uint32_t keyword_count
    Name keywords[MOST_KEYWORDS]
    uint32_t listing_count
    Listing *listings

# Whether bytes are changed, and flows ended.
cdef inline bint applies(const CompiledPolicy *policy) noexcept nogil:
    return policy.conduct != CONDUCT_WATCH

# And whether what cannot be decided yet waits.
cdef inline bint gates(const CompiledPolicy *policy) noexcept nogil:
    return policy.conduct == CONDUCT_GATE
