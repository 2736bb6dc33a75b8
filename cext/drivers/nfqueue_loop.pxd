# The kernel driver's loop: one queue, one thread, one core.
cimport cython
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.drivers.netlink cimport Verdicts
from nfmailguard.cext.drivers.rawsocket cimport RawSender, RawSockets
from nfmailguard.cext.drivers.system cimport iovec, mmsghdr, mnl_socket
from nfmailguard.cext.drivers.tap cimport TapState, TapWriter
from nfmailguard.cext.engine cimport Engine
from nfmailguard.cext.operation cimport Operation, Operations
from nfmailguard.cext.wire.packet cimport QueuedPacket

cdef enum:
    CONNECTION_MARK_MASK = 0xf0000000
    UNMARK = 1                 # bit of an id's upper half: the mark of our table goes when the packet does
    BATCH = 64                 # most datagrams a receive: enough to spread its cost, few enough to stay in a cache

cdef struct Counters:
    uint64_t packets
    uint64_t batches
    uint64_t bytes
    uint64_t gso_packets       # super-packets
    uint64_t truncated         # the kernel, or the copy range, cut them
    uint64_t unreadable        # messages without a readable packet id: no verdict is possible
    uint64_t accepted
    uint64_t replaced
    uint64_t dropped
    uint64_t emitted
    uint64_t expired           # calls of core_expire
    uint64_t sleeps            # times the loop waited for a packet
    uint64_t settled           # packets whose connection was offloaded
    uint64_t enobufs           # the socket buffer ran over: packets were lost
    uint64_t receive_errors
    uint64_t send_retries
    uint64_t verdict_errors    # the kernel refused a verdict, or none could be written

cdef enum LoopEnd:
    LOOP_STOPPED = 0
    LOOP_SIGNAL = 1            # Python may have a signal to look at
    LOOP_FAILED = 2


@cython.final
cdef class QueueLoop:
    cdef mnl_socket *socket
    cdef int fd
    cdef int wake              # eventfd
    cdef int stopped
    cdef int leaving           # another process goes on with the queue: nothing is answered at the end
    cdef bint older_unanswered  # what an earlier reader has left behind, before the first packet of ours
    cdef int anew              # every flow is to be ended
    cdef int failed            # errno that ended the loop
    cdef bint in_main_thread
    cdef readonly uint32_t number
    cdef readonly uint32_t length
    cdef readonly uint32_t copy_range
    cdef readonly uint32_t receive_buffer  # octets, as obtained
    cdef readonly uint32_t wanted_buffer
    cdef uint32_t most_buffer
    cdef readonly bint gso
    cdef readonly bint fail_open
    cdef Engine engine
    cdef RawSender sender
    cdef TapWriter writer
    cdef Core *core            # NULL: accept everything
    cdef TapState *tap         # NULL: none
    cdef RawSockets *sockets   # NULL: what is to be emitted is only counted
    cdef Operations operations
    cdef Verdicts verdicts
    cdef uint32_t most_replaced  # octets of a packet a verdict can carry
    cdef Counters count
    cdef uint64_t wall_offset  # wall clock less monotonic clock when the queue was opened
    cdef uint64_t core_now     # the latest `now` the core was given
    cdef uint8_t *arena
    cdef uint32_t slot         # octets of the arena a datagram may take
    cdef uint32_t batch        # datagrams a receive, at most
    cdef uint64_t busy_poll    # nanoseconds it goes on asking before it sleeps
    cdef uint32_t offload_mark  # 0: none
    cdef uint32_t connection_mark  # the first bits of a packet's that is its QueuedPacket.connection; 0: none is
    cdef uint32_t mark         # of the packet that is being decided
    cdef uint32_t received     # datagrams in the arena, not looked at yet
    cdef mmsghdr messages[BATCH]
    cdef iovec vectors[BATCH]
    cdef QueuedPacket packets[BATCH]
    cdef uint32_t marks[BATCH]

    cdef uint64_t now(self) noexcept nogil
    cdef int loop(self) noexcept nogil
    cdef int wait(self) noexcept nogil
    cdef void spin(self) noexcept nogil
    cdef void receive(self, int flags) noexcept nogil
    cdef void work(self) noexcept nogil
    cdef uint32_t read_batch(self, int *answer) noexcept nogil
    cdef void expire_until(self, uint64_t now) noexcept nogil
    cdef void carry_out(self, uint64_t now) noexcept nogil
    cdef void accept(self, uint64_t id, uint64_t now) noexcept nogil
    cdef void apply(self, const Operation *operation, uint64_t now) noexcept nogil
    cdef void answer(self, uint64_t id, uint32_t verdict, const uint8_t *data, uint32_t length,
                     const uint32_t *mark) noexcept nogil
    cdef void send_verdicts(self) noexcept nogil
    cdef void finish(self) noexcept nogil
    cdef int configure(self) except -1
    cdef int size_buffers(self) except -1
