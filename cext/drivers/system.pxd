# Declarations of the kernel's netlink and NFQUEUE headers, libmnl and socket calls, for the live drivers.
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t, uint8_t
from posix.time cimport nanosleep, timespec

cdef extern from "<sys/socket.h>" nogil:
    cdef struct sockaddr:
        pass
    cdef struct iovec:
        void *iov_base
        size_t iov_len
    cdef struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    enum:
        AF_INET
        AF_INET6
        MSG_DONTWAIT
        MSG_NOSIGNAL
        MSG_WAITFORONE
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_RCVBUF
        SO_RCVBUFFORCE
        SO_SNDBUF
        SO_SNDBUFFORCE
    int recvmmsg(int fd, mmsghdr *messages, unsigned int size, int flags, timespec *timeout)
    ssize_t send(int fd, const void *data, size_t size, int flags)
    ssize_t sendto(int fd, const void *data, size_t size, int flags, const sockaddr *to, unsigned int to_size)
    int setsockopt(int fd, int level, int name, const void *value, unsigned int size)
    int getsockopt(int fd, int level, int name, void *value, unsigned int *size)

cdef extern from "<netinet/in.h>" nogil:
    cdef struct in_addr:
        pass
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        unsigned short sin_family
        in_addr sin_addr
    cdef struct sockaddr_in6:
        unsigned short sin6_family
        in6_addr sin6_addr

cdef extern from "<arpa/inet.h>" nogil:
    uint32_t htonl(uint32_t v)
    uint16_t htons(uint16_t v)

cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK
    int eventfd(unsigned int value, int flags)

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    enum:
        POLLIN
    int ppoll(pollfd *fds, unsigned long size, const timespec *timeout, const void *mask)

cdef extern from "atomic.h":
    int nm_load_flag "nm_load_acquire"(int *p) noexcept nogil
    void nm_store_flag "nm_store_release"(int *p, int v) noexcept nogil

cdef extern from "<linux/netlink.h>" nogil:
    cdef struct nlmsghdr:
        uint32_t nlmsg_len
        uint16_t nlmsg_type
        uint16_t nlmsg_flags
    cdef struct nlattr:
        uint16_t nla_len
        uint16_t nla_type
    enum:
        NETLINK_NETFILTER
        NETLINK_CAP_ACK
        NETLINK_NO_ENOBUFS
        NLMSG_ERROR
        NLM_F_REQUEST
        NLM_F_ACK
        NLA_TYPE_MASK

cdef extern from "<linux/netfilter.h>" nogil:
    enum:
        NF_DROP
        NF_ACCEPT

cdef extern from "<linux/netfilter/nfnetlink.h>" nogil:
    cdef struct nfgenmsg:
        uint8_t nfgen_family
        uint8_t version
        uint16_t res_id
    enum:
        NFNETLINK_V0
        NFNL_SUBSYS_QUEUE

cdef extern from "<linux/netfilter/nfnetlink_queue.h>" nogil:
    cdef struct nfqnl_msg_config_cmd:
        uint8_t command
        uint16_t pf
    cdef struct nfqnl_msg_config_params:
        uint32_t copy_range
        uint8_t copy_mode
    enum:
        NFQNL_MSG_PACKET
        NFQNL_MSG_VERDICT
        NFQNL_MSG_VERDICT_BATCH
        NFQNL_MSG_CONFIG
        NFQNL_CFG_CMD_BIND
        NFQNL_COPY_PACKET
        NFQA_MARK
        NFQA_PACKET_HDR
        NFQA_VERDICT_HDR
        NFQA_IFINDEX_INDEV
        NFQA_IFINDEX_OUTDEV
        NFQA_PAYLOAD
        NFQA_CAP_LEN
        NFQA_SKB_INFO
        NFQA_SKB_CSUMNOTREADY
        NFQA_SKB_GSO
        NFQA_CFG_CMD
        NFQA_CFG_PARAMS
        NFQA_CFG_QUEUE_MAXLEN
        NFQA_CFG_MASK
        NFQA_CFG_FLAGS
        NFQA_CFG_F_FAIL_OPEN
        NFQA_CFG_F_GSO

cdef extern from "<libmnl/libmnl.h>" nogil:
    cdef struct mnl_socket:
        pass
    mnl_socket *mnl_socket_open2(int bus, int flags)
    mnl_socket *mnl_socket_fdopen(int fd)
    int mnl_socket_bind(mnl_socket *socket, unsigned int groups, int32_t pid)
    int mnl_socket_close(mnl_socket *socket)
    int mnl_socket_get_fd(const mnl_socket *socket)
    unsigned int mnl_socket_get_portid(const mnl_socket *socket)
    int mnl_socket_setsockopt(const mnl_socket *socket, int name, void *value, unsigned int size)
    ssize_t mnl_socket_sendto(const mnl_socket *socket, const void *data, size_t size)
    nlmsghdr *mnl_nlmsg_put_header(void *data)
    void *mnl_nlmsg_put_extra_header(nlmsghdr *header, size_t size)
    void mnl_attr_put(nlmsghdr *header, uint16_t type, size_t size, const void *data)
    void mnl_attr_put_u32(nlmsghdr *header, uint16_t type, uint32_t value)

cdef inline uint32_t buffer_size(int fd, int force, int option, uint32_t want) noexcept nogil:
    """Sets a socket buffer to ``want`` bytes, with privilege or up to the system's limit; returns the bytes granted."""
    cdef int half = <int> ((want + 1) // 2)            # the kernel doubles the value it is given
    cdef int got = 0
    cdef unsigned int size = sizeof(int)
    if setsockopt(fd, SOL_SOCKET, force, &half, sizeof(int)) < 0:
        setsockopt(fd, SOL_SOCKET, option, &half, sizeof(int))
    getsockopt(fd, SOL_SOCKET, option, &got, &size)
    return <uint32_t> got

cdef inline void nap(long time) noexcept nogil:
    cdef timespec pause
    pause.tv_sec = 0
    pause.tv_nsec = time
    nanosleep(&pause, NULL)

cdef inline uint64_t nanoseconds(const timespec *t) noexcept nogil:
    return <uint64_t> t.tv_sec * 1000000000 + <uint64_t> t.tv_nsec
