# The compiled policy: one FlowRule in the form that the packet path reads.
from libc.stdint cimport uint32_t, uint8_t

from nfmailguard.cext.policy.network cimport Network
from nfmailguard.cext.policy.numbers cimport CUT_BYTES, LINE_BYTES_SHOWN, MOST_FINDINGS, MOST_KEYWORDS, MOST_VERBS
from nfmailguard.cext.smtp.grammar cimport Grammar
from nfmailguard.cext.smtp.name cimport Name

cdef enum:  # bits of CompiledPolicy.restore: what a gateway in restore mode undoes
    RESTORE_COMMANDS = 1       # masked commands are restored: the gateway is on the server's side of the firewall
    RESTORE_REPLIES = 2        # masked replies are restored: the gateway is on the client's side of the firewall

cdef enum:                     # Conduct: what may happen to a flow's bytes (policy.model.Conduct)
    CONDUCT_WATCH = 0          # monitor, --dry-run: all bytes go on unchanged, and are only followed and reported
    CONDUCT_EDIT = 1           # restore: bytes are changed in place; the client's packets never wait
    CONDUCT_GATE = 2           # enforce: only decided bytes are delivered; a packet that cannot be decided yet waits
    CONDUCTS = 3

cdef enum AddressByte:         # the role of a byte in the argument of MAIL or RCPT
    ADDRESS_ILLEGAL = 1        # a character that is not allowed: a space replaces it
    ADDRESS_OPENS = 2          # the character <, illegal where an earlier < is still open
    ADDRESS_CLOSES = 4         # the character >, illegal where no < is open (S-ASDM)

# A line of a server's EHLO reply that the firewall upstream masks: what a masked line may have been.
cdef struct Candidate:
    uint8_t data[LINE_BYTES_SHOWN]
    uint8_t length
    uint8_t restored           # whether the policy allows the line to be restored

# What a group of servers is known to say (greeting and EHLO reply) where no firewall masks it.
cdef struct Listing:
    Network *servers           # networks of these servers; if server_count is 0, any server
    uint32_t server_count
    uint32_t count             # number of candidates (lines of the EHLO reply, in its order)
    uint32_t banner_length     # length of the known greeting in bytes; 0: the greeting is not known
    uint8_t digits             # rule B51: each 2 and 0 left in a masked greeting is an original character
    uint8_t spaces             # rule B51: a masked greeting has also kept the space after a 0
    uint8_t banner[LINE_BYTES_SHOWN]
    Candidate candidates[MOST_KEYWORDS]

# One FlowRule, compiled. Never changed once flows use it.
cdef struct CompiledPolicy:
    Grammar *grammar           # grammar of the policy's generation; `allow` is indexed by its verb numbers
    uint32_t *flows            # the generation's count of flows that use its rules
    uint8_t generation         # number of the generation of rules that the policy belongs to
    uint8_t apart              # packets carry marks that say which conntrack entry they belong to
    uint8_t conduct            # Conduct: what may happen to the flow's bytes
    uint8_t action[MOST_FINDINGS]
    uint8_t allow[MOST_VERBS]
    uint8_t unknown            # UnknownForm: what a denied command is turned into
    uint8_t letter
    uint8_t per_packet         # a verb cut over segments is masked packet by packet (partial_lines = mask)
    uint8_t banner             # BannerRule: how a greeting is masked
    uint8_t banner_separator
    uint8_t banner_dash
    uint8_t mask_ehlo
    uint8_t hide               # restore: `keywords` are those to mask in the reply to an EHLO that was restored
    uint8_t restore            # bits RESTORE_COMMANDS and RESTORE_REPLIES; 0 in other modes
    uint8_t restore_starttls
    uint8_t restore_auth
    uint8_t hold_end_of_data   # an end of data (CRLF.CRLF) is forwarded in one segment only
    uint8_t restore_noop       # the masking firewall replaces a denied command with NOOP, so a NOOP may have been EHLO
    uint8_t address_byte[256]  # the AddressByte bits of each byte value
    uint8_t keyword_end[256]
    uint8_t seven_bits         # the eighth bit of each byte from the client is cleared
    uint8_t bug_dot_crlf
    uint8_t bug_data_bypass
    uint8_t bug_noop_body
    uint8_t internal_error     # Action for a packet whose processing failed with an internal error
    uint8_t midstream_at_start  # Action for a flow that was open before the gateway started
    uint32_t line_length       # longest command line in bytes; 0: no limit, as for the limits below
    uint32_t longest_line      # longest command line, in bytes, that every server reads as one line
    uint32_t longest_parameters  # as longest_line, for commands that ESMTP parameters may lengthen
    uint32_t longest_secret    # longest line of an AUTH exchange in bytes: the AUTH command, or a line after it
    uint8_t cuts[CUT_BYTES]    # bitmap of the offsets in a line with a secret where some server may begin another line
    uint32_t near_length       # up to this length, a line and its next few bytes have reached none of the limits above
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
    uint32_t junk_commands     # limit on junk commands (that led to no recipient, chunk or message); UINT32_MAX: none
    uint32_t findings_told
    uint32_t keyword_count
    Name keywords[MOST_KEYWORDS]
    uint32_t listing_count
    Listing *listings

# Whether the policy is applied: bytes are changed and flows ended. False in monitor mode and with --dry-run.
cdef inline bint applies(const CompiledPolicy *policy) noexcept nogil:
    return policy.conduct != CONDUCT_WATCH

# Whether the policy is applied and, besides, packets that cannot be decided yet have to wait (enforce).
cdef inline bint gates(const CompiledPolicy *policy) noexcept nogil:
    return policy.conduct == CONDUCT_GATE
