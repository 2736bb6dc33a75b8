/* The least an NFQUEUE loop can do: every packet accepted as it came, with all that makes that cheap.
 *
 *     cc -O2 -o accept_all accept_all.c && ./accept_all QUEUE
 *
 * Super-packets (GSO), 64 datagrams a receive, one batch verdict for all of them, whole packets copied. What
 * inspects is measured against this. Ends by SIGTERM. Plain netlink (linux/netfilter/nfnetlink_queue.h).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 64, SLOT = 66 * 1024, LENGTH = 4096, COPY = 0xffff };

static char arena[BATCH][SLOT];
static char message[256];

static struct nlmsghdr *begin(int type, int flags, int queue)
{
    struct nlmsghdr *header = (struct nlmsghdr *) message;
    struct nfgenmsg *family = NLMSG_DATA(header);
    memset(message, 0, sizeof message);
    header->nlmsg_len = NLMSG_LENGTH(sizeof *family);
    header->nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | type;
    header->nlmsg_flags = NLM_F_REQUEST | flags;
    family->version = NFNETLINK_V0;
    family->res_id = htons(queue);
    return header;
}

static void put(struct nlmsghdr *header, int type, const void *data, size_t size)
{
    struct nlattr *attribute = (struct nlattr *) (message + NLMSG_ALIGN(header->nlmsg_len));
    attribute->nla_type = type;
    attribute->nla_len = NLA_HDRLEN + size;
    memcpy((char *) attribute + NLA_HDRLEN, data, size);
    header->nlmsg_len = NLMSG_ALIGN(header->nlmsg_len) + NLA_ALIGN(attribute->nla_len);
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* The number of the packet in a datagram, in network order. */
static uint32_t packet_id(const char *data, size_t size)
{
    size_t at = NLMSG_LENGTH(sizeof(struct nfgenmsg));
    while (at + NLA_HDRLEN < size) {
        const struct nlattr *attribute = (const struct nlattr *) (data + at);
        if ((attribute->nla_type & NLA_TYPE_MASK) == NFQA_PACKET_HDR)
            return ((const struct nfqnl_msg_packet_hdr *) ((const char *) attribute + NLA_HDRLEN))->packet_id;
        at += NLA_ALIGN(attribute->nla_len);
    }
    return 0;
}

int main(int count, char **words)
{
    int queue = count > 1 ? atoi(words[1]) : 0;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    int half = 0x3fffffff / 2, got = 0;
    struct sockaddr_nl self = { .nl_family = AF_NETLINK };
    struct nfqnl_msg_config_cmd command = { .command = NFQNL_CFG_CMD_BIND };
    struct nfqnl_msg_config_params params = { .copy_range = htonl(COPY), .copy_mode = NFQNL_COPY_PACKET };
    uint32_t length = htonl(LENGTH), flags = htonl(NFQA_CFG_F_GSO);
    struct mmsghdr datagrams[BATCH] = { 0 };
    struct iovec vectors[BATCH];
    struct nlmsghdr *header;

    if (fd < 0 || bind(fd, (struct sockaddr *) &self, sizeof self) < 0)
        die("netlink");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &half, sizeof half) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &half, sizeof half);
    header = begin(NFQNL_MSG_CONFIG, NLM_F_ACK, queue);
    put(header, NFQA_CFG_CMD, &command, sizeof command);
    put(header, NFQA_CFG_PARAMS, &params, sizeof params);
    put(header, NFQA_CFG_QUEUE_MAXLEN, &length, sizeof length);
    put(header, NFQA_CFG_FLAGS, &flags, sizeof flags);
    put(header, NFQA_CFG_MASK, &flags, sizeof flags);
    if (send(fd, message, header->nlmsg_len, 0) < 0 || recv(fd, arena[0], SLOT, 0) < 0)
        die("queue");
    if (((struct nlmsghdr *) arena[0])->nlmsg_type == NLMSG_ERROR
        && ((struct nlmsgerr *) NLMSG_DATA(arena[0]))->error) {
        fprintf(stderr, "queue %d: %s\n", queue, strerror(-((struct nlmsgerr *) NLMSG_DATA(arena[0]))->error));
        return 1;
    }
    for (int i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec) { arena[i], SLOT };
        datagrams[i].msg_hdr.msg_iov = &vectors[i];
        datagrams[i].msg_hdr.msg_iovlen = 1;
    }
    puts("ready");
    fflush(stdout);
    while ((got = recvmmsg(fd, datagrams, BATCH, MSG_WAITFORONE, NULL)) > 0) {
        struct nfqnl_msg_verdict_hdr verdict = {
            .verdict = htonl(NF_ACCEPT), .id = packet_id(arena[got - 1], datagrams[got - 1].msg_len) };
        header = begin(NFQNL_MSG_VERDICT_BATCH, 0, queue);
        put(header, NFQA_VERDICT_HDR, &verdict, sizeof verdict);
        if (send(fd, message, header->nlmsg_len, 0) < 0)
            die("verdict");
    }
    die("receive");
}
