/* An honest SMTP server with bad habits: it reads what a receiver put together and answers it.
 *
 * It says which commands it was made to read; one that the gateway's profile denies is a way
 * past the gateway. What servers are known to do differently are its habits. It knows neither
 * packets nor the gateway. Nothing is allocated. */
#ifndef FUZZ_SERVER_H
#define FUZZ_SERVER_H

#include <stdint.h>
#include <string.h>

enum {
    SERVER_TAKES_LF = 1,           /* LF alone ends a line */
    SERVER_TAKES_CR = 2,           /* CR alone does */
    SERVER_SKIPS_BLANKS = 4,       /* space and control octets before a verb are nothing */
    SERVER_MATCHES_PREFIX = 8,     /* four letters make a verb */
    SERVER_ANSWERS_BLANK = 16,     /* an empty line is a bad command; else it is nothing */
    SERVER_WANTS_RECIPIENT = 32,   /* DATA without RCPT is refused */
    SERVER_SHORT_END = 64,         /* a dot, any octet and LF end a text (Apache James before 3.7.5) */
    SERVER_FIRST_DOTS = 128,       /* so does a first line of dots (nodemailer's smtp-server before 3.21) */
};

enum { SERVER_COMMANDS, SERVER_TEXT, SERVER_CHUNK, SERVER_SECRET, SERVER_GONE };

enum { SERVER_LINE = 40, SERVER_OUT = 4096, SERVER_NAME = 24 };

/* Verbs in upper case that must never be read. */
struct server_denied {
    char names[64][SERVER_NAME];
    uint32_t count;
};

struct server {
    const struct server_denied *denied;
    uint64_t chunk;                /* octets of BDAT still to come */
    uint32_t length;               /* of the line so far, though it keeps only its beginning */
    uint32_t said;                 /* octets at `out` */
    uint8_t habits;
    uint8_t mode;
    uint8_t after_cr;
    uint8_t recipients;
    uint8_t first_line;            /* of a text */
    uint8_t lone_lf;               /* ended the line */
    uint8_t line[SERVER_LINE];
    uint8_t out[SERVER_OUT];       /* all it has ever said */
    char fault[SERVER_NAME + 1];   /* the denied verb it was made to read, or empty */
};

static inline void server_say(struct server *server, const char *text) {
    uint32_t size = (uint32_t)strlen(text);
    if (server->said + size > SERVER_OUT) {
        server->mode = SERVER_GONE;        /* it has had enough */
        return;
    }
    memcpy(server->out + server->said, text, size);
    server->said += size;
}

static inline void server_open(struct server *server, const struct server_denied *denied, uint8_t habits) {
    server->denied = denied;
    server->chunk = 0;
    server->length = server->said = 0;
    server->habits = habits;
    server->mode = SERVER_COMMANDS;
    server->after_cr = server->recipients = server->first_line = server->lone_lf = 0;
    server->fault[0] = 0;
    server_say(server, "220 mx.example ESMTP ready\r\n");
}

static inline int server_is(const char *word, const char *verb) { return strcmp(word, verb) == 0; }

static inline void server_obey(struct server *server, const char *word, const uint8_t *rest, uint32_t length) {
    uint32_t i;
    if (server_is(word, "EHLO")) {
        server_say(server, "250-mx.example\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n250 CHUNKING\r\n");
    } else if (server_is(word, "DATA")) {
        if (server->habits & SERVER_WANTS_RECIPIENT && !server->recipients) {
            server_say(server, "503 RCPT first\r\n");
            return;
        }
        server_say(server, "354 go\r\n");
        server->mode = SERVER_TEXT;
        server->first_line = 1;
    } else if (server_is(word, "STARTTLS")) {
        server_say(server, "220 go\r\n");
        server->mode = SERVER_GONE;
    } else if (server_is(word, "QUIT")) {
        server_say(server, "221 bye\r\n");
        server->mode = SERVER_GONE;
    } else if (server_is(word, "AUTH")) {
        server_say(server, "334 \r\n");
        server->mode = SERVER_SECRET;
    } else if (server_is(word, "BDAT")) {
        for (i = 0; i < length && rest[i] == ' '; i++)
            ;
        for (server->chunk = 0; i < length && rest[i] >= '0' && rest[i] <= '9'; i++)
            server->chunk = server->chunk * 10 + (uint32_t)(rest[i] - '0');
        if (server->chunk)
            server->mode = SERVER_CHUNK;
        else
            server_say(server, "250 ok\r\n");
    } else if (server_is(word, "RCPT")) {
        server->recipients = 1;
        server_say(server, "250 ok\r\n");
    } else if (server_is(word, "HELO") || server_is(word, "MAIL") || server_is(word, "NOOP")) {
        server_say(server, "250 ok\r\n");
    } else if (server_is(word, "RSET")) {
        server->recipients = 0;
        server_say(server, "250 ok\r\n");
    } else {
        server_say(server, "500 what?\r\n");
    }
}

