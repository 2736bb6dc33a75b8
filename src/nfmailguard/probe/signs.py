"""Signs of a Mailguard in a line of a log, and whose log the line is from.

Promises: time linear in the line, whatever it contains. A sign is sure if nothing else writes such a line, otherwise
weak. Formats of Postfix, Exim, sendmail, OpenSMTPD, qmail and Exchange, of bounces, transcripts and firewalls' own log
lines. Does not know files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["KINDS", "MAIL", "Kind", "Sign", "Speaker", "signs", "speaker"]

#: Whose log it is: of a host that sends mail to a relay, of a mail server, or of a firewall.
CLIENT, SERVER, FIREWALL = "client", "server", "firewall"


@dataclass(frozen=True)
class Kind:
    """A kind of sign. ``sure``: only a Mailguard leaves it. ``advice``: what to check if it is not sure."""

    name: str
    meaning: str
    sure: bool = True
    advice: str = ""


KINDS = {
    kind.name: kind
    for kind in (
        Kind("postfix-workaround", "Postfix took the server's greeting for a PIX's"),
        Kind("starred-greeting", "a greeting of stars"),
        Kind("masked-command", "a server was sent X's for a command"),
        Kind("masked-keyword", "a line of an EHLO reply is masked"),
        Kind("firewall-log", "the firewall says itself what its mail inspection did"),
        Kind(
            "cut-end-of-data",
            "the end of a message was not answered",
            False,
            "First look at the path MTU and at ICMP that is filtered (large packets get lost). A PIX before 5.2(4) or"
            " 6.0(1) loses an end of data cut between packets (CSCds90792); it was seen again on ASA 8.4(1).",
        ),
        Kind(
            "tls-not-offered",
            "TLS was wanted and not offered",
            False,
            "The relay may have none, or STARTTLS is removed on the way: `nfmailguard probe RELAY` from here and from"
            " another network.",
        ),
        Kind(
            "auth-not-offered",
            "authentication was wanted and not offered",
            False,
            "Exchange servers authenticate by keywords (X-EXPS) that a Mailguard masks; so does a receive connector"
            " without Exchange server authentication.",
        ),
        Kind(
            "ehlo-not-understood",
            "a client's EHLO was not understood, and HELO was used",
            False,
            "A masked EHLO looks so, and a client that misspells it.",
        ),
        Kind(
            "upstream.banner_masked",
            "a greeting was masked before it reached the capture",
        ),
        Kind("upstream.command_masked", "a command was masked before it reached the capture"),
        Kind("upstream.keyword_masked", "a line of an EHLO reply was masked before it reached the capture"),
    )
}


@dataclass(frozen=True)
class Sign:
    """A sign in a line: its kind and its text. ``detail``: what is counted separately, such as a firewall's class."""

    kind: str
    shown: str
    detail: str = ""


@dataclass(frozen=True)
class Speaker:
    """Whose log the line is from, and the peer: an address, else a name; empty: not given.

    ``session``: the program's name for the connection, if only the first line of a connection names the peer.
    """

    role: str = ""
    peer: str = ""
    session: str = ""


