/* Words that announce secrets, by their first letter: each string has all words with that letter, a space after
 * each. */
#ifndef NM_WORDS_H
#define NM_WORDS_H

typedef const char *nm_words[26];

/* SASL mechanisms (IANA registry): words have to match as a whole. */
static const nm_words nm_mechanisms = {
    ['A' - 'A'] = "ANONYMOUS ",
    ['C' - 'A'] = "CRAM-MD5 ",
    ['D' - 'A'] = "DIGEST-MD5 ",
    ['E' - 'A'] = "EXTERNAL ",
    ['G' - 'A'] = "GSSAPI GSS-SPNEGO GS2-KRB5 GS2-KRB5-PLUS ",
    ['L' - 'A'] = "LOGIN ",
    ['N' - 'A'] = "NTLM ",
    ['O' - 'A'] = "OAUTHBEARER ",
    ['P' - 'A'] = "PLAIN ",
    ['S' - 'A'] = "SCRAM-SHA-1 SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-256-PLUS SCRAM-SHA-512 SCRAM-SHA-512-PLUS ",
    ['X' - 'A'] = "XOAUTH XOAUTH2 ",
};

/* Words after an unknown verb that announce secrets: of an AUTH that was masked upstream, or of IMAP (RFC 9051 6.2).
 * A word matches by its beginning. */
static const nm_words nm_behind_a_tag = {
    ['A' - 'A'] = "AUTHENTICATE ",
    ['C' - 'A'] = "CRAM- ",
    ['D' - 'A'] = "DIGEST- ",
    ['E' - 'A'] = "EXTERNAL ",
    ['G' - 'A'] = "GSSAPI GSS- GS2- ",
    ['L' - 'A'] = "LOGIN ",
    ['N' - 'A'] = "NTLM ",
    ['O' - 'A'] = "OAUTHBEARER ",
    ['P' - 'A'] = "PLAIN ",
    ['S' - 'A'] = "SCRAM- ",
    ['X' - 'A'] = "XOAUTH ",
};

/* Verbs of POP3 (RFC 1939), FTP and HTTP (RFC 9110 9.3) whose arguments, or next lines, may be secrets. A verb
 * matches by its beginning. */
static const nm_words nm_strangers = {
    ['A' - 'A'] = "APOP ACCT ",
    ['C' - 'A'] = "CONNECT COOKIE ",
    ['D' - 'A'] = "DELETE ",
    ['G' - 'A'] = "GET ",
    ['H' - 'A'] = "HEAD ",
    ['L' - 'A'] = "LOGIN ",
    ['O' - 'A'] = "OPTIONS ",
    ['P' - 'A'] = "PASS POST PUT PATCH PROPFIND ",
    ['S' - 'A'] = "SET-COOKIE ",
    ['T' - 'A'] = "TRACE ",
    ['U' - 'A'] = "USER ",
};

#endif
