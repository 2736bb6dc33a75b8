/* Crowds of connections: raw ones whose every packet is chosen, and real ones that say nothing.
 *
 *   crowd raw INTERFACE GATEWAY-MAC SOURCE SOURCES SERVER FLOWS RATE TRICK OCTETS
 *   crowd hold SERVER PORT CONNECTIONS
 *   crowd serve ADDRESS PORT
 *
 * raw: FLOWS connections from SOURCES addresses (SOURCE and those behind it), RATE SYNs a second. The
 * handshake's ACK is of the kind TRICK says: plain, md5 (RFC 2385, which a host without a key drops), old (a
 * timestamp 2^30 back, which fails PAWS), option (an IPv6 destination option the server must discard
 * for, RFC 8200 4.2). Then OCTETS octets of NOOP commands in segments of 1,200 that die behind the gateway (TTL 5).
 * What the server says is acknowledged. Prints how many were answered.
 * hold: real connections from one address, each greeted, until SIGTERM. serve: a server that greets and takes nothing
 * more. Both print "ready".
 *
 * Promises: checksums are right; nothing is sent faster than RATE. No kernel must own SOURCE.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SYN = 2, RST = 4, PSH = 8, ACK = 16, FIRST_PORT = 1024, PORTS = 64000, ISN = 1000000, CLOCK = 0x50000000 };
enum trick { PLAIN, MD5, OLD, OPTION };

static void die(const char *what) { perror(what); exit(1); }

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int family, wire;
static unsigned char source[16], server[16], header[14];
static size_t address_length;
static long flows, sources, octets;
static enum trick trick;

static uint32_t sum(const unsigned char *data, size_t length, uint32_t total)
{
    for (size_t i = 0; i + 1 < length; i += 2)
        total += (uint32_t)data[i] << 8 | data[i + 1];
    if (length & 1)
        total += (uint32_t)data[length - 1] << 8;
    return total;
}

static uint16_t folded(uint32_t total)
{
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return (uint16_t)~total;
}

static void put16(unsigned char *at, uint16_t value) { at[0] = value >> 8; at[1] = value & 0xff; }
static void put32(unsigned char *at, uint32_t value) { put16(at, value >> 16); put16(at + 2, value & 0xffff); }
static uint32_t get32(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* The address of the source'th source: SOURCE counted up in its last four octets. */
static void address_of(long number, unsigned char *out)
{
    memcpy(out, source, address_length);
    put32(out + address_length - 4, get32(source + address_length - 4) + (uint32_t)number);
}

static void send_segment(long flow, int flags, uint32_t seq, uint32_t ack, const unsigned char *options, size_t more,
                         const unsigned char *payload, size_t length, int ttl, int refused)
{
    unsigned char frame[2048] = {0}, from[16];
    unsigned char *ip = frame + 14, *tcp;
    size_t extra = refused ? 8 : 0, segment = 20 + more + length;

    memcpy(frame, header, 14);
    address_of(flow % sources, from);
    if (family == AF_INET) {
        put16(frame + 12, ETH_P_IP);
        ip[0] = 0x45;
        put16(ip + 2, 20 + segment);
        ip[6] = 0x40;
        ip[8] = ttl;
        ip[9] = IPPROTO_TCP;
        memcpy(ip + 12, from, 4);
        memcpy(ip + 16, server, 4);
        put16(ip + 10, folded(sum(ip, 20, 0)));
        tcp = ip + 20;
    } else {
        put16(frame + 12, ETH_P_IPV6);
        ip[0] = 0x60;
        put16(ip + 4, extra + segment);
        ip[6] = extra ? IPPROTO_DSTOPTS : IPPROTO_TCP;
        ip[7] = ttl;
        memcpy(ip + 8, from, 16);
        memcpy(ip + 24, server, 16);
        if (extra) {                                  /* option 0x9e: discard, and tell */
            unsigned char unknown[8] = {IPPROTO_TCP, 0, 0x9e, 4, 0, 0, 0, 0};
            memcpy(ip + 40, unknown, 8);
        }
        tcp = ip + 40 + extra;
    }
    put16(tcp, FIRST_PORT + flow / sources % PORTS);
    put16(tcp + 2, 25);
    put32(tcp + 4, seq);
    put32(tcp + 8, ack);
    tcp[12] = (20 + more) << 2;
    tcp[13] = flags;
    put16(tcp + 14, 65535);
    if (more)
        memcpy(tcp + 20, options, more);
    if (length)
        memcpy(tcp + 20 + more, payload, length);
    uint32_t total = sum(from, address_length, sum(server, address_length, IPPROTO_TCP + segment));
    put16(tcp + 16, folded(sum(tcp, segment, total)));
    size_t all = (size_t)(tcp - frame) + segment;
    while (send(wire, frame, all, 0) < 0)
        if (errno != ENOBUFS && errno != EAGAIN)
            die("send");
        else
            usleep(200);
}

