# The kernel driver's loop: one NFQUEUE queue, one thread, one core.
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
    # Bit in the upper half of a packet's id: the packet carries a mark set by our nftables table, cleared on accept.
    UNMARK = 1
    BATCH = 64                 # most datagrams per receive: enough to share the call's cost, few enough for the cache

cdef struct Counters:
    uint64_t packets
    uint64_t batches
    uint64_t bytes
    uint64_t gso_packets       # super-packets (GSO): segments the kernel has merged
    uint64_t truncated         # packets cut by the kernel or by the copy range
    uint64_t unreadable        # netlink messages without a readable packet id: no verdict is possible
    uint64_t accepted
    uint64_t replaced
    uint64_t dropped
    uint64_t emitted
    uint64_t expired           # times the core's timers were run because one was due
    uint64_t sleeps            # times the loop has slept to wait for a packet
    uint64_t settled           # packets accepted with the offload mark: their connection needs no further inspection
    uint64_t enobufs           # times the netlink socket's receive buffer overflowed: packets were lost
    uint64_t receive_errors
    uint64_t send_retries
    uint64_t verdict_errors    # verdicts that the kernel refused or that could not be written

cdef enum LoopEnd:
    LOOP_STOPPED = 0
    LOOP_SIGNAL = 1            # the loop has stopped because Python may have a signal to handle
    LOOP_FAILED = 2


@cython.final
cdef class QueueLoop:
    cdef mnl_socket *socket
    cdef int fd
    cdef int wake              # eventfd that wakes the loop
    cdef int stopped
    # 1: another process takes over the queue: held packets get no verdict when this loop ends.
    cdef int leaving
    # A former reader may have left packets without verdict; they are dropped before our first packet is answered.
    cdef bint older_unanswered
    cdef int anew              # 1: every flow is to be ended and the core to start anew, at the next idle moment
    cdef int failed            # errno that ended the loop; 0: none
    cdef bint in_main_thread
    cdef readonly uint32_t number
    cdef readonly uint32_t length
    cdef readonly uint32_t copy_range
    cdef readonly uint32_t receive_buffer  # bytes of the socket's receive buffer that the kernel granted
    cdef readonly uint32_t wanted_buffer
    cdef uint32_t most_buffer
    cdef readonly bint gso
    cdef readonly bint fail_open
    cdef Engine engine
    cdef RawSender sender
    cdef TapWriter writer
    cdef Core *core            # the core that decides packets; NULL: every packet is accepted
    cdef TapState *tap         # the tap that records packets; NULL: none
    cdef RawSockets *sockets   # raw sockets for sending RSTs; NULL: RSTs are only counted
    cdef Operations operations
    cdef Verdicts verdicts
    cdef uint32_t most_replaced  # bytes of the largest packet a verdict can carry
    cdef Counters count
    cdef uint64_t wall_offset  # nanoseconds: wall clock minus monotonic clock when the queue was opened
    cdef uint64_t core_now     # the latest time given to the core, in nanoseconds
    cdef uint8_t *arena
    cdef uint32_t slot         # bytes of the arena for one datagram
    cdef uint32_t batch        # most datagrams per receive
    cdef uint64_t busy_poll    # nanoseconds to keep polling before the loop sleeps
    cdef uint32_t offload_mark  # mark set on packets of connections that need no more inspection; 0: none
    # The first four bits of packet marks that name a connection (QueuedPacket.connection); 0: marks are not read.
    cdef uint32_t connection_mark
    cdef uint32_t mark         # mark of the packet being decided
    cdef uint32_t received     # datagrams received into the arena and not parsed yet
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