#: Matches log lines that have to do with mail.
MAIL = re.compile(
    r"postfix|exim|sendmail|sm-mta|smtpd?\b|qmail|tcpserver|<= |=> |stat=|status=|ESMTP|MSExchange"
    r"|Microsoft Exchange|NextHopDomain|LastError|delivery \d{1,12}:|%(?:ASA|PIX|FWSM|FTD)-\S{1,20}-10800[2-8]",
    re.IGNORECASE,
)
_SHOWN = 80  # Most characters of the line shown after a sign.
# Words that consist of X's only. The look-arounds match whole words, so that a run of X's is searched only once.
_XS = r"(?<![\w@.%+-])(?P<xs>X{4,}|x{4,})(?![\w@.%+-])"
_REFUSED = (
    r"command (?:is |was )?(?:unrecogni[sz]ed|unknown|invalid|not (?:recogni[sz]ed|implemented|understood|supported))"
    r"|(?:unrecogni[sz]ed|unknown|invalid|unimplemented|unsupported|bad|illegal) (?:smtp )?(?:command|verb)"
    r"|command unrecogni[sz]ed|syntax error|non-SMTP command|protocol error"
)
#: Beginnings of lines that record a dialogue: transcripts, recordio, swaks, Exchange's protocol logs, Postfix with -v.
_DIALOGUE = (
    r"(?:^\s{0,4}(?:->|~>|C:|>>>)|(?:^|\s)(?:In:|C:|<--|>>>|-->)|(?:^|\s)\d{1,10} [<>]|,[<>],"
    r"|< [\w.-]{1,255}\[[0-9A-Fa-f.:]{3,45}\]:)"
)
_NOT_KNOWN = rf"(?:{_REFUSED}|unrecogni[sz]ed|not (?:recogni[sz]ed|implemented|understood))"
#: Phrases in logs that quote a refused or a last command, before or after the X's. Examples are given for each.
_COMMAND = (
    # Example: 500 5.5.1 Command unrecognized: "XXXX mx"; SMTP syntax error in "XXXX mx"
    re.compile(
        rf"(?:{_REFUSED})[ ,:]{{0,3}}(?:in |was |from \S{{1,200}}: )?(?:command )?[\"'`<(]?{_XS}", re.IGNORECASE
    ),
    # Example: command "XXXX" not recognized; "XXXX" unrecognized
    re.compile(
        rf"(?:command[ :=]{{1,2}}|error, |error: )?[\"'`<]{_XS}[^\"'`<>]{{0,300}}[\"'`>]? ?{_NOT_KNOWN}", re.IGNORECASE
    ),
    # Exim, example: rejected "XXXX TO:<...>"; (last command was "XXXX ...")
    re.compile(rf"(?:rejected|last command was|command=|input=) ?\"{_XS}[ \"\\]"),
    # Postfix, example: pipelining after XXXX from; reject: XXXX from
    re.compile(rf"(?:pipelining after|reject:|too many errors after) {_XS} from "),
)
_COMMAND_LINE = re.compile(rf"{_DIALOGUE} {{0,4}}\"?(?P<xs>X{{4,}})(?: [!-~]{{1,255}})?(?=[\s\",]|$)")
_STARS = re.compile(r"[*20 ]{4,}")
_CODE = re.compile(r"(?<![\w.-])220(?=[ *])")
_CLOSES = re.compile(r"(?:[\"'`)>\]]|\\r|\\n|[\r,])[^*]*")
_KEYWORD = re.compile(r"(?<![\w.-])250[- ](?P<xs>X{2,}[A-W])(?=[\s\"'`,)\\]|$)")
_WORKAROUND = re.compile(r"enabling PIX (?:<CRLF>\.<CRLF>|workarounds)")
_FOR = re.compile(r" for \S+")
_OWN_WORDS = re.compile(
    r"%(?:ASA|PIX|FWSM|FTD)-(?:[a-z]{1,20}-)?\d-(10800[2-8]|507003)\b|\bESMTP (?:Classification|Parameter):"
)
_MATCHED = re.compile(r"matched (?:match )?Class ?\d{1,3}: [^;,\r\n]{1,80}")
_SMTP_PORT = re.compile(r"/25\b")
_END = re.compile(
    r"(?:timed out|timeout|lost connection|Connection timed out|read error|connection[ _]died)[^\n]{0,200}?"
    r"(?:while sending (?:end of data|message body)|after (?:sending data block|end of data)|Possible.duplicate)",
    re.IGNORECASE,
)
_NO_TLS = re.compile(
    r"TLS is required, but was not offered|a TLS session is required, but the server did not offer TLS"
    r"|TLS required but not (?:supported|offered)|Must issue a STARTTLS command first"
    r"|server did not advertise STARTTLS|STARTTLS (?:is )?not (?:offered|advertised)",
    re.IGNORECASE,
)
_NO_AUTH = re.compile(r"Cannot achieve Exchange Server authentication", re.IGNORECASE)
_COUNTS = re.compile(r"disconnect from \S{1,300}(?P<counts>(?: [a-z]{1,12}=\d{1,6}(?:/\d{1,6})?)+)")


