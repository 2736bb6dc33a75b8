# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Verbs that do not pass: what a finding shows of them.

Promises: of what follows a verb only one word is shown, and never a secret. Does not decide about bytes.
"""

from libc.string cimport memset

from nfmailguard.cext.policy.findings cimport report_shown, shown
from nfmailguard.cext.policy.numbers cimport ACTION_MASK, FORM_XALL, LINE_BYTES_SHOWN
from nfmailguard.cext.policy.ruling cimport applies
from nfmailguard.cext.smtp.line cimport Line
from nfmailguard.cext.smtp.redact cimport hide_secrets, shown_of_verb, shows_argument
from nfmailguard.cext.smtp.runs cimport MASK_LETTER

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32
    EXCERPT = 48                       # bytes of a line that a finding shows


cdef uint8_t report_verb(Context *context, CommandLine *command, uint8_t finding, uint8_t verb, const uint8_t *rest,
                         uint32_t length) noexcept nogil:
    # `rest`: what follows the verb in this segment; the first word of it is shown, but never a secret.
    cdef Line *line = command.kept
    cdef uint8_t before[LINE_BYTES_SHOWN + EXCERPT]
    cdef uint8_t after[LINE_BYTES_SHOWN + EXCERPT]
    cdef uint32_t size = line.length if line.length < EXCERPT else EXCERPT
    cdef uint32_t sent = line.sent if line.sent < size else size
    cdef uint32_t more = 0
    cdef const char *noop = b"NOOP"
    size = shown_of_verb(context, line.data, size, verb)
    sent = sent if sent < size else size
    if shows_argument(context, verb):
        while more < length and more < EXCERPT and rest[more] != CR and rest[more] != LF and (
                rest[more] > SPACE or more == 0):
            more += 1
    memcpy(before, line.data, size)
    memcpy(before + size, rest, more)
    hide_secrets(before, size + more, more == length or more == EXCERPT)
    memcpy(after, before, size + more)
    if context.policy.action[finding] != ACTION_MASK:
        return report_shown(context, finding, True, verb, command.offset, shown(before, size + more, NULL, 0))
    if command.mode != MASK_LETTER and becomes_noop(context.policy, line.data, size):
        memset(after, SPACE, size)
        memcpy(after, noop, 4)
    else:
        if not applies(context.policy):
            sent = 0
        memset(after + sent, context.policy.letter, size - sent)
    if context.policy.unknown == FORM_XALL:
        memset(after + size, context.policy.letter, more)
    return report_shown(context, finding, True, verb, command.offset, shown(before, size + more, after, size + more))
