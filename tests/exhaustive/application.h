/* The least SMTP server there is: it greets, answers commands, and reads a message until CRLF.CRLF.
 *
 * It knows which of the bytes it read as commands and which as text; a verb its policy denies,
 * read as a command, is what must never happen. It knows no packets. Nothing is allocated. */
#ifndef EXHAUSTIVE_APPLICATION_H
#define EXHAUSTIVE_APPLICATION_H

#include <stdint.h>
#include <string.h>

enum { APPLICATION_COMMANDS, APPLICATION_TEXT, APPLICATION_TLS, APPLICATION_GONE };

enum { APPLICATION_LINE = 16, APPLICATION_SAID = 1024 };

/* What a server says first, and what no policy here lets a client see of it. */
#define APPLICATION_GREETING "220 mail2 ESMTP ready\r\n"
#define APPLICATION_SECRET "ESMTP"

struct application {
    uint16_t said;                 /* bytes at `out` */
    uint16_t messages;             /* received */
    uint8_t mode;
    uint8_t length;                /* of the line so far, as much as it keeps */
    uint8_t after_cr;
    uint8_t dots;                  /* of CRLF.CRLF, how much has come; a message begins behind a CRLF */
    uint8_t denies_ehlo;           /* the policy does */
    uint8_t closes;                /* it has nothing more to say */
    uint8_t fault;                 /* it has read a denied verb as a command */
    uint8_t line[APPLICATION_LINE];
    uint8_t out[APPLICATION_SAID];
};

static inline void application_say(struct application *application, const char *text) {
    uint32_t size = (uint32_t)strlen(text);
    if (application->said + size > APPLICATION_SAID) {
        application->mode = APPLICATION_GONE;
        application->closes = 1;
        return;
    }
    memcpy(application->out + application->said, text, size);
    application->said = (uint16_t)(application->said + size);
}

static inline void application_open(struct application *application, uint8_t denies_ehlo) {
    memset(application, 0, offsetof(struct application, out));
    application->denies_ehlo = denies_ehlo;
    application_say(application, APPLICATION_GREETING);
}

static inline int application_is(const struct application *application, const char *verb) {
    uint32_t size = (uint32_t)strlen(verb);
    return application->length >= size && memcmp(application->line, verb, size) == 0 &&
           (application->length == size || application->line[size] == ' ');
}

static inline void application_command(struct application *application) {
    if (application_is(application, "EXPN") || (application->denies_ehlo && application_is(application, "EHLO")))
        application->fault = 1;
    if (application_is(application, "DATA")) {
        application->mode = APPLICATION_TEXT;
        application->dots = 2;
        application_say(application, "354 go\r\n");
    } else if (application_is(application, "EHLO")) {
        application_say(application, "250-mail2\r\n250 STARTTLS\r\n");
    } else if (application_is(application, "STARTTLS")) {
        application->mode = APPLICATION_TLS;
        application_say(application, "220 go\r\n");
    } else if (application_is(application, "QUIT")) {
        application->mode = APPLICATION_GONE;
        application->closes = 1;
        application_say(application, "221 bye\r\n");
    } else if (application_is(application, "HELO") || application_is(application, "MAIL") ||
               application_is(application, "RCPT") || application_is(application, "NOOP")) {
        application_say(application, "250 ok\r\n");
    } else {
        application_say(application, "500 what?\r\n");
    }
    application->length = 0;
}

/* The next byte its TCP gives it. */
static inline void application_read(struct application *application, uint8_t byte) {
    static const char end[] = "\r\n.\r\n";
    uint8_t after_cr = application->after_cr;
    application->after_cr = byte == '\r';
    if (application->mode == APPLICATION_TEXT) {
        if (byte == (uint8_t)end[application->dots])
            application->dots++;
        else
            application->dots = byte == '\r';
        if (application->dots == 5) {
            application->mode = APPLICATION_COMMANDS;
            application->messages++;
            application_say(application, "250 queued\r\n");
        }
    } else if (application->mode == APPLICATION_COMMANDS) {
        if (byte == '\n' && after_cr) {
            if (application->length && application->line[application->length - 1] == '\r')
                application->length--;
            application_command(application);
        } else if (application->length < APPLICATION_LINE) {
            application->line[application->length++] = byte;
        }
    }
}

/* It hangs up: a time-out, too many errors, a TLS handshake that is none. */
static inline void application_hang_up(struct application *application) {
    application_say(application, application->mode == APPLICATION_TLS ? "\x15\x03\x01" : "421 bye\r\n");
    application->mode = APPLICATION_GONE;
    application->closes = 1;
}

#endif
