# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The kernel driver's loop: it feeds packets from an NFQUEUE to the core and returns the core's verdicts.

Promises: every packet id read gets exactly one verdict, at the latest when the loop
ends; verdicts are single messages, many in one send; lost packets and verdicts are
counted. The loop does not hold the GIL and makes no Python object; it allocates only what
the core does. Does not know SMTP, nor how to word an error: ``queues.kernel`` does.
"""

import os
import threading

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, ENOMEM, EPROTO, errno
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, nanosleep, timespec
from posix.unistd cimport close, read, write

from nfmailguard.cext.drivers.netlink cimport (
    MESSAGE_ERROR, MESSAGE_OTHER, MESSAGE_PACKET, MESSAGE_ROOM, MOST_REPLACED, VERDICT_FULL, VERDICT_ROOM, Message,
    message_parse, verdict_put, verdict_put_older,
)
from nfmailguard.cext.drivers.queue_config cimport CONFIG_ROOM, bind_message, fail_open_message
from nfmailguard.cext.drivers.queue_socket cimport open_socket, wall_ahead, widen_buffers
from nfmailguard.cext.drivers.rawsocket cimport raw_send
from nfmailguard.cext.drivers.system cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, MSG_DONTWAIT, MSG_WAITFORONE, NF_ACCEPT, NF_DROP, POLLIN, eventfd, mnl_socket_close,
    mnl_socket_get_fd, mnl_socket_get_portid, mnl_socket_sendto, nanoseconds, nap, nlmsghdr, nm_load_flag,
    nm_store_flag, pollfd, ppoll, recvmmsg, send,
)
from nfmailguard.cext.drivers.tap cimport tap_incoming, tap_operation
from nfmailguard.cext.operation cimport OP_ACCEPT, OP_DROP, OP_EMIT, OP_REPLACE, operations_clear, operations_free
from nfmailguard.cext.process cimport (
    core_begin_batch, core_expire, core_finish, core_next_deadline, core_prefetch_bucket, core_prefetch_flow,
    core_process,
)
from nfmailguard.cext.wire.packet cimport PACKET_GSO

cdef extern from "bytes.h" nogil:
    void nm_prefetch(const void *p) noexcept

cdef enum:
    SEND_ROOM = 256 * 1024     # bytes of verdicts in one send; many replaced packets take several sends
    # The most bytes a packet charges to the socket buffer: to copy a whole super-packet the kernel
    # allocates 128 KiB, a power of two. This is an upper limit, no memory is reserved for it.
    PACKET_CHARGE = 132 * 1024
    MOST_BUFFER = 0x7fffffff   # upper limit of the socket buffer option
    SIGNAL_CHECK = 100000000   # nanoseconds after which a busy loop in the main thread looks for signals
    LAST_WAIT = 10000000       # nanoseconds of one pause for the records' reader when the loop ends
    LAST_WAITS = 200
    FORESIGHT = 8              # memory is prefetched so many packets ahead: its latency over a packet's processing time


cdef class QueueLoop:
    """The loop of one queue, which ``open`` binds; ``engine`` None accepts every packet without a core.

    ``open`` raises ``OSError`` with the kernel's errno. Where ``receive_buffer`` is then below
    ``wanted_buffer``, a burst can overflow the socket; ``enobufs`` counts how often it did.
    """

    def __cinit__(self, Engine engine, uint32_t number, *, uint32_t length, uint32_t copy_range, bint gso,
                  bint fail_open, uint32_t batch, uint64_t busy_poll, uint32_t offload_mark, uint32_t connection_mark,
                  uint32_t most_buffer, RawSender sender, TapWriter writer):
        self.fd = self.wake = -1
        self.engine = engine
        self.core = NULL if engine is None else engine.core
        self.sender = sender
        self.sockets = NULL if sender is None else &sender.sockets
        self.writer = writer
        self.tap = NULL if writer is None else &writer.state
        self.number = number
        self.length = length
        self.copy_range = copy_range if 0 < copy_range <= MOST_REPLACED else MOST_REPLACED
        self.gso = gso
        self.fail_open = fail_open
        self.batch = min(max(batch, 1), <uint32_t> BATCH)
        self.busy_poll = busy_poll
        self.offload_mark, self.connection_mark = offload_mark, connection_mark
        self.most_buffer = most_buffer if most_buffer else MOST_BUFFER

    def __dealloc__(self):
        give_back(self)
        operations_free(&self.operations)

    def open(self, int socket=-1, dict standing=None):
        """Opens the queue. ``socket``: a netlink socket already bound to it, which this loop takes over and closes.

        ``standing``: the state of the former loop, which handed the queue over; None with a ``socket``: that loop
        is gone, and the packets it left without a verdict are dropped when our first packet arrives.
        """
        cdef int i
        if self.socket != NULL:
            raise RuntimeError("the queue is open already")
        # 66,624 is not a multiple of a page, so that the starts of the arena's slots fall into different cache sets.
        self.slot = (self.copy_range + MESSAGE_ROOM + 127) & ~<uint32_t> 63
        self.arena = <uint8_t *> malloc(<size_t> self.slot * BATCH)
        self.verdicts.data = <uint8_t *> malloc(SEND_ROOM)
        if self.arena == NULL or self.verdicts.data == NULL:
            give_back(self)
            raise MemoryError
        memset(self.messages, 0, sizeof(self.messages))
        for i in range(BATCH):
            self.vectors[i].iov_base = self.arena + <size_t> i * self.slot
            self.vectors[i].iov_len = self.slot
            self.messages[i].msg_hdr.msg_iov = &self.vectors[i]
            self.messages[i].msg_hdr.msg_iovlen = 1
        # Time is the wall clock at the start, continued by the monotonic clock: a wall clock that
        # is set would end every flow at once, or none for an hour.
        self.wall_offset = wall_ahead()
        self.stopped = self.failed = self.anew = self.leaving = 0
        self.core_now = 0
        self.older_unanswered = socket >= 0 and standing is None
        try:
            self.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
            if self.wake < 0:
                raise OSError(errno, os.strerror(errno))
            self.socket = open_socket(socket)
            self.fd = mnl_socket_get_fd(self.socket)
            self.size_buffers()
            if socket < 0:
                self.configure()
            else:
                self.set_fail_open(self.fail_open)
            if standing is not None:
                self.wall_offset, self.core_now = standing["wall_offset"], standing["core_now"]
                self.count = {name: standing["counters"].get(name, 0) for name in self.counters()}
        except BaseException:
            give_back(self)
            raise

    cdef int size_buffers(self) except -1:
        self.wanted_buffer = min(<uint64_t> self.length * PACKET_CHARGE, <uint64_t> MOST_BUFFER - 1)
        self.receive_buffer = widen_buffers(self.socket, min(self.wanted_buffer, self.most_buffer),
                                            &self.verdicts.size)
        self.verdicts.used = self.verdicts.count = 0
        self.verdicts.queue = <unsigned short> self.number
        self.most_replaced = min(self.verdicts.size - VERDICT_ROOM, <uint32_t> MOST_REPLACED)
        return 0

    cdef int configure(self) except -1:
        """Binds and configures the queue in one message, so that no packet meets a half-configured queue."""
        cdef uint8_t buffer[CONFIG_ROOM]
        cdef nlmsghdr *header = bind_message(buffer, self.number, self.copy_range, self.length, self.gso,
                                             self.fail_open)
        cdef int refused = EPROTO
        if mnl_socket_sendto(self.socket, header, header.nlmsg_len) < 0:
            raise OSError(errno, os.strerror(errno))
        while not self.received and not self.failed:
            self.receive(MSG_WAITFORONE)
        if self.failed:
            raise OSError(self.failed, os.strerror(self.failed))
        # Packets may arrive before the kernel's reply; they show that the queue is bound, and wait for `run`.
        if not self.read_batch(&refused):
            self.received = 0
            if refused:
                raise OSError(refused, os.strerror(refused))
        memset(&self.count, 0, sizeof(self.count))
        return 0

    def run(self):
        """Runs until ``stop``, without the GIL; then answers held packets. Raises ``OSError`` when the socket fails."""
        cdef int end = LOOP_SIGNAL
        if self.socket == NULL:
            raise RuntimeError("the queue is not open")
        # Python handles signals only in the main thread; in any other thread the loop never waits for the GIL.
        self.in_main_thread = threading.current_thread() is threading.main_thread()
        if self.core != NULL and self.core.started == 0:
            self.core.started = self.now()             # limits.startup begins now, even before the first packet
        try:
            while end == LOOP_SIGNAL:
                with nogil:
                    end = self.loop()
                PyErr_CheckSignals()
        finally:
            with nogil:
                if nm_load_flag(&self.leaving):
                    self.work()                    # answers packets that are received but not processed yet
                else:
                    self.finish()
        if self.failed:
            raise OSError(self.failed, os.strerror(self.failed))

    def set_marks(self, uint32_t connection_mark):
        """Sets the four first bits of packet marks that are to become QueuedPacket.connection; 0: no mark does."""
        self.connection_mark = connection_mark         # an aligned word, written atomically; read for each packet

    def set_fail_open(self, bint fail_open):
        """Sets whether the kernel accepts packets when the queue is full. Raises OSError."""
        cdef uint8_t buffer[CONFIG_ROOM]
        cdef nlmsghdr *header = fail_open_message(buffer, self.number, fail_open)
        if self.socket == NULL or mnl_socket_sendto(self.socket, header, header.nlmsg_len) < 0:
            raise OSError(errno, os.strerror(errno))
        self.fail_open = fail_open

    def stop(self):
        """Makes ``run`` return soon; may be called from any thread or a signal handler, before or during ``run``."""
        nm_store_flag(&self.stopped, 1)
        self.nudge()

    def leave(self):
        """Makes ``run`` return soon, held packets unanswered; another process continues with the socket."""
        nm_store_flag(&self.leaving, 1)
        self.stop()

    def come_back(self):
        """Allows ``run`` to be called again after ``leave``, when no other process has taken over."""
        self.stopped = self.leaving = 0

    def standing(self):
        """The loop's clock and counters, in the form ``open`` takes them."""
        return {"wall_offset": self.wall_offset, "core_now": self.core_now, "counters": self.count}

    def nudge(self, *, bint anew=False):
        """Wakes the loop for one turn even without packets, so that its counters show that it runs. From any thread.

        ``anew``: when next idle, the loop ends every flow, and takes flows seen after that as opened before a start.
        """
        cdef uint64_t one = 1
        if anew:
            nm_store_flag(&self.anew, 1)
        if self.wake >= 0:
            write(self.wake, &one, sizeof(one))

    def close(self):
        """Closes the queue: the kernel drops packets not read. Not while ``run`` runs; a second call does nothing."""
        give_back(self)

    def fileno(self):
        return self.fd

    @property
    def portid(self):
        return 0 if self.socket == NULL else mnl_socket_get_portid(self.socket)

    def counters(self):
        cdef Counters c = self.count
        cdef dict out = c
        out["held"] = c.packets - c.accepted - c.replaced - c.dropped
        out["emit_errors"] = 0 if self.sockets == NULL else self.sockets.errors
        return out

    cdef uint64_t now(self) noexcept nogil:
        cdef timespec monotonic
        clock_gettime(CLOCK_MONOTONIC, &monotonic)
        return nanoseconds(&monotonic) + self.wall_offset

    cdef int loop(self) noexcept nogil:
        cdef uint64_t look = self.now() + SIGNAL_CHECK
        cdef bint backlog = False
        while not nm_load_flag(&self.stopped):
            if not self.received:
                # After a batch of several packets more are likely: receive again before waiting.
                if not backlog and self.busy_poll:
                    self.spin()
                if not backlog and not self.received and not self.failed:
                    if self.wait() == EINTR and self.in_main_thread:
                        return LOOP_SIGNAL
                if not self.received:
                    self.receive(MSG_DONTWAIT)
            if self.failed:
                return LOOP_FAILED
            backlog = self.received > 1
            self.work()
            if self.in_main_thread and self.core_now > look:
                return LOOP_SIGNAL
        return LOOP_STOPPED

    cdef int wait(self) noexcept nogil:
        """Sleeps until a packet, a wake-up or the core's next deadline; 0, or EINTR where a signal came."""
        cdef pollfd fds[2]
        cdef timespec timeout
        cdef uint64_t deadline = <uint64_t> -1, now, left
        cdef int ready
        self.count.sleeps += 1
        if self.core != NULL:
            deadline = core_next_deadline(self.core)
        fds[0].fd = self.fd
        fds[1].fd = self.wake
        fds[0].events = fds[1].events = POLLIN
        if deadline == <uint64_t> -1:
            ready = ppoll(fds, 2, NULL, NULL)
        else:
            now = self.now()
            left = deadline - now if deadline > now else 0
            timeout.tv_sec = <long> (left // 1000000000)
            timeout.tv_nsec = <long> (left % 1000000000)
            ready = ppoll(fds, 2, &timeout, NULL)
        if ready > 0 and fds[1].revents:
            read(self.wake, &deadline, sizeof(deadline))   # written by `nudge`, or by `stop`, which also sets a flag
            if nm_load_flag(&self.anew):
                nm_store_flag(&self.anew, 0)
                self.finish()
                if self.core != NULL:
                    self.core.started, self.core.forgot = self.now(), 0
        return errno if ready < 0 else 0

    cdef void spin(self) noexcept nogil:
        """Polls for packets for ``busy_poll`` without sleeping: waking up costs more time than processing a packet."""
        cdef uint64_t end = self.now() + self.busy_poll
        while not self.received and not self.failed and not nm_load_flag(&self.stopped):
            self.receive(MSG_DONTWAIT)
            if not self.received and self.now() >= end:
                return

    cdef void receive(self, int flags) noexcept nogil:
        cdef int got = recvmmsg(self.fd, self.messages, self.batch, flags, NULL)
        if got >= 0:
            self.received = got
        elif errno == ENOBUFS:
            self.count.enobufs += 1
        elif errno != EAGAIN and errno != EINTR:
            self.count.receive_errors += 1
            self.failed = errno

    cdef uint32_t read_batch(self, int *answer) noexcept nogil:
        """Parses the received datagrams into ``packets``; returns the number of packets."""
        cdef Message message
        cdef uint8_t *at
        cdef uint32_t i, left, taken, packets = 0
        for i in range(self.received):
            at = <uint8_t *> self.vectors[i].iov_base
            left = self.messages[i].msg_len
            # The kernel puts one packet into a datagram; if there ever were a second, it would be processed too.
            while left:
                taken = message_parse(at, left, &message)
                at += taken
                left -= taken
                if message.kind == MESSAGE_PACKET and packets < BATCH:
                    self.packets[packets] = message.packet
                    self.marks[packets] = message.mark
                    if self.connection_mark and message.mark & CONNECTION_MARK_MASK == self.connection_mark:
                        self.packets[packets].connection = message.mark
                        self.packets[packets].id |= <uint64_t> UNMARK << 32
                        self.marks[packets] = 0
                    packets += 1
                elif message.kind == MESSAGE_ERROR:
                    answer[0] = message.error
                    self.count.verdict_errors += message.error != 0
                elif message.kind != MESSAGE_OTHER:
                    self.count.unreadable += 1
        return packets

    cdef void work(self) noexcept nogil:
        """Gives a batch of packets to the core and sends their verdicts."""
        cdef uint64_t now = self.now()
        cdef int ignored = 0
        cdef uint32_t i, packets = self.read_batch(&ignored) if self.received else 0
        cdef QueuedPacket *packet
        self.received = 0
        if packets and self.older_unanswered:
            # Packets that the queue's former reader read but did not answer have ids below our first packet's.
            self.older_unanswered = False
            verdict_put_older(&self.verdicts, <uint32_t> self.packets[0].id - 1)
        if packets:
            self.count.batches += 1
        if self.core != NULL:
            core_begin_batch(self.core, now)
            for i in range(min(packets, FORESIGHT)):
                core_prefetch_bucket(self.core, &self.packets[i])
        for i in range(packets):
            if i + 1 < packets:
                nm_prefetch(self.packets[i + 1].data)
            if self.core != NULL and i + FORESIGHT < packets:
                core_prefetch_bucket(self.core, &self.packets[i + FORESIGHT])
            if self.core != NULL and i + FORESIGHT // 2 < packets:
                core_prefetch_flow(self.core, &self.packets[i + FORESIGHT // 2])
            packet = &self.packets[i]
            self.mark = self.marks[i]
            self.count.packets += 1
            self.count.bytes += packet.length
            self.count.truncated += packet.captured < packet.length
            self.count.gso_packets += (packet.flags & PACKET_GSO) != 0
            self.expire_until(now)
            self.core_now = now
            if self.tap != NULL:
                tap_incoming(self.tap, packet, now)
            operations_clear(&self.operations)
            if self.core != NULL:
                core_process(self.core, packet, now, &self.operations)
                self.carry_out(now)
            else:
                self.accept(packet.id, now)
        self.expire_until(now)
        self.core_now = now
        self.send_verdicts()

    cdef void accept(self, uint64_t id, uint64_t now) noexcept nogil:
        """Accepts a packet unchanged, for a loop that has no core."""
        cdef Operation operation
        memset(&operation, 0, sizeof(operation))
        operation.kind = OP_ACCEPT
        operation.id = id
        self.apply(&operation, now)

    cdef void expire_until(self, uint64_t now) noexcept nogil:
        """Runs every timer of the core that is due by ``now``, each at its own time, as a replay of a capture will."""
        cdef uint64_t deadline
        if self.core == NULL:
            return
        deadline = core_next_deadline(self.core)
        while deadline <= now:
            self.core_now = max(deadline, self.core_now)
            self.count.expired += 1
            operations_clear(&self.operations)
            core_expire(self.core, self.core_now, &self.operations)
            self.carry_out(self.core_now)
            deadline = core_next_deadline(self.core)
            if deadline <= self.core_now:
                return                                 # the core's next deadline has not advanced: no endless loop

    cdef void carry_out(self, uint64_t now) noexcept nogil:
        cdef uint32_t i
        for i in range(self.operations.count):
            self.apply(&self.operations.items[i], now)

    cdef void apply(self, const Operation *operation, uint64_t now) noexcept nogil:
        cdef uint8_t kind = operation.kind
        cdef uint32_t mark = 0
        if kind == OP_REPLACE and operation.length > self.most_replaced:
            # A replacement too long for a verdict is dropped: the original packet must not pass in its place.
            self.count.verdict_errors += 1
            kind = OP_DROP
        if self.tap != NULL:
            tap_operation(self.tap, operation, kind, now)
        if kind == OP_ACCEPT:
            self.count.accepted += 1
            if operation.offloadable and self.offload_mark:
                self.count.settled += 1
                mark = self.mark | self.offload_mark
            self.answer(operation.id, NF_ACCEPT, NULL, 0, &mark if mark else NULL)
        elif kind == OP_REPLACE:
            self.count.replaced += 1
            self.answer(operation.id, NF_ACCEPT, operation.data, operation.length, NULL)
        elif kind == OP_DROP:
            self.count.dropped += 1
            self.answer(operation.id, NF_DROP, NULL, 0, NULL)
        elif kind == OP_EMIT:
            # The verdicts so far are sent first: a RST must not overtake the data it follows.
            self.send_verdicts()
            self.count.emitted += 1
            if self.sockets != NULL:
                raw_send(self.sockets, operation.data, operation.length)

    cdef void answer(self, uint64_t id, uint32_t verdict, const uint8_t *data, uint32_t length,
                     const uint32_t *mark) noexcept nogil:
        cdef uint32_t none = 0
        if mark == NULL and id >> 32 & UNMARK and verdict == NF_ACCEPT:
            mark = &none
        if verdict_put(&self.verdicts, <uint32_t> id, verdict, data, length, mark) == VERDICT_FULL:
            self.send_verdicts()
            verdict_put(&self.verdicts, <uint32_t> id, verdict, data, length, mark)

    cdef void send_verdicts(self) noexcept nogil:
        """Sends all verdicts, or none, as netlink does; while the kernel is short of memory it waits, however long."""
        cdef timespec pause
        pause.tv_sec = 0
        pause.tv_nsec = 100000
        while self.verdicts.used and not self.failed:
            if send(self.fd, self.verdicts.data, self.verdicts.used, 0) >= 0:
                break
            if errno == EAGAIN or errno == ENOBUFS or errno == ENOMEM:
                nanosleep(&pause, NULL)
                pause.tv_nsec = min(pause.tv_nsec * 2, 10000000)
            elif errno != EINTR:
                self.count.verdict_errors += self.verdicts.count
                self.failed = errno
            self.count.send_retries += 1
        self.verdicts.used = self.verdicts.count = 0

    cdef void finish(self) noexcept nogil:
        """Ends the core's flows and gives every held packet its verdict."""
        cdef bint more = self.core != NULL
        cdef int patience = LAST_WAITS
        while more:
            operations_clear(&self.operations)
            self.core_now = max(self.now(), self.core_now)
            more = core_finish(self.core, self.core_now, &self.operations, patience > 0)
            self.carry_out(self.core_now)
            self.send_verdicts()
            if more:
                # The reader of the records is given time; if nobody reads them, records are lost, and counted.
                nap(LAST_WAIT)
                patience -= 1
        self.send_verdicts()


cdef void give_back(QueueLoop self):
    if self.socket != NULL:
        mnl_socket_close(self.socket)
        self.socket = NULL
    if self.wake >= 0:
        close(self.wake)
    self.fd = self.wake = -1
    self.received = 0
    free(self.arena)
    free(self.verdicts.data)
    self.arena = NULL
    self.verdicts.data = NULL
