/* A lossy link: two interfaces wired together, frames lost, repeated and overtaken on the way.
 *
 *   link LEFT RIGHT SEED LATER LOSS TWICE LATE [LOSS TWICE LATE]
 *
 * Probabilities for each frame, first to the right, then to the left (the same unless given).
 * A frame that is LATE comes up to LATER microseconds after its time, behind others; the second
 * copy of one that goes TWICE is late, too. Prints "ready", carries frames until SIGTERM or
 * SIGINT, then prints what it did as JSON.
 *
 * Promises: the n-th TCP frame of a direction meets the same fate in every run of one SEED; what
 * it loses, repeats or delays, it counts, and so what it cannot carry. Only TCP over IPv4 or IPv6
 * meets a fate: address resolution passes, for its time-outs are not what is looked at. One frame
 * is one segment of the wire: a super-packet, or one whose checksum somebody was still to fill
 * in, ends it with an error, for losing it would not be honest loss. Switch offloads off beside
 * it. It changes no octet.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

enum {
    FRAME = 2048,        /* octets of a ring's slot */
    FRAMES = 8192,
    BLOCK = 1 << 16,
    BATCH = 64,          /* frames sent in one call */
    LONGEST = 1518,      /* an Ethernet frame at an MTU of 1500, a VLAN tag with it */
    MOST_LATE = 4096,    /* frames that wait at once, a direction */
    LONGEST_WAIT = 100000000,        /* nanoseconds */
};

struct late {
    uint64_t at;         /* when it is sent, in nanoseconds */
    uint32_t length;
    uint8_t octets[LONGEST];
};

struct way {
    const char *name;
    int from, to;        /* sockets */
    uint8_t *ring;
    uint32_t next;
    uint64_t random;
    uint64_t loss, twice, late;      /* of 2^64 */
    uint64_t frames, octets, lost, doubled, delayed, refused, overrun;
    struct late **waiting;           /* a heap, the first to leave on top */
    uint32_t waits;
};

static volatile sig_atomic_t ended;
static uint64_t later;

static void end(int signal) { (void)signal; ended = 1; }

static void fail(const char *what)
{
    fprintf(stderr, "link: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t chance(struct way *way)      /* splitmix64 */
{
    uint64_t z = way->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t probability(const char *text)
{
    char *stop;
    double p = strtod(text, &stop);
    if (*stop || !(p >= 0 && p <= 1)) {
        fprintf(stderr, "link: %s is no probability\n", text);
        exit(2);
    }
    return p == 1 ? UINT64_MAX : (uint64_t)(p * 18446744073709551616.0);
}

static int open_side(const char *interface)
{
    int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)), one = 1, version = TPACKET_V2;
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    struct tpacket_req ring = {BLOCK, FRAMES / (BLOCK / FRAME), FRAME, FRAMES};
    if (fd < 0)
        fail("socket");
    at.sll_ifindex = (int)if_nametoindex(interface);
    if (!at.sll_ifindex)
        fail(interface);
    if (setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version)
        || setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one)
        || setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one)
        || setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring)
        || bind(fd, (struct sockaddr *)&at, sizeof at))
        fail(interface);
    return fd;
}

static int is_tcp(const uint8_t *frame, uint32_t length)
{
    if (length < 54)
        return 0;
    uint16_t type = (uint16_t)(frame[12] << 8 | frame[13]);
    return (type == ETH_P_IP && frame[23] == IPPROTO_TCP) || (type == ETH_P_IPV6 && frame[20] == IPPROTO_TCP);
}

static void put_off(struct way *way, const uint8_t *frame, uint32_t length, uint64_t at)
{
    struct late *late = malloc(sizeof *late);
    uint32_t place = way->waits++;
    if (!late)
        fail("memory");
    late->at = at;
    late->length = length;
    memcpy(late->octets, frame, length);
    for (; place && way->waiting[(place - 1) / 2]->at > at; place = (place - 1) / 2)
        way->waiting[place] = way->waiting[(place - 1) / 2];
    way->waiting[place] = late;
}

static struct late *first_late(struct way *way)
{
    struct late *first = way->waiting[0], *last = way->waiting[--way->waits];
    uint32_t place = 0, child;
    while ((child = 2 * place + 1) < way->waits) {
        if (child + 1 < way->waits && way->waiting[child + 1]->at < way->waiting[child]->at)
            child++;
        if (way->waiting[child]->at >= last->at)
            break;
        way->waiting[place] = way->waiting[child];
        place = child;
    }
    if (way->waits)
        way->waiting[place] = last;
    return first;
}

static void send_all(struct way *way, struct mmsghdr *messages, unsigned count)
{
    unsigned done = 0;
    while (done < count) {
        int sent = sendmmsg(way->to, messages + done, count - done, 0);
        if (sent > 0) {
            done += (unsigned)sent;
        } else if (errno == ENOBUFS || errno == EAGAIN) {
            way->refused++;                  /* the far side's queue is full: a loss like on any link */
            done++;
        } else if (errno != EINTR) {
            fail(way->name);
        }
    }
}

