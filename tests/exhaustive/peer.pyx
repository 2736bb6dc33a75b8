# cython: language_level=3
"""The server's kernel with its application, for who plays against it from Python."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from tests.exhaustive.kernel cimport (
    OPTION_AO,
    OPTION_MD5,
    OPTION_NONE,
    SEGMENT_PAYLOAD,
    kernel,
    kernel_abort,
    kernel_hang_up,
    kernel_open,
    kernel_receive,
    kernel_repeat,
    kernel_wait,
    segment,
)

#: What a segment may carry besides timestamps.
NONE, MD5, AO = OPTION_NONE, OPTION_MD5, OPTION_AO


cdef class Peer:
    """One server; every call gives what it sends: (seq, ack, flags, window, payload, timestamp or None)."""

    cdef kernel server

    def __cinit__(self, int model, bint denies_ehlo):
        kernel_open(&self.server, model, denies_ehlo)

    cdef list sent(self):
        cdef list out = []
        cdef segment *one
        cdef int i
        for i in range(self.server.count):
            one = &self.server.out[i]
            out.append((one.seq, one.ack, one.flags, one.window, <bytes> one.payload[:one.length],
                        one.tsval if one.timestamps else None))
        self.server.count = 0
        return out

    def receive(self, uint32_t seq, uint32_t ack, int flags, int window, bytes payload, timestamp, int option):
        """A segment has arrived."""
        cdef segment one
        if len(payload) > SEGMENT_PAYLOAD:
            raise ValueError("more than a segment holds")
        one.seq = seq
        one.ack = ack
        one.flags = flags
        one.window = window
        one.timestamps = timestamp is not None
        one.tsval = timestamp or 0
        one.option = option
        one.to_server = 1
        one.length = <uint16_t> len(payload)
        memcpy(one.payload, <const char *> payload, one.length)
        kernel_receive(&self.server, &one)
        return self.sent()

    def hang_up(self):
        """Its application does."""
        kernel_hang_up(&self.server)
        return self.sent()

    def abort(self):
        """It closes with bytes nobody has read."""
        kernel_abort(&self.server)
        return self.sent()

    def repeat(self):
        """A timer."""
        kernel_repeat(&self.server)
        return self.sent()

    def wait(self, uint64_t nanoseconds):
        """Time goes by."""
        kernel_wait(&self.server, nanoseconds)
        return self.sent()

    @property
    def connected(self):
        return self.server.state >= 2

    @property
    def listening(self):
        return self.server.state == 0

    @property
    def fault(self):
        """It has read a denied verb as a command."""
        return bool(self.server.application.fault)

    @property
    def messages(self):
        """Received, of this connection."""
        return self.server.application.messages

    @property
    def expects(self):
        """The next number of the client's, of this connection or the last one."""
        return self.server.rcv_nxt if self.server.state else self.server.last_rcv_nxt

    @property
    def sends(self):
        return self.server.snd_nxt

    @property
    def unacknowledged(self):
        return self.server.snd_una
