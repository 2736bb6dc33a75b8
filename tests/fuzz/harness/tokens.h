/* What clients and servers say, as a script's octet names it. Data only.
 *
 * Appended to, never reordered: the corpus names tokens by number. */
#ifndef FUZZ_TOKENS_H
#define FUZZ_TOKENS_H

#include <stdint.h>

#define A10 "aaaaaaaaaa"
#define A50 A10 A10 A10 A10 A10
#define A250 A50 A50 A50 A50 A50
#define A1000 A250 A250 A250 A250

struct token {
    const char *data;
    uint32_t length;
};

#define TOKEN(text) {text, sizeof(text) - 1}

static const struct token client_tokens[] = {
    TOKEN("HELO a\r\n"), TOKEN("EHLO evil\r\n"), TOKEN("MAIL FROM:<a@b>\r\n"), TOKEN("RCPT TO:<c@d>\r\n"),
    TOKEN("DATA\r\n"), TOKEN("RSET\r\n"), TOKEN("NOOP\r\n"), TOKEN("QUIT\r\n"),
    TOKEN("STARTTLS\r\n"), TOKEN("AUTH PLAIN AGEAYg==\r\n"), TOKEN("AUTH LOGIN\r\n"), TOKEN("BDAT 5\r\n"),
    TOKEN("BDAT 10 LAST\r\n"), TOKEN("EXPN root\r\n"), TOKEN("VRFY root\r\n"), TOKEN("HELP\r\n"),
    TOKEN("ETRN x\r\n"), TOKEN("TURN\r\n"), TOKEN("XEXCH50 2 2\r\n"), TOKEN("text text\r\n"),
    TOKEN(".\r\n"), TOKEN("\r\n.\r\n"), TOKEN("\n.\n"), TOKEN("\r.\r"),
    TOKEN("\n.\r\n"), TOKEN("\r\n.\n"), TOKEN("\r\n."), TOKEN("\r\n"),
    TOKEN("\n"), TOKEN("\r"), TOKEN("."), TOKEN("..\r\n"),
    TOKEN(" "), TOKEN("\t"), TOKEN("\0"), TOKEN("EH"),
    TOKEN("LO x\r\n"), TOKEN("DA"), TOKEN("TA\r\n"), TOKEN("STAR"),
    TOKEN("helo a\r\n"), TOKEN("dAtA\r\n"), TOKEN("DATAX\r\n"), TOKEN("MAIL FROM:<|a>b@c<> SIZE=1\r\n"),
    TOKEN("mail from: a@b\r\n"), TOKEN("\x16\x03\x01"), TOKEN("dGVzdA==\r\n"), TOKEN("*\r\n"),
    TOKEN(A50), TOKEN(A250 A250), TOKEN(A1000), TOKEN(A1000 A1000 A50),
    TOKEN("\r\nEXPN x\r\nEHLO y\r\n"), TOKEN("EXPN"), TOKEN("Subject: x\r\n\r\n"), TOKEN("\r\r\n"),
    TOKEN("\n\r\n"), TOKEN("X"), TOKEN("BDAT 0 LAST\r\n"), TOKEN("BDAT 99999999999999999999\r\n"),
    TOKEN("MAIL FROM:<" A250 A50 A50 "@b>\r\n"), TOKEN("BDAT x\r\n"), TOKEN("NOOP " A250 A250 A50 "\r\n"), TOKEN("ATRN\r\n"),
};

static const struct token server_tokens[] = {
    TOKEN("220 mx ESMTP\r\n"), TOKEN("220-mx\r\n220 two lines\r\n"), TOKEN("250 ok\r\n"), TOKEN("250-mx\r\n"),
    TOKEN("250-SIZE 1000\r\n"), TOKEN("250-STARTTLS\r\n"), TOKEN("250-AUTH PLAIN LOGIN\r\n"), TOKEN("250-AUTH=LOGIN\r\n"),
    TOKEN("250-CHUNKING\r\n"), TOKEN("250 CHUNKING\r\n"), TOKEN("250 PIPELINING\r\n"), TOKEN("250 XWEIRD\r\n"),
    TOKEN("354 go\r\n"), TOKEN("334 VXNlcg==\r\n"), TOKEN("235 ok\r\n"), TOKEN("220 go\r\n"),
    TOKEN("221 bye\r\n"), TOKEN("421 closing\r\n"), TOKEN("500 what?\r\n"), TOKEN("503 bad\r\n"),
    TOKEN("554 no\r\n"), TOKEN("250\r\n"), TOKEN("250-\r\n"), TOKEN("\r\n"),
    TOKEN("\n"), TOKEN("\r"), TOKEN("2"), TOKEN("25"),
    TOKEN("35"), TOKEN("4 go\r\n"), TOKEN("not smtp\r\n"), TOKEN("220"),
    TOKEN("250-STAR"), TOKEN("TTLS\r\n"), TOKEN(A50), TOKEN(A1000),
    TOKEN("220 "), TOKEN("999 x\r\n"), TOKEN("250 a\n"), TOKEN("\0"),
    TOKEN("250-XXXXXXXA\r\n"), TOKEN("220 ********\r\n"), TOKEN("\x16\x03\x03"), TOKEN("354 a\r\n250 b\r\n"),
};

enum {
    CLIENT_TOKENS = sizeof(client_tokens) / sizeof(client_tokens[0]),
    SERVER_TOKENS = sizeof(server_tokens) / sizeof(server_tokens[0]),
};

#endif