static inline void server_command(struct server *server) {
    uint32_t have = server->length < SERVER_LINE ? server->length : SERVER_LINE, at = 0, end, size;
    char word[SERVER_NAME] = {0};
    if (server->habits & SERVER_SKIPS_BLANKS)
        while (at < have && (server->line[at] <= ' ' || server->line[at] == 127))
            at++;
    for (end = at, size = 0; end < have && size + 1 < SERVER_NAME; end++, size++) {
        uint8_t octet = server->line[end];
        if (octet >= 'a' && octet <= 'z')
            octet -= 32;
        if ((octet < 'A' || octet > 'Z') && octet != '-')
            break;
        word[size] = (char)octet;
    }
    if (at == have && server->length == have) {
        if (server->habits & SERVER_ANSWERS_BLANK)
            server_say(server, "500 what?\r\n");
        return;
    }
    for (uint32_t i = 0; i < server->denied->count; i++) {
        const char *name = server->denied->names[i];
        if (server_is(word, name) ||
            (server->habits & SERVER_MATCHES_PREFIX && size >= 4 && strncmp(word, name, 4) == 0)) {
            memcpy(server->fault, word, SERVER_NAME);
            return;
        }
    }
    if (server->habits & SERVER_MATCHES_PREFIX && size > 4 && strncmp(word, "STAR", 4))
        word[4] = 0;
    server_obey(server, word, server->line + end, have - end);
}

static inline int server_text_ends(struct server *server) {
    uint32_t dots = 0;
    while (dots < server->length && dots < SERVER_LINE && server->line[dots] == '.')
        dots++;
    return (server->length == 1 && dots == 1) ||
           (server->habits & SERVER_SHORT_END && server->lone_lf && server->length == 2 && dots) ||
           (server->habits & SERVER_FIRST_DOTS && server->first_line && dots && dots == server->length);
}

static inline void server_line(struct server *server) {
    if (server->mode == SERVER_TEXT) {
        int ends = server_text_ends(server);
        server->first_line = 0;
        if (ends) {
            server->mode = SERVER_COMMANDS;
            server->recipients = 0;
            server_say(server, "250 queued\r\n");
        }
    } else if (server->mode == SERVER_SECRET) {
        server->mode = SERVER_COMMANDS;
        server_say(server, "235 ok\r\n");
    } else {
        server_command(server);
    }
    server->length = 0;
}

static inline void server_add(struct server *server, uint8_t octet) {
    if (server->length < SERVER_LINE)
        server->line[server->length] = octet;
    server->length++;
}

/* The next octet its TCP gives it. */
static inline void server_read(struct server *server, uint8_t octet) {
    uint8_t after_cr = server->after_cr;
    if (server->mode == SERVER_GONE || server->fault[0])
        return;
    if (server->mode == SERVER_CHUNK) {
        if (--server->chunk == 0) {
            server->mode = SERVER_COMMANDS;
            server_say(server, "250 ok\r\n");
        }
        return;
    }
    server->after_cr = octet == '\r';
    if (octet == '\n' && after_cr) {
        server->lone_lf = 0;
        if (!(server->habits & SERVER_TAKES_CR))
            server_line(server);
        return;
    }
    if (after_cr && !(server->habits & SERVER_TAKES_CR))
        server_add(server, '\r');
    server->lone_lf = octet == '\n';
    if ((octet == '\n' && server->habits & (SERVER_TAKES_LF | SERVER_SHORT_END)) || (octet == '\r' && server->habits & SERVER_TAKES_CR))
        server_line(server);
    else if (octet != '\r')
        server_add(server, octet);
}

#endif
