# The netlink messages that bind and configure an NFQUEUE, written to a buffer of CONFIG_ROOM bytes.
from libc.stdint cimport uint32_t, uint8_t
from libc.string cimport memset

from nfmailguard.cext.drivers.system cimport (
    NFNETLINK_V0, NFNL_SUBSYS_QUEUE, NFQA_CFG_CMD, NFQA_CFG_FLAGS, NFQA_CFG_F_FAIL_OPEN, NFQA_CFG_F_GSO,
    NFQA_CFG_MASK, NFQA_CFG_PARAMS, NFQA_CFG_QUEUE_MAXLEN, NFQNL_CFG_CMD_BIND, NFQNL_COPY_PACKET, NFQNL_MSG_CONFIG,
    NLM_F_ACK, NLM_F_REQUEST, htonl, htons, mnl_attr_put, mnl_attr_put_u32, mnl_nlmsg_put_extra_header,
    mnl_nlmsg_put_header, nfgenmsg, nfqnl_msg_config_cmd, nfqnl_msg_config_params, nlmsghdr,
)

cdef enum:
    CONFIG_ROOM = 256

cdef inline nlmsghdr *config_message(uint8_t *buffer, uint32_t number, unsigned short flags) noexcept:
    cdef nlmsghdr *header = mnl_nlmsg_put_header(buffer)
    cdef nfgenmsg *family
    header.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG
    header.nlmsg_flags = NLM_F_REQUEST | flags
    family = <nfgenmsg *> mnl_nlmsg_put_extra_header(header, sizeof(nfgenmsg))
    family.version = NFNETLINK_V0
    family.res_id = htons(<unsigned short> number)
    return header

# Sets all flags in one pair of attributes, flags and mask: if there are two pairs the kernel reads the last.
cdef inline void put_flags(nlmsghdr *header, uint32_t flags, uint32_t which) noexcept:
    mnl_attr_put_u32(header, NFQA_CFG_FLAGS, htonl(flags))
    mnl_attr_put_u32(header, NFQA_CFG_MASK, htonl(which))

# The message that binds and configures a queue at once: no packet meets a half-configured one. The kernel replies.
cdef inline nlmsghdr *bind_message(uint8_t *buffer, uint32_t number, uint32_t copy_range, uint32_t length, bint gso,
                                   bint fail_open) noexcept:
    cdef nlmsghdr *header = config_message(buffer, number, NLM_F_ACK)
    cdef nfqnl_msg_config_cmd command
    cdef nfqnl_msg_config_params params
    memset(&command, 0, sizeof(command))
    command.command = NFQNL_CFG_CMD_BIND
    mnl_attr_put(header, NFQA_CFG_CMD, sizeof(command), &command)
    params.copy_range = htonl(copy_range)
    params.copy_mode = NFQNL_COPY_PACKET
    mnl_attr_put(header, NFQA_CFG_PARAMS, sizeof(params), &params)
    mnl_attr_put_u32(header, NFQA_CFG_QUEUE_MAXLEN, htonl(length))
    put_flags(header, (NFQA_CFG_F_GSO if gso else 0) | (NFQA_CFG_F_FAIL_OPEN if fail_open else 0),
              NFQA_CFG_F_GSO | NFQA_CFG_F_FAIL_OPEN)
    return header

# The message that sets fail-open on a bound queue; the kernel replies only where it refuses.
cdef inline nlmsghdr *fail_open_message(uint8_t *buffer, uint32_t number, bint fail_open) noexcept:
    cdef nlmsghdr *header = config_message(buffer, number, 0)
    put_flags(header, NFQA_CFG_F_FAIL_OPEN if fail_open else 0, NFQA_CFG_F_FAIL_OPEN)
    return header