static size_t timestamp(unsigned char *out, uint32_t value, uint32_t echo)
{
    const unsigned char head[4] = {1, 1, 8, 10};
    memcpy(out, head, 4);
    put32(out + 4, value);
    put32(out + 8, echo);
    return 12;
}

static void begin(long flow)
{
    unsigned char options[16] = {2, 4, 5, 0xb4};
    size_t more = 4;
    if (trick == OLD)
        more += timestamp(options + 4, CLOCK, 0);
    send_segment(flow, SYN, ISN, 0, options, more, NULL, 0, 64, 0);
}

/* The ACK of the server's SYN, of the kind asked for, and what is said behind it. */
static void answer(long flow, uint32_t next, uint32_t echo)
{
    static unsigned char line[1200];
    unsigned char options[20] = {0};
    size_t more = 0;
    if (trick == MD5) {
        options[0] = 19;
        options[1] = 18;
        options[18] = options[19] = 1;
        more = 20;
    } else if (trick == OLD)
        more = timestamp(options, CLOCK - (1u << 30), echo);
    send_segment(flow, ACK, ISN + 1, next, options, more, NULL, 0, 64, trick == OPTION);
    if (!line[0])
        for (size_t i = 0; i < sizeof line; i++)
            line[i] = "NOOP\r\n"[i % 6];
    for (long at = 0; at < octets; at += (long)sizeof line) {
        size_t length = octets - at < (long)sizeof line ? (size_t)(octets - at) : sizeof line;
        send_segment(flow, PSH | ACK, ISN + 1 + at, next, NULL, 0, line, length, 5, 0);
    }
}

/* Which flow a packet for this address and port belongs to; -1: none. */
static long flow_of(const unsigned char *to, uint16_t port)
{
    if (memcmp(to, source, address_length - 4))
        return -1;
    long number = (long)(get32(to + address_length - 4) - get32(source + address_length - 4));
    long flow = (port - FIRST_PORT) * sources + number;
    return number < 0 || number >= sources || port < FIRST_PORT || flow >= flows ? -1 : flow;
}

static char *seen;

static long take(void)
{
    unsigned char frame[2048];
    long answered = 0;
    ssize_t length;
    while ((length = recv(wire, frame, sizeof frame, MSG_DONTWAIT)) > 0) {
        const unsigned char *ip = frame + 14, *tcp;
        int kind = frame[12] << 8 | frame[13];
        if (kind != (family == AF_INET ? ETH_P_IP : ETH_P_IPV6) || length < 54 || length == sizeof frame)
            continue;
        size_t ends = family == AF_INET ? 20 : 40;
        if (ip[family == AF_INET ? 9 : 6] != IPPROTO_TCP)
            continue;
        tcp = ip + ends;
        if ((tcp[0] << 8 | tcp[1]) != 25)
            continue;
        long flow = flow_of(ip + ends - address_length, tcp[2] << 8 | tcp[3]);
        if (flow < 0)
            continue;
        uint32_t seq = get32(tcp + 4);
        size_t offset = (tcp[12] >> 4) * 4;
        size_t whole = family == AF_INET ? (size_t)(ip[2] << 8 | ip[3]) : 40 + (size_t)(ip[4] << 8 | ip[5]);
        size_t payload = whole - ends - offset;
        if ((tcp[13] & (SYN | ACK)) == (SYN | ACK)) {
            uint32_t echo = 0;
            for (size_t i = 20; i + 10 <= offset; i += tcp[i] == 1 ? 1 : tcp[i + 1] ? tcp[i + 1] : 40)
                if (tcp[i] == 8)
                    echo = get32(tcp + i + 2);
            answered += !seen[flow];
            seen[flow] = 1;
            answer(flow, seq + 1, echo);
        } else if (payload)
            send_segment(flow, ACK, ISN + 1 + octets, seq + payload, NULL, 0, NULL, 0, 64, 0);
    }
    return answered;
}

static void parse(const char *text, unsigned char *out)
{
    family = strchr(text, ':') ? AF_INET6 : AF_INET;
    address_length = family == AF_INET ? 4 : 16;
    if (inet_pton(family, text, out) != 1)
        die(text);
}

