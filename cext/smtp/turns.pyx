# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Both sides' lines by turns, in monitor mode, where the client did not wait for replies.

Promises: both become what ``dispatch`` and ``reply`` make of them: a reply at a time, then the client's lines up to the
next one that has to wait. All but whole lines that can be read in one step is left to them. Does not know streams.
"""

from nfmailguard.cext.policy.numbers cimport ACTION_PASS
from nfmailguard.cext.smtp.command_line cimport PHASE_START, CommandLine
from nfmailguard.cext.smtp.dispatch cimport note_reply_arrived
from nfmailguard.cext.smtp.grammar cimport INPUT_COMMANDS
from nfmailguard.cext.smtp.outstanding cimport Exchange, note_violation
from nfmailguard.cext.smtp.runs cimport KIND_TOO_FAR, LineRules, found, line_rules_of, settle_counts, untold
from nfmailguard.cext.smtp.session cimport HYPOTHETICAL
from nfmailguard.cext.smtp.whole_lines cimport clean_lines
from nfmailguard.cext.smtp.whole_replies cimport quick_lines


cdef inline bint client_waits(Context *context, Dialogue *dialogue, LineRules *rules, Said *client) noexcept nogil:
    """Reads the client's lines; returns whether one of them has to wait for its reply although the client has sent
    more."""
    cdef CommandLine *command = &dialogue.command
    cdef Exchange *exchange = &dialogue.exchange
    if command.phase != PHASE_START or command.after_cr or exchange.input != INPUT_COMMANDS:
        return False
    client.read += clean_lines(context, dialogue, rules, client.data + client.read, client.length - client.read,
                               client.offset + client.read)
    if not exchange.waiting or client.read == client.length:
        return False
    if (context.session.marks & HYPOTHETICAL and not exchange.pipelining_violation
            and untold(context, rules, KIND_TOO_FAR, 1)):
        note_violation(exchange)
        found(rules, KIND_TOO_FAR, 1)
        return True
    settle_counts(context, rules)                  # the next event says which findings came before it
    note_reply_arrived(context, dialogue, client.offset + client.read)
    return True


cdef void take_turns(Context *context, Dialogue *dialogue, Said *client, Said *server) noexcept nogil:
    cdef uint32_t run
    cdef LineRules rules
    line_rules_of(context, &rules)
    while context.verdict == ACTION_PASS and server.read < server.length:
        if not dialogue.exchange.waiting and not client_waits(context, dialogue, &rules, client):
            break
        run = quick_lines(context, dialogue, server.data + server.read, server.length - server.read,
                          server.offset + server.read)
        if run == 0:
            break
        server.read += run
    settle_counts(context, &rules)
