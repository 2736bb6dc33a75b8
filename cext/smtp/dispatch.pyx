# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The client's direction: hands its bytes to the module that reads them now.

Promises: how bytes are read changes only where the dialogue says so (smtp.verbs, column ``reads``). Does not know
lines or messages.
"""

from nfmailguard.cext.policy.findings cimport again, note_change, report, report_shown, shown
from nfmailguard.cext.policy.numbers cimport (
    ACTION_PASS, COMMAND_PIPELINED_TOO_FAR, NOT_AGAIN, TLS_NOT_A_HANDSHAKE,
)
from nfmailguard.cext.policy.ruling cimport gates
from nfmailguard.cext.smtp.argument cimport says_seven_bits
from nfmailguard.cext.smtp.command cimport resume_line
from nfmailguard.cext.smtp.command_line cimport PHASE_ARGUMENT, CommandLine
from nfmailguard.cext.smtp.grammar cimport ARGUMENT_SENDER, INPUT_CHUNK, INPUT_COMMANDS, INPUT_DATA, INPUT_OPAQUE
from nfmailguard.cext.smtp.lines cimport command_bytes
from nfmailguard.cext.smtp.message cimport chunk_bytes, message_bytes
from nfmailguard.cext.smtp.outstanding cimport Exchange, awaited_verb, note_violation, take_tls
from nfmailguard.cext.smtp.session cimport MAIL_SEVEN_BITS

cdef extern from "scan.h" nogil:
    bint nm_eighth(const uint8_t *p, size_t length) noexcept
    bint nm_clear_eighth(uint8_t *p, size_t length) noexcept

cdef enum:
    TLS_HANDSHAKE = 0x16       # ContentType handshake: the first byte of a TLS record (RFC 8446 5.1)


cdef void note_reply_arrived(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    # RFC 2920 3.1: DATA and AUTH have to be the last command of a pipelined group; RFC 3207 4.2: so has STARTTLS.
    cdef Exchange *exchange = &dialogue.exchange
    if exchange.waiting and not exchange.pipelining_violation:
        note_violation(exchange)
        if again(context, COMMAND_PIPELINED_TOO_FAR, True) == NOT_AGAIN:
            report(context, COMMAND_PIPELINED_TOO_FAR, True, awaited_verb(exchange), offset)


cdef bint declares(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil:
    """Whether these bytes hold a MAIL with BODY=7BIT, or complete one that began in an earlier segment."""
    cdef CommandLine *command = &dialogue.command
    cdef bint within = command.phase == PHASE_ARGUMENT and not command.denied and (
        context.grammar.argument[command.verb] == ARGUMENT_SENDER)
    return says_seven_bits(data, length, command.argument.in_seven if within else 0)


cdef uint32_t client_bytes(Context *context, Dialogue *dialogue, uint8_t *data, uint32_t length,
                           uint64_t offset) noexcept nogil:
    cdef Exchange *exchange = &dialogue.exchange
    cdef uint32_t at = 0, before
    cdef bint cleared = False
    if exchange.input == INPUT_COMMANDS:
        resume_line(context, dialogue, data, length)
    while at < length and context.verdict == ACTION_PASS:
        if exchange.input == INPUT_DATA:
            at = message_bytes(context, dialogue, data, at, length, offset)
        elif exchange.input == INPUT_CHUNK:
            at = chunk_bytes(context, dialogue, at, length)
        elif exchange.input == INPUT_OPAQUE:
            if not exchange.tls_checked:
                take_tls(exchange)
                if data[at] != TLS_HANDSHAKE:
                    report_shown(context, TLS_NOT_A_HANDSHAKE, True, 0, offset + at, shown(data + at, 1, NULL, 0))
            return length
        elif exchange.waiting and (context.already_forwarded or not gates(context.policy)):
            note_reply_arrived(context, dialogue, offset + at)
            return at
        else:
            if exchange.waiting:
                note_reply_arrived(context, dialogue, offset + at)
            if not cleared and gates(context.policy) and nm_eighth(data + at, length - at) and (
                    context.session.marks & MAIL_SEVEN_BITS or declares(context, dialogue, data + at, length - at)):
                # A server that clears eighth bits does so in commands too; after DATA it may read these bytes as
                # message text.
                cleared = True
                note_change(context)
                nm_clear_eighth(data + at, length - at)
            before = at
            at = command_bytes(context, dialogue, data, at, length, offset)
            if at == before:                       # a BDAT whose chunk has to wait for earlier replies
                return at
    return length
