# What a client does not get to see of replies: the greeting's banner, EHLO keywords, refusals of masked commands.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context, note_change
from nfmailguard.cext.policy.numbers cimport ACTION_MASK, BANNER_B40, BANNER_B51, BANNER_NONE, REPLY_TURNED_OK
from nfmailguard.cext.policy.ruling cimport applies
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.outstanding cimport expected_verb
from nfmailguard.cext.smtp.reply_line cimport ANSWERS_ANYHOW, ReplyLine
from nfmailguard.cext.smtp.session cimport EHLO_RESTORED
from nfmailguard.cext.smtp.whole_replies cimport is_behind, is_refusal

cdef enum KeywordFate:
    KEYWORD_NONE = 0           # the line does not belong to a reply to EHLO
    KEYWORD_PASS = 1
    KEYWORD_OPEN = 2           # cut by the segment's end: decided byte by byte, by prefix
    KEYWORD_MASK = 3

# A byte of a reply is to be replaced by another; in monitor mode it is only counted as changed.
cdef inline void mask_byte(Context *context, uint8_t *at, uint8_t byte) noexcept nogil:
    if at[0] != byte:
        note_change(context)
        if applies(context.policy):
            at[0] = byte

# Whether the line is the greeting's banner, and the policy has a banner rule.
cdef inline bint masking_banner(Context *context, Dialogue *dialogue) noexcept nogil:
    return (context.policy.banner != BANNER_NONE and dialogue.reply.code == 220
            and expected_verb(&dialogue.exchange) == context.grammar.verb_greeting)

# Whether the reply answers a masked command and is to be turned into an OK.
cdef inline bint turning_ok(Context *context, Dialogue *dialogue) noexcept nogil:
    # S-4733: "responds with an OK even to denied commands": the server's reply to a command that was masked.
    return (expected_verb(&dialogue.exchange) == context.grammar.verb_masked
            and context.policy.action[REPLY_TURNED_OK] == ACTION_MASK)

cdef inline uint8_t ok_byte(uint32_t column, uint8_t byte) noexcept nogil:
    cdef const char *ok = b"250 OK"
    if column == 3:
        return byte
    return ok[column] if column < 6 else c" "

# Whether the reply's lines are EHLO keywords, of which some may have to be masked.
cdef inline bint masking_keywords(Context *context, Dialogue *dialogue) noexcept nogil:
    cdef ReplyLine *reply = &dialogue.reply
    if not context.policy.mask_ehlo or not is_behind(reply) or not reply.answers_ehlo:
        return False
    if context.policy.hide:
        return context.session.marks & EHLO_RESTORED and reply.code == 250
    return reply.code == 250 or (reply.answers_ehlo == ANSWERS_ANYHOW and not is_refusal(reply))

# Whether a reply line is longer than some clients read.
cdef inline bint too_long(Context *context, uint32_t length) noexcept nogil:
    # RFC 5321 4.5.3.1.5: some clients take what follows the limit for another line, and so for an EHLO keyword.
    return length > context.policy.longest_line != 0

# What the policy's banner rule makes of the byte at `column` of a 220 greeting line; `before` is the byte before it.
cdef inline uint8_t banner_byte(Context *context, uint32_t column, uint8_t byte, uint8_t before) noexcept nogil:
    cdef uint8_t rule = context.policy.banner
    cdef const char *cmap = b"SMTP/cmap ready"
    if column < 3:
        return byte
    if column == 3:
        if byte == c" " and context.policy.banner_separator:
            return byte
        if byte == c"-" and context.policy.banner_dash:
            return byte
        return c"*"
    if rule == BANNER_B40:                         # PIX 4.0: the sample banner of S-RECOG, padded with _
        return cmap[column - 4] if column < 19 else c"_"
    if rule == BANNER_B51 and (byte == c"2" or byte == c"0"):
        return byte                               # rule B51 leaves every 2 and 0: S-Q295725, S-MS320027
    if rule == BANNER_B51 and byte == c" " and before == c"0" and context.policy.banner_separator:
        return byte                               # B51 leaves a space after a 0: S-HVERA's "0 SPACE" is literal
    return c"*"

# Chooses how the EHLO keyword line whose text begins at `data` is masked.
cdef void begin_keyword(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil
# Reads one byte of a keyword line's text. `last`: the line's end comes next and is in this segment.
cdef void keyword_byte(Context *context, Dialogue *dialogue, uint8_t *at, bint last) noexcept nogil
# Reads the text of a keyword line that lies in this segment as a whole.
cdef void keyword_line(Context *context, Dialogue *dialogue, uint8_t *text, uint32_t length) noexcept nogil
# Whether the keyword line that has ended is masked, or, in monitor mode, is to be reported as if it were.
cdef bint keyword_denied(Context *context, Dialogue *dialogue) noexcept nogil
# At a line's end: report how its banner or keyword was masked, or that the reply was turned into an OK.
cdef void report_banner(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil
cdef void report_keyword(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil
cdef void report_ok(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil
