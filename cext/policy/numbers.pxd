# Numbers of verbs, actions, findings and forms.
# Indexes the tables and the code share; checked against the Python tables when they are loaded.

cdef enum:  # VerbNumber
    VERB_UNKNOWN = 0
    VERB_HELO = 1
    VERB_EHLO = 2
    VERB_MAIL = 3
    VERB_RCPT = 4
    VERB_DATA = 5
    VERB_RSET = 6
    VERB_NOOP = 10
    VERB_BDAT = 14
    VERB_XCLIENT = 23

cdef enum:  # Action: policy.model.Action
    ACTION_PASS = 0
    ACTION_LOG = 1
    ACTION_MASK = 2
    ACTION_BLANK = 3
    ACTION_DROP = 4
    ACTION_DROP_CONNECTION = 5
    ACTION_RESET = 6
    NOT_AGAIN = 255            # none: what `again` says of a finding that is to be reported

cdef enum:  # FindingNumber: policy.model.FINDINGS
    FINDING_NONE = 0
    COMMAND_DENIED
    COMMAND_TOO_LONG
    COMMAND_BARE_LF
    COMMAND_BARE_CR
    COMMAND_NUL
    COMMAND_TOO_MANY_OUTSTANDING
    COMMAND_PIPELINED_TOO_FAR
    BANNER_MASKED
    REPLY_KEYWORD_MASKED
    REPLY_TURNED_OK
    REPLY_MALFORMED
    REPLY_UNSOLICITED
    REPLY_AMBIGUOUS
    ADDRESS_ILLEGAL_CHARACTER
    ADDRESS_TOO_LONG
    RECIPIENTS_TOO_MANY
    HEADER_LINE_TOO_LONG
    DATA_LINE_TOO_LONG
    DATA_SMUGGLING_SHAPE
    DATA_BARE_LF
    DATA_BARE_CR
    DATA_NUL
    BUG_DOT_CRLF
    BUG_DATA_BYPASS
    BUG_NOOP_BODY
    BDAT_SIZE_INVALID
    BDAT_NOT_OFFERED
    TLS_STARTED
    TLS_NOT_A_HANDSHAKE
    FLOW_LIMIT
    FLOW_ASYMMETRIC
    FLOW_NOT_SMTP
    FLOW_MIDSTREAM
    STREAM_GAP
    STREAM_CONFLICTING_RETRANSMISSION
    STREAM_EDIT_TOO_LATE
    STREAM_PENDING_LIMIT
    STREAM_MEMORY_LIMIT
    STREAM_URGENT
    PACKET_TRUNCATED
    PACKET_FRAGMENT
    PACKET_ODD_FLAGS
    PACKET_SYN_DATA
    PACKET_MULTIPATH
    PACKET_WRONG_INTERFACE
    UPSTREAM_BANNER_MASKED
    UPSTREAM_COMMAND_MASKED
    UPSTREAM_KEYWORD_MASKED
    RESTORE_BANNER
    RESTORE_COMMAND
    RESTORE_KEYWORD
    HEADER_TOO_LONG
    HEADER_TO_FIELDS_TOO_MANY
    DATA_TOO_LONG
    RECIPIENTS_INVALID_TOO_MANY
    MIME_FILENAME_TOO_LONG
    RESTORE_NOT_RECOVERABLE
    STREAM_END_KEPT
    COMMAND_LINE_CUT
    PACKET_OTHER_CONNECTION
    COMMAND_TOO_MANY_JUNK

cdef enum:  # DataState: what the last octets of a message were
    DATA_TEXT = 0
    DATA_CR                    # CR
    DATA_LINE                  # CRLF, or the beginning of the message
    DATA_BARE                  # LF without CR
    DATA_DOT                   # CRLF .
    DATA_BARE_DOT              # CR . or LF .
    DATA_DOT_CR                # CRLF . CR
    DATA_DOT_ONE               # CRLF, CR or LF, a dot, and one byte more
    DATA_DOTS                  # the message's first line: two dots or more, and nothing else

cdef enum:  # BannerRule: policy.model.BannerRule
    BANNER_NONE = 0
    BANNER_B40 = 1
    BANNER_B44 = 2
    BANNER_B51 = 3
    BANNER_BASA = 4

cdef enum:  # UnknownForm: policy.model.UnknownCommand
    FORM_XVERB = 0
    FORM_XALL = 1
    FORM_NOOP = 2
    FORM_OK = 3

cdef enum:
    MOST_VERBS = 64
    UNTOLD = 128               # of a command in the ring: no record tells of it, nor of its reply
    MOST_KEYWORDS = 64
    MOST_FINDINGS = 64
    SECRET_BYTES = 16384      # of a line with a secret that are looked at
    CUT_BYTES = 2048           # a bit for each of them
    LINE_BYTES_SHOWN = 254          # of a line, as much as events show
