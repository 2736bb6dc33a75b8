# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Event lines written at the engine's speed: a queue's records become lines without a Python object for each record
and without the interpreter's lock (GIL). `events.lines` wraps it as a writer.

Promises: a block of lines stays valid until the caller's next call. Does not know where lines go.
"""

from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from nfmailguard.cext.core cimport MOST_GENERATIONS
from nfmailguard.cext.engine cimport Engine
from nfmailguard.cext.events.allowance cimport KINDS, allowance_change, allowance_open, allowance_told
from nfmailguard.cext.events.buffer cimport buffer_free
from nfmailguard.cext.events.ends cimport sha1_is_native
from nfmailguard.cext.events.lines cimport (
    ALERTS, LONGEST_NAME, MAIL_ACCEPTED, MAIL_REFUSED, MAIL_UNANSWERED, MOST_NAMES, RULES_NUMBERED, Word, Writing,
    write_record,
)
from nfmailguard.cext.events.session cimport sessions_close, sessions_open
from nfmailguard.cext.events.standing cimport sessions_as_values, sessions_from_values
from nfmailguard.cext.events.transactions cimport (
    ROLE_AUTH, ROLE_CHUNK, ROLE_DATA, ROLE_END_OF_DATA, ROLE_HELLO, ROLE_MAIL, ROLE_RECIPIENT, ROLE_RESET,
    ROLE_STARTTLS, ROLES,
)
from nfmailguard.cext.policy.numbers cimport MOST_FINDINGS, MOST_VERBS
from nfmailguard.cext.record cimport MOST_RULES, RECORD_TEXT, Record, Ring, ring_next, ring_read

cdef enum:
    BLOCK = 256 * 1024         # bytes of lines after which a block is complete; one record's lines may exceed it
    SPARE = 4 * BLOCK          # bytes: a buffer that has grown beyond this is freed

assert MOST_GENERATIONS * MOST_RULES == RULES_NUMBERED

MOST_ACTIONS = MOST_NAMES
ROLES_OF_VERBS = {
    "HELO": ROLE_HELLO, "EHLO": ROLE_HELLO, "MAIL": ROLE_MAIL, "RCPT": ROLE_RECIPIENT, "RSET": ROLE_RESET,
    "AUTH": ROLE_AUTH, "STARTTLS": ROLE_STARTTLS, "BDAT": ROLE_CHUNK, "DATA": ROLE_DATA,
    "<end of data>": ROLE_END_OF_DATA,
}


cdef uint32_t write_ring(Writing *writing, Ring *ring, uint32_t most) noexcept nogil:
    """Reads up to `most` records, or until the block is complete; returns their number."""
    cdef uint32_t count = 0
    cdef const Record *record = ring_next(ring)
    while record != NULL and count < most and writing.out.length < BLOCK:
        write_record(writing, record)
        ring_read(ring)
        count += 1
        record = ring_next(ring)
    return count


cdef void record_from_tuple(tuple drained, Record *record) except *:
    cdef bytes client, server, before, after
    (kind, now, flow_id, rule, family, client, client_port, server, server_port, to_server, state, verb, finding,
     action, hypothetical, applied, code, numbers, before, after) = drained
    if len(before) + len(after) > RECORD_TEXT:
        raise ValueError(f"a record has at most {RECORD_TEXT} octets of text")
    memset(record, 0, sizeof(Record))
    record.kind, record.now, record.identity.flow_id = kind, now, flow_id
    record.generation, record.identity.rule = rule // MOST_RULES, rule % MOST_RULES
    record.identity.family = family
    record.identity.client_port, record.identity.server_port = client_port, server_port
    memcpy(record.identity.client, <const char *> client, min(16, len(client)))
    memcpy(record.identity.server, <const char *> server, min(16, len(server)))
    record.to_server, record.state, record.verb, record.finding = to_server, state, verb, finding
    record.action, record.hypothetical, record.applied, record.code = action, hypothetical, applied, code
    record.a, record.b, record.c, record.d, record.e = numbers
    record.before_length, record.after_length = <uint16_t> len(before), <uint16_t> len(after)
    memcpy(record.text, <const char *> before, len(before))
    memcpy(record.text + record.before_length, <const char *> after, len(after))


cdef class EventLines:
    """Writes the event lines of what an engine has recorded.

    ``names``: lists of bytes by number, as written into a line: ``finding``, ``action``, ``state``, ``verb``,
    ``flow_state``, ``ended``, ``alert``; ``roles``: each verb's ROLE_; ``findings``: address.illegal_character's bit,
    the bits of findings that single packets cause, the number of reply.keyword_masked. ``memory``: limit in bytes;
    ``rate``: bytes per second, -1: no limit; ``key``: 16 secret bytes. Raises MemoryError.
    """

    def __cinit__(self, dict names, list roles, tuple findings, bytes key, uint64_t engine, int64_t memory,
                  int64_t rate):
        cdef uint64_t keys[2]
        cdef Writing *writing = <Writing *> calloc(1, sizeof(Writing))
        self.writing = writing
        self.kept, self.rules = [], {}
        memcpy(keys, <const char *> key, min(16, len(key)))
        if writing == NULL or sessions_open(&writing.sessions, memory, keys) < 0:
            raise MemoryError
        allowance_open(&writing.allowance, keys)
        allowance_change(&writing.allowance, rate)
        writing.engine = engine << 44
        writing.native = sha1_is_native()
        if max(map(len, names["finding"])) > LONGEST_NAME:
            raise ValueError(f"a finding's name is longer than {LONGEST_NAME} octets")
        for number, role in enumerate(roles):
            if role >= ROLES:
                raise ValueError("a role there is none of")
            writing.meaning.role[number] = role
        writing.meaning.illegal, writing.meaning.by_packets, writing.meaning.keyword_masked = findings
        self.keep_names(writing.names.finding, MOST_FINDINGS, names["finding"])
        self.keep_names(writing.names.action, MOST_NAMES, names["action"])
        self.keep_names(writing.names.state, MOST_NAMES, names["state"])
        self.keep_names(writing.names.verb, MOST_VERBS, names["verb"])
        self.keep_names(writing.names.flow_state, MOST_NAMES, names["flow_state"])
        self.keep_names(writing.names.ended, MOST_NAMES, names["ended"])
        self.keep_names(writing.names.alert, ALERTS, names["alert"])

    def __dealloc__(self):
        if self.writing != NULL:
            sessions_close(&self.writing.sessions)
            buffer_free(&self.writing.out)
            free(self.writing)

    cdef void keep_names(self, Word *words, uint32_t most, list values) except *:
        cdef uint32_t number
        cdef bytes value
        if len(values) > most:
            raise ValueError(f"{len(values)} names; there is room for {most}")
        for number in range(len(values)):
            value = values[number]
            self.kept.append(value)    # keeps alive the bytes the word points to
            words[number].data = value
            words[number].length = <uint32_t> len(value)

    def learn(self, uint32_t number, bytes name):
        """Sets the text for a rule's number, as a finding's line has it: from ``"mode"`` to the profile's name."""
        if number >= RULES_NUMBERED:
            raise ValueError(f"rule {number}; there are {RULES_NUMBERED}")
        self.rules[number] = name
        self.writing.names.rule[number].data = name
        self.writing.names.rule[number].length = <uint32_t> len(name)

    def change(self, bint alerts, int64_t rate):
        """Sets alerts and rate from now on; what was written before still counts against the rate."""
        self.writing.alerts = alerts
        allowance_change(&self.writing.allowance, rate)

    def read(self, Engine engine, uint32_t most):
        """Reads up to ``most`` records of the engine's ring, or until a block is complete; returns their number."""
        cdef uint32_t count
        cdef Ring *ring = &engine.core.ring
        with nogil:
            count = write_ring(self.writing, ring, most)
        return count

    def take(self, list records):
        """Takes records that were drained from a ring, in order."""
        cdef Record record
        for drained in records:
            record_from_tuple(tuple(drained), &record)
            with nogil:
                write_record(self.writing, &record)

    @property
    def lines(self):
        """The number of lines in the block."""
        return self.writing.lines

    def block(self):
        """The lines, in memory of this object that stays unchanged until ``clear``."""
        if self.writing.out.length == 0:
            return memoryview(b"")
        return PyMemoryView_FromMemory(<char *> self.writing.out.data, <Py_ssize_t> self.writing.out.length, 0x100)

    def clear(self):
        """Empties the block, once its lines have been taken."""
        self.writing.lines = self.writing.out.length = 0
        if self.writing.out.capacity > SPARE:
            buffer_free(&self.writing.out)

    def untold(self, uint64_t now):
        """Withheld lines not reported yet: their number by kind, and how many sources; they count as reported now."""
        cdef const uint8_t *order = self.writing.allowance.order
        found = [(order[i], self.writing.allowance.untold[order[i]]) for i in range(self.writing.allowance.kinds)]
        sources = self.writing.allowance.sources
        if found:
            allowance_told(&self.writing.allowance, now)
        return found, sources

    def counted(self):
        """Bytes kept, flows forgotten, commands omitted, lines lost; withheld lines by kind; mails by outcome."""
        cdef Writing *writing = self.writing
        return ((writing.sessions.octets, writing.sessions.forgotten, writing.sessions.omitted, writing.lost),
                [writing.allowance.withheld[i] for i in range(KINDS)],
                (writing.mails[MAIL_ACCEPTED], writing.mails[MAIL_REFUSED], writing.mails[MAIL_UNANSWERED]))

    def standing(self):
        """What is known of unfinished mails, as plain values."""
        return sessions_as_values(&self.writing.sessions)

    def take_over(self, list sessions, tuple mails):
        """Continues for another writer, before any record is read; ``mails``: that writer's mails by outcome."""
        sessions_from_values(&self.writing.sessions, sessions)
        self.writing.mails[MAIL_ACCEPTED], self.writing.mails[MAIL_REFUSED], self.writing.mails[MAIL_UNANSWERED] = mails