/* Up to BATCH frames from the ring; whether there were any. */
static int carry(struct way *way, uint64_t time)
{
    struct mmsghdr messages[BATCH] = {0};
    struct iovec parts[BATCH];
    struct tpacket2_hdr *taken[BATCH];
    unsigned count = 0, sent = 0;
    while (count < BATCH) {
        struct tpacket2_hdr *slot = (void *)(way->ring + (size_t)way->next * FRAME);
        if (!(__atomic_load_n(&slot->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER))
            break;
        uint8_t *frame = (uint8_t *)slot + slot->tp_mac;
        uint32_t length = slot->tp_len;
        int keep = 1;
        if (length > LONGEST || (slot->tp_status & TP_STATUS_CSUMNOTREADY)) {
            fprintf(stderr, "link: %s: a frame of %u octets%s: switch offloads off beside the link\n", way->name, length,
                    slot->tp_status & TP_STATUS_CSUMNOTREADY ? " without a checksum" : "");
            exit(1);
        }
        taken[count++] = slot;
        way->next = (way->next + 1) % FRAMES;
        if (is_tcp(frame, length)) {
            /* Always five numbers: a frame's fate depends on nothing but its place. */
            uint64_t lost = chance(way), twice = chance(way), late = chance(way);
            uint64_t copy_at = time + chance(way) % (later * 1000 + 1), at = time + chance(way) % (later * 1000 + 1);
            int room = way->waits + 2 <= MOST_LATE;
            way->frames++;
            way->octets += length;
            if (lost < way->loss) {
                way->lost++;
                continue;
            }
            if (twice < way->twice && room) {
                way->doubled++;
                put_off(way, frame, length, copy_at);
            }
            if (late < way->late && room) {
                way->delayed++;
                put_off(way, frame, length, at);
                keep = 0;
            }
        }
        if (keep) {
            parts[sent] = (struct iovec){frame, length};
            messages[sent].msg_hdr.msg_iov = &parts[sent];
            messages[sent++].msg_hdr.msg_iovlen = 1;
        }
    }
    send_all(way, messages, sent);
    for (unsigned i = 0; i < count; i++)
        __atomic_store_n(&taken[i]->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    return count != 0;
}

static void carry_late(struct way *way, uint64_t time)
{
    while (way->waits && way->waiting[0]->at <= time) {
        struct late *late = first_late(way);
        struct iovec part = {late->octets, late->length};
        struct mmsghdr message = {.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}};
        send_all(way, &message, 1);
        free(late);
    }
}

static void tell(struct way *way, const char *after)
{
    struct tpacket_stats stats;
    socklen_t size = sizeof stats;
    if (getsockopt(way->from, SOL_PACKET, PACKET_STATISTICS, &stats, &size) == 0)
        way->overrun = stats.tp_drops;
    printf("\"%s\": {\"frames\": %lu, \"octets\": %lu, \"lost\": %lu, \"doubled\": %lu, \"delayed\": %lu, "
           "\"refused\": %lu, \"overrun\": %lu}%s", way->name, way->frames, way->octets, way->lost, way->doubled,
           way->delayed, way->refused, way->overrun, after);
}

int main(int argc, char **argv)
{
    struct way ways[2] = {{.name = "to_right"}, {.name = "to_left"}};
    if (argc != 8 && argc != 11) {
        fprintf(stderr, "usage: link LEFT RIGHT SEED LATER LOSS TWICE LATE [LOSS TWICE LATE]\n");
        return 2;
    }
    later = strtoull(argv[4], NULL, 10);
    for (int i = 0; i < 2; i++) {
        char **fates = argv + (i && argc == 11 ? 8 : 5);
        struct way *way = &ways[i];
        way->from = open_side(argv[1 + i]);
        way->ring = mmap(NULL, (size_t)FRAME * FRAMES, PROT_READ | PROT_WRITE, MAP_SHARED, way->from, 0);
        way->waiting = malloc(MOST_LATE * sizeof *way->waiting);
        if (way->ring == MAP_FAILED || !way->waiting)
            fail("ring");
        way->random = strtoull(argv[3], NULL, 10) * 2 + (unsigned)i;
        way->loss = probability(fates[0]);
        way->twice = probability(fates[1]);
        way->late = probability(fates[2]);
    }
    ways[0].to = ways[1].from;
    ways[1].to = ways[0].from;
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    puts("ready");
    fflush(stdout);
    while (!ended) {
        uint64_t time = now(), next = UINT64_MAX;
        int busy = 0;
        for (int i = 0; i < 2; i++) {
            carry_late(&ways[i], time);
            busy |= carry(&ways[i], time);
            if (ways[i].waits && ways[i].waiting[0]->at < next)
                next = ways[i].waiting[0]->at;
        }
        if (!busy) {
            struct pollfd sides[2] = {{ways[0].from, POLLIN, 0}, {ways[1].from, POLLIN, 0}};
            uint64_t wait = next > time ? next - time : 0;
            if (wait > LONGEST_WAIT)
                wait = LONGEST_WAIT;         /* a signal just before the call does not wake it */
            struct timespec most = {0, (long)wait};
            if (ppoll(sides, 2, &most, NULL) < 0 && errno != EINTR)
                fail("poll");
        }
    }
    printf("{");
    tell(&ways[0], ", ");
    tell(&ways[1], "}\n");
    return 0;
}
