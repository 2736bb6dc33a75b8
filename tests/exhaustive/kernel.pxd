# A server's kernel, and the application on it: kernel.h.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "kernel.h" nogil:
    enum: FLAG_FIN, FLAG_SYN, FLAG_RST, FLAG_PSH, FLAG_ACK
    enum: OPTION_NONE, OPTION_MD5, OPTION_AO
    enum: SEGMENT_PAYLOAD, KERNEL_LISTEN, KERNEL_SYN_RECV, KERNEL_ESTABLISHED, KERNEL_CLOSE_WAIT, KERNEL_FIN_WAIT2
    enum: ISN_FRESH, ISN_CLOCK, ISN_COOKIE, ISN_MODELS
    enum: COOKIE_ROUND
    const char *APPLICATION_SECRET
    struct application:
        uint16_t said
        uint16_t messages
        uint8_t mode
        uint8_t fault
        uint8_t out[1024]
    struct segment:
        uint32_t seq
        uint32_t ack
        uint32_t tsval
        uint16_t window
        uint16_t length
        uint8_t flags
        uint8_t option
        uint8_t timestamps
        uint8_t to_server
        uint8_t payload[1400]
    struct kernel:
        uint64_t now
        uint64_t since
        uint64_t issued
        uint64_t connections
        uint32_t irs
        uint32_t rcv_nxt
        uint32_t iss
        uint32_t snd_una
        uint32_t snd_nxt
        uint32_t snd_wnd
        uint32_t ts_recent
        uint32_t last_rcv_nxt
        uint32_t early_seq
        uint16_t early_length
        uint8_t early[64]
        uint8_t state
        uint8_t model
        uint8_t timestamps
        uint8_t fin_sent
        uint8_t count
        application application
        segment out[8]
    void kernel_open(kernel *server, uint8_t model, uint8_t denies_ehlo) noexcept
    void kernel_receive(kernel *server, const segment *received) noexcept
    void kernel_hang_up(kernel *server) noexcept
    void kernel_abort(kernel *server) noexcept
    void kernel_repeat(kernel *server) noexcept
    void kernel_wait(kernel *server, uint64_t nanoseconds) noexcept
    int kernel_outstanding(const kernel *server) noexcept
    int kernel_makes_cookies(const kernel *server) noexcept
    int kernel_cookie_valid(const kernel *server, uint32_t isn, uint32_t cookie) noexcept