def _command(text: str) -> Sign | None:
    if "xxxx" not in text.lower():
        return None
    for form in _COMMAND:
        found = form.search(text)
        if found:
            return Sign("masked-command", text[found.start() : found.end() + _SHOWN])
    found = _COMMAND_LINE.search(text)
    return Sign("masked-command", text[found.start() : found.end() + _SHOWN].strip(" ,")) if found else None


def _starred(text: str) -> Sign | None:
    """A 220 followed only by stars, 2, 0 and spaces up to the end of the line, or of a quotation."""
    for run in _STARS.finditer(text):
        stars = text.find("****", run.start(), run.end())
        if stars < 0:
            continue
        if run.end() < len(text) and not _CLOSES.fullmatch(text, run.end()):
            continue
        if text[max(0, run.start() - 4) : run.start()] == "220-" and not text[: run.start() - 4][-1:].isalnum():
            return Sign("starred-greeting", text[run.start() - 4 : run.end()].strip())
        code = _CODE.search(text, run.start(), stars + 1)
        if code:
            return Sign("starred-greeting", text[code.start() : run.end()].strip())
    return None


def _keyword(text: str) -> Sign | None:
    found = _KEYWORD.search(text)
    return Sign("masked-keyword", found[0]) if found else None


def _workaround(text: str) -> Sign | None:
    begun = _WORKAROUND.search(text)
    ended = _FOR.search(text, begun.end()) if begun else None
    return Sign("postfix-workaround", text[begun.start() : ended.end()]) if begun and ended else None


def _own_words(text: str) -> Sign | None:
    found = _OWN_WORDS.search(text)
    if found is None or (found[1] == "507003" and not _SMTP_PORT.search(text)):
        return None
    matched = _MATCHED.search(text, found.end())
    if matched:
        return Sign("firewall-log", text[found.start() :], matched[0].removeprefix("matched ").replace("match ", ""))
    return Sign("firewall-log", text[found.start() :], found[1] or found[0].removesuffix(":"))


def _of(kind: str, form: re.Pattern[str], text: str) -> Sign | None:
    found = form.search(text)
    return Sign(kind, found[0]) if found else None


def _end_of_data(text: str) -> Sign | None:
    # In a server's log a client that disconnects before the end of data is most often a spam bot, so it is no sign.
    if "smtpd[" in text or not any(word in text for word in ("while sending", "after ", "uplicate")):
        return None
    return _of("cut-end-of-data", _END, text)


def _ehlo(text: str) -> Sign | None:
    """Postfix' summary of a session: EHLO or an unknown command refused, HELO accepted, and a mail accepted."""
    found = _COUNTS.search(text)
    if found is None:
        return None
    counts = dict(part.split("=") for part in found["counts"].split())
    refused = counts.get("ehlo", "").startswith("0/") or counts.get("unknown", "").startswith("0/")
    taken = counts.get("helo", "0")[:1] != "0" and counts.get("data", "0")[:1] != "0"
    return Sign("ehlo-not-understood", found[0]) if refused and taken else None


_LOOKS: tuple[Callable[[str], Sign | None], ...] = (
    _workaround,
    _starred,
    _command,
    _keyword,
    _own_words,
    _end_of_data,
    lambda text: _of("tls-not-offered", _NO_TLS, text),
    lambda text: _of("auth-not-offered", _NO_AUTH, text),
    _ehlo,
)


def signs(text: str) -> list[Sign]:
    """All signs in a line, at most one of each kind."""
    return [sign for look in _LOOKS if (sign := look(text)) is not None]


# Section: recognising whose log a line is from, and the peer's address.

