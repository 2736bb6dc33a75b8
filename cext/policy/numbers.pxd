# Numbers of verbs, actions, findings and reply forms: indexes that the Python tables and the core share. They are
# checked against the Python tables when those are loaded.

cdef enum:  # VerbNumber: SMTP verbs that the core itself knows
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

cdef enum:  # Action: what is done about a finding (policy.model.Action)
    ACTION_PASS = 0
    ACTION_LOG = 1
    ACTION_MASK = 2
    ACTION_BLANK = 3
    ACTION_DROP = 4
    ACTION_DROP_CONNECTION = 5
    ACTION_RESET = 6
    NOT_AGAIN = 255            # not an action: what `again` returns for a finding that still has to be reported

cdef enum:  # FindingNumber: the kinds of findings, in the order of policy.model.FINDINGS
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

cdef enum:  # DataState: where in a possible end of data (CRLF . CRLF) the last bytes of a message are
    DATA_TEXT = 0
    DATA_CR                    # the last byte was a CR
    DATA_LINE                  # the last bytes were CRLF, or the message begins here
    DATA_BARE                  # the last byte was a LF without a CR before it
    DATA_DOT                   # the last bytes were CRLF and a dot
    DATA_BARE_DOT              # the last bytes were a bare CR or a bare LF, and a dot
    DATA_DOT_CR                # the last bytes were CRLF, a dot and a CR
    DATA_DOT_ONE               # the last bytes were a line end (CRLF, CR or LF), a dot, and one other byte
    DATA_DOTS                  # the message so far is the beginning of its first line, and only dots, two or more

cdef enum:  # BannerRule: how a 220 greeting is masked (policy.model.BannerRule)
    BANNER_NONE = 0
    BANNER_B40 = 1
    BANNER_B44 = 2
    BANNER_B51 = 3
    BANNER_BASA = 4

cdef enum:  # UnknownForm: what a denied command is turned into (policy.model.UnknownCommand)
    FORM_XVERB = 0
    FORM_XALL = 1
    FORM_NOOP = 2
    FORM_OK = 3

cdef enum:
    MOST_VERBS = 64
    UNTOLD = 128               # flag of an outstanding command: neither it nor its reply is logged
    MOST_KEYWORDS = 64
    MOST_FINDINGS = 64
    SECRET_BYTES = 16384      # of a line with a secret (AUTH), at most this many bytes are inspected
    CUT_BYTES = 2048           # size in bytes of a bitmap with one bit for each of SECRET_BYTES
    LINE_BYTES_SHOWN = 254          # of a line, events show at most this many bytes