static int raw(char **arguments)
{
    static const char *tricks[] = {"plain", "md5", "old", "option"};
    struct sockaddr_ll where = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    socklen_t length = sizeof where;
    int size = 64 << 20;
    long rate = atol(arguments[6]), answered = 0;

    parse(arguments[2], source);
    parse(arguments[4], server);
    sources = atol(arguments[3]);
    flows = atol(arguments[5]);
    octets = atol(arguments[8]);
    for (int i = 0; i < 4; i++)
        if (!strcmp(arguments[7], tricks[i]))
            trick = (enum trick)i;
    seen = calloc((size_t)flows, 1);
    wire = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    where.sll_ifindex = (int)if_nametoindex(arguments[0]);
    if (wire < 0 || !seen || bind(wire, (struct sockaddr *)&where, sizeof where) < 0)
        die("raw socket");
    setsockopt(wire, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    getsockname(wire, (struct sockaddr *)&where, &length);
    for (int i = 0; i < 6; i++)
        header[i] = (unsigned char)strtol(arguments[1] + 3 * i, NULL, 16);
    memcpy(header + 6, where.sll_addr, 6);
    uint64_t began = now();
    for (long flow = 0; flow < flows; flow++) {
        while (now() - began < (uint64_t)flow * 1000000000 / (uint64_t)rate) {
            struct pollfd in = {.fd = wire, .events = POLLIN};
            poll(&in, 1, 1);
            answered += take();
        }
        begin(flow);
        if (flow % 8 == 7)
            answered += take();
    }
    for (uint64_t end = now() + 500000000ull; now() < end;) {
        struct pollfd in = {.fd = wire, .events = POLLIN};
        poll(&in, 1, 50);
        answered += take();
    }
    for (long flow = 0; flow < flows; flow++)            /* what was lost, once more */
        if (!seen[flow]) {
            begin(flow);
            usleep(30);
            answered += take();
        }
    usleep(400000);
    printf("%ld\n", answered + take());
    return 0;
}

static int stopped;
static void stop(int number) { stopped = number; }

static void room(void)
{
    struct rlimit files = {1 << 19, 1 << 19};
    if (setrlimit(RLIMIT_NOFILE, &files) < 0)
        getrlimit(RLIMIT_NOFILE, &files), files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
    struct sigaction end = {.sa_handler = stop};       /* not restarted: what waits is to come back */
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGINT, &end, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static struct addrinfo *named(const char *address, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *found;
    if (getaddrinfo(address, port, &hints, &found))
        die(address);
    return found;
}

static int hold(char **arguments)
{
    long count = atol(arguments[2]), greeted = 0, refused = 0;
    struct addrinfo *there = named(arguments[0], arguments[1]);
    room();
    for (long i = 0; i < count && refused < 3 && !stopped; i++) {   /* three in a row: it is full */
        char greeting[512];
        struct timeval patience = {.tv_sec = 1};
        int one = socket(there->ai_family, SOCK_STREAM, 0);
        if (one < 0)
            die("socket");
        setsockopt(one, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(one, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        if (connect(one, there->ai_addr, there->ai_addrlen) < 0 || recv(one, greeting, sizeof greeting, 0) <= 0)
            close(one), refused++;
        else
            greeted++, refused = 0;
    }
    printf("ready %ld\n", greeted);
    fflush(stdout);
    while (!stopped)
        pause();
    return 0;
}

static int serve(char **arguments)
{
    static const char greeting[] = "220 mail.example.com ESMTP\r\n";
    struct addrinfo *here = named(arguments[0], arguments[1]);
    int on = 1, listener = socket(here->ai_family, SOCK_STREAM, 0);
    room();
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (listener < 0 || bind(listener, here->ai_addr, here->ai_addrlen) < 0 || listen(listener, 1 << 20) < 0)
        die("listen");
    puts("ready");
    fflush(stdout);
    while (!stopped) {
        int one = accept(listener, NULL, NULL);
        if (one >= 0)
            if (write(one, greeting, sizeof greeting - 1) < 0)
                close(one);
    }
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 11 && !strcmp(arguments[1], "raw"))
        return raw(arguments + 2);
    if (count == 5 && !strcmp(arguments[1], "hold"))
        return hold(arguments + 2);
    if (count == 4 && !strcmp(arguments[1], "serve"))
        return serve(arguments + 2);
    fputs("crowd raw|hold|serve ..., see crowd.c\n", stderr);
    return 2;
}