_POSTFIX = re.compile(r"postfix[\w.-]{0,40}/(?:[\w-]{1,20}/)?(smtpd?|lmtp)\[\d{1,10}\]: ")
_ADDRESS = re.compile(r"\[([0-9A-Fa-f.:]{3,45})\]")
_EXIM_OUT = re.compile(r" (?:[=*-]>|\*\*|==) ")
_EXIM_IN = re.compile(r" (?:<= |H=)|SMTP (?:call|connection|protocol|syntax|command) ")
_SENDMAIL = re.compile(r"(?:sendmail|sm-mta)\[\d{1,10}\]: .{0,300}?\b(to|from)=")
_SENDMAIL_RELAY = re.compile(r"\brelay=[^ ,]{1,255}(?: \[([0-9A-Fa-f.:]{3,45})\])?")
_OPENSMTPD = re.compile(r"smtpd\[\d{1,10}\]: ([0-9a-f]{1,16}) (mta|smtp) ")
_OPENSMTPD_PEER = re.compile(
    r"(?:address=(?:smtps?(?:\+[\w-]{1,20})?://)?|relay=\"?[\w.-]{0,255} ?\(?)\[?([0-9A-Fa-f.:]{3,45})"
)
#: What sendmail logs of a connection at LogLevel 15, with the process that serves the connection (op.me, "Log Level").
_SENDMAIL_SESSION = re.compile(
    r"((?:sendmail|sm-mta)\[\d{1,10}\]): \w{1,20}: (?:connect from (?:\S{1,255} )?\[([0-9A-Fa-f.:]{3,45})\]|<-- |--- )"
)
_QMAIL = re.compile(r"delivery \d{1,12}: \w{1,10}: (?:Connected_to_)?([0-9.]{7,15})_")
_EXCHANGE = re.compile(
    r"^[\d-]{10}T[\d:.]{8,16}Z,[^,]{0,200},[0-9A-F]{8,20},\d{1,9},[^,]{0,60},([^,]{3,60}):\d{1,5},(.),"
)
_LOOPBACK = ("127.", "::1")


def speaker(text: str) -> Speaker:
    """Whose log a line is from, and the peer."""
    found = _OPENSMTPD.search(text)
    if found:
        peer = _OPENSMTPD_PEER.search(text, found.end())
        return Speaker(CLIENT if found[2] == "mta" else SERVER, _named(peer[1] if peer else ""), found[1])
    found = _SENDMAIL_SESSION.search(text)
    if found:
        return Speaker(SERVER, _named(found[2] or ""), found[1])
    role, peer_text = _role_and_peer(text)
    return Speaker(role, _named(peer_text))


def _named(peer: str) -> str:
    """The peer's name for counting; empty if a machine connected to itself."""
    if peer.startswith(_LOOPBACK):
        return ""
    # With exactly one colon the text is an address and a port, as in `smtp://10.0.0.1:25`; an IPv6 address never has
    # just one.
    return (peer.partition(":")[0] if peer.count(":") == 1 else peer).strip("[]").lower()


def _role_and_peer(text: str) -> tuple[str, str]:
    found = _POSTFIX.search(text)
    if found:
        peer = _ADDRESS.search(text, found.end())
        return SERVER if found[1] == "smtpd" else CLIENT, peer[1] if peer else ""
    found = _SENDMAIL.search(text)
    if found:
        peer = _SENDMAIL_RELAY.search(text, found.start(1))
        return CLIENT if found[1] == "to" else SERVER, (peer[1] or "") if peer else ""
    found = _QMAIL.search(text)
    if found:
        return CLIENT, found[1]
    found = _EXCHANGE.search(text)
    if found:
        # In Exchange's protocol logs, a receive connector's log is a server's and a send connector's a client's; the
        # line itself does not tell which it is.
        return "", found[1]
    for role, form in ((CLIENT, _EXIM_OUT), (SERVER, _EXIM_IN)):
        found = form.search(text)
        if found:
            peer = _ADDRESS.search(text, found.start())
            return role, peer[1] if peer else ""
    if _OWN_WORDS.search(text):
        return FIREWALL, ""
    return "", ""
