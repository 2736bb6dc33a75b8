"""The dialogue: which reply answers what, and when commands end (docs/streams.md)."""

from __future__ import annotations

import pytest

from nfmailguard.events.records import Record, RecordKind
from nfmailguard.events.transactions import Transactions
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import (
    Action,
    AddressPolicy,
    CommandPolicy,
    EhloMask,
    Limits,
    Policy,
    ReplyPolicy,
)
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.turns import Turn
from nfmailguard.smtp.verbs import VERB_INDEX
from tests.rules.gateway import ACCEPT, DROP, REPLACE, RESET, Connection, Gateway
from tests.support.wire import ACK, PSH

families = pytest.mark.parametrize("family", [4, 6])
ALL = Policy("all")  # every verb
EXTENDED = Policy(
    "extended",
    commands=CommandPolicy(allow=("HELO", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "STARTTLS", "AUTH", "NOOP", "HELP")),
    replies=ReplyPolicy(ehlo=EhloMask.E1, keywords=("SIZE", "CHUNKING", "STARTTLS")),
)
OFFER = b"250-mx\r\n250-SIZE 1\r\n250 CHUNKING\r\n"
OK = b"250 ok\r\n"


def extended(family: int = 4, *, offer: bytes = OFFER) -> Connection:
    """A connection whose server has answered EHLO with ``offer``."""
    connection = Connection(Gateway(EXTENDED), family).greeted()
    connection.client(b"EHLO a\r\n")
    connection.server(offer)
    return connection


def mailing(family: int = 4, *, offer: bytes = OFFER, policy: Policy = EXTENDED) -> Connection:
    """The same, and it has taken a sender and a recipient."""
    connection = Connection(Gateway(policy), family).greeted()
    for line, answer in ((b"EHLO a\r\n", offer), (b"MAIL FROM:<a@b>\r\n", OK), (b"RCPT TO:<c@d>\r\n", OK)):
        connection.client(line)
        connection.server(answer)
    return connection


@families
def test_354_needs_data_and_a_refused_one_hides_no_command(family: int) -> None:
    connection = Connection(family=family).greeted()
    connection.client(b"DATA\r\n")
    connection.server(b"503 MAIL first\r\n")
    assert connection.client(b"EXPN root\r\n") == [REPLACE]  # CVE-2000-1022
    assert connection.server_reads == b"DATA\r\nXXXX root\r\n"


@families
@pytest.mark.parametrize("reply", [b"354 go on\r\n", b"334 \r\n"])
@pytest.mark.parametrize("command", [b"NOOP\r\n", b"EXPN\r\n", b"RCPT TO:<a>\r\nDATA\r\n", b""])
def test_354_needs_data_and_answers_nothing_else(family: int, reply: bytes, command: bytes) -> None:
    connection = Connection(family=family).greeted()
    if command:
        connection.client(command)
    assert connection.server(reply) == RESET
    assert connection.names[-1] == "reply.ambiguous"
    assert connection.client(b"EXPN\r\n")[0] == DROP


def test_354_needs_data_to_be_the_oldest_command() -> None:
    connection = Connection().greeted()
    connection.client(b"NOOP\r\nDATA\r\n")
    connection.server(b"250 ok\r\n")
    assert connection.server(b"354 go on\r\n") == [ACCEPT]
    assert connection.client(b"EXPN is text\r\n.\r\n") == [ACCEPT]
    assert connection.client(b"EXPN\r\n") == [REPLACE]


@families
@pytest.mark.parametrize("behind", [b"NOOP : x\r\n", b"NOOP : x", b"\r\n", b"\r", b"N", b"RSET\r\nNOOP\r\n"])
def test_354_needs_data_to_be_the_last_that_has_left(family: int, behind: bytes) -> None:
    # What left with DATA, behind it, was read as commands and is text to the server by now (Exim 4.96, live).
    connection = Connection(family=family).greeted()
    connection.client(b"DATA\r\n" + behind)
    assert connection.server(b"354 go on\r\n") == RESET
    assert connection.names[-1] == "reply.ambiguous"


@families
@pytest.mark.parametrize("reply", [b"250 queued\r\n", b"552 too much\r\n", b"421 closing\r\n"])
def test_early_reply_to_a_message_is_ambiguous(family: int, reply: bytes) -> None:
    connection = Connection(family=family).in_text()
    connection.client(b"half of it\r\n")
    assert connection.server(reply) == ([ACCEPT] if reply.startswith(b"421") else RESET)
    assert ("reply.ambiguous" in connection.names) == (not reply.startswith(b"421"))


@families
def test_early_reply_behind_auth_is_ambiguous(family: int) -> None:
    connection = extended(family)
    connection.client(b"AUTH LOGIN\r\n")
    connection.server(b"334 VXNlcm5hbWU6\r\n")
    assert connection.server(b"535 no\r\n") == RESET
    assert connection.names == ["reply.ambiguous"]


@families
@pytest.mark.parametrize("begun", [b"A", b"A" * 500, b"STARTTL", b" ", b"\r"])
def test_early_reply_behind_auth_to_a_line_that_has_begun_is_ambiguous(family: int, begun: bytes) -> None:
    connection = extended(family)
    connection.client(b"AUTH LOGIN\r\n" + begun)  # that has left: of the line only the rest would be measured
    assert connection.server(b"334 VXNlcm5hbWU6\r\n") == RESET
    assert connection.names[-1] == "reply.ambiguous"


@families
def test_bdat_passes_where_the_reply_to_ehlo_offered_chunking(family: int) -> None:
    connection = mailing(family)
    chunk = b"EXPN\r\n.\r\nEXPN\r\n"
    assert connection.client(b"BDAT %d\r\n" % len(chunk) + chunk) == [ACCEPT]
    connection.server(b"250 ok\r\n")
    assert connection.client(b"EXPN\r\n") == [REPLACE]
    assert connection.names == ["command.denied"]


@families
@pytest.mark.parametrize(
    "offer",
    [b"250-mx\r\n250 SIZE 1\r\n", b"250 CHUNKING\r\n", b"250-mx\r\n250 CHUNKINGS\r\n", b"500-no\r\n500 CHUNKING\r\n"],
)
def test_bdat_is_masked_where_it_was_not_offered(family: int, offer: bytes) -> None:
    connection = mailing(family, offer=offer)
    assert connection.client(b"BDAT 6\r\nEXPN\r\n") == [REPLACE]
    assert connection.server_reads.endswith(b"XXXX 6\r\nXXXX\r\n")
    assert "bdat.not_offered" in connection.names


def test_bdat_is_masked_where_the_offer_was_masked() -> None:
    policy = Policy("x", commands=EXTENDED.commands, replies=ReplyPolicy(ehlo=EhloMask.E1, keywords=("SIZE",)))
    connection = Connection(Gateway(policy)).greeted()
    connection.client(b"EHLO a\r\n")
    connection.server(OFFER)
    assert b"CHUNKING" not in connection.client_reads
    assert connection.client(b"BDAT 6\r\nEXPN\r\n") == [REPLACE]
    assert connection.server_reads.endswith(b"XXXX 6\r\nXXXX\r\n")


@pytest.mark.parametrize("answered", [True, False])
def test_bdat_is_masked_after_a_helo(answered: bool) -> None:
    connection = mailing()
    connection.client(b"HELO a\r\n")
    if answered:
        connection.server(b"250 mx\r\n")
    assert connection.client(b"BDAT 6\r\nEXPN\r\n") == [REPLACE]
    assert connection.server_reads.endswith(b"XXXX 6\r\nXXXX\r\n")


@families
@pytest.mark.parametrize("newer", [b"HELO b\r\n", b"EHLO b\r\n", b"NOOP\r\nHELO b\r\n"])
def test_superseded_ehlo_offers_nothing(family: int, newer: bytes) -> None:
    connection = Connection(Gateway(EXTENDED), family).greeted()
    connection.client(b"EHLO a\r\n" + newer)
    connection.server(OFFER)
    assert connection.client(b"BDAT 6\r\nEXPN\r\n") == [REPLACE]
    connection.server(b"250 mx\r\n" * newer.count(b"\n"))
    connection.client(b"BDAT 6\r\nEXPN\r\n")
    assert connection.server_reads.endswith(b"XXXX 6\r\nXXXX\r\nXXXX 6\r\nXXXX\r\n")
    assert connection.names.count("bdat.not_offered") == 2


def test_superseded_ehlo_is_so_by_xclient_too() -> None:
    connection = Connection(Gateway(ALL)).greeted()
    connection.client(b"EHLO a\r\n")
    connection.server(OFFER)
    connection.client(b"XCLIENT ADDR=1.2.3.4\r\n")  # the session begins anew (Postfix, XCLIENT_README)
    connection.server(b"220 mail ESMTP\r\n")
    assert connection.client(b"BDAT 6\r\nEXPN\r\n") == [REPLACE]
    assert connection.names == ["bdat.not_offered"]


def test_superseded_ehlo_gives_way_to_the_offer_of_the_last_one() -> None:
    connection = Connection(Gateway(EXTENDED)).greeted()
    connection.client(b"HELO a\r\nEHLO b\r\n")
    connection.server(b"250 mx\r\n" + OFFER)
    connection.client(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
    connection.server(OK * 2)
    assert connection.client(b"BDAT 6 LAST\r\nEXPN\r\n") == [ACCEPT]


LIMITED = Policy("limited", address=AddressPolicy(recipients=3))
PATIENT = Policy("patient", address=AddressPolicy(invalid_recipients=3))
RECIPIENTS = b"RCPT TO:<a@b>\r\n" * 3


@families
@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"MAIL FROM:<x@y>\r\n", b"503 nested\r\n"),
        (b"EHLO\r\n", b"501 name?\r\n"),
        (b"HELO\r\n", b"501 name?\r\n"),
        (b"RSET x\r\n", b"501 no arguments\r\n"),
    ],
)
@pytest.mark.parametrize("pipelined", [True, False])
def test_superseded_counts_begin_anew_only_where_the_server_does(
    family: int, command: bytes, reply: bytes, pipelined: bool
) -> None:
    for policy, answer, finding in (
        (LIMITED, b"250 ok\r\n", "recipients.too_many"),
        (PATIENT, b"550 no\r\n", "recipients.invalid_too_many"),
    ):
        connection = Connection(Gateway(policy), family).greeted()
        turns = [
            (b"MAIL FROM:<x@y>\r\n", b"250 ok\r\n"),
            (RECIPIENTS, answer * 3),
            (command, reply),
            (RECIPIENTS, answer * 3),
        ]
        if pipelined:
            turns = [(b"".join(said for said, _ in turns), b"".join(replies for _, replies in turns))]
        for said, replies in turns:
            connection.client(said)
            connection.server(replies)
        assert finding in connection.names


@families
def test_superseded_counts_go_on_behind_an_ehlo_that_was_refused_so_that_asa_drops_the_101st(family: int) -> None:
    turns = [(b"EHLO a.example\r\n", b"250-mx.example.com\r\n250 SIZE\r\n"), (b"MAIL FROM:<a@b>\r\n", OK)]
    turns += [(b"RCPT TO:<u@c>\r\n", OK)] * 60 + [(b"EHLO\r\n", b"501 no\r\n")] + [(b"RCPT TO:<u@c>\r\n", OK)] * 40
    policy = load_profile("asa")
    connection = Connection(Gateway(policy), family).greeted()
    for said, reply in turns:
        connection.client(said)
        connection.server(reply)
    assert "recipients.too_many" not in connection.names
    connection.client(b"RCPT TO:<u@c>\r\n")
    assert connection.names[-1] == "recipients.too_many"
    said_in_order = [
        Turn(to_server, data) for turn in turns for to_server, data in zip((True, False), turn, strict=True)
    ]
    model = translate(policy, [Turn(False, b"220 mx\r\n"), *said_in_order, Turn(True, b"RCPT TO:<u@c>\r\n")])
    assert model.findings[-1].name == "recipients.too_many"
    assert model.ended is Action.DROP_CONNECTION


@families
@pytest.mark.parametrize("greeting", [b"EHLO\r\n", b"HELO\r\n"])
def test_superseded_offer_is_taken_back_by_a_greeting_that_seems_refused(family: int, greeting: bytes) -> None:
    connection = mailing(family)
    connection.client(b"XYZ\r\n" + greeting)
    connection.server(b"500 what\r\n" * 2)  # both to the first line: some servers answer one twice
    connection.client(b"BDAT 6\r\nEXPN\r\n")
    assert connection.server_reads.endswith(b"XXXX 6\r\nXXXX\r\n")
    assert "bdat.not_offered" in connection.names


@pytest.mark.parametrize("command", [b"MAIL FROM:<x@y>\r\n", b"EHLO a\r\n", b"RSET\r\n"])
def test_superseded_counts_leave_those_behind_the_command(command: bytes) -> None:
    connection = Connection(Gateway(LIMITED)).greeted()
    connection.client(RECIPIENTS[:15])
    connection.server(b"503 MAIL first\r\n")
    connection.client(command + b"RCPT TO:<a@b>\r\nRCPT TO:<")
    connection.server(b"250 ok\r\n")
    connection.client(b"a@b>\r\n")
    connection.server(b"250 ok\r\n" * 2)
    connection.client(b"RCPT TO:<a@b>\r\n")
    assert "recipients.too_many" not in connection.names
    connection.client(b"RCPT TO:<a@b>\r\n")
    assert connection.names[-1] == "recipients.too_many"


@families
@pytest.mark.parametrize(
    "argument",
    [
        *(b"", b" ", b" 6 ", b" 6x", b" x6", b" -6", b" +6", b" 06", b" 0x6", b" 6 6"),
        *(b" 2147483648", b" 18446744073709551622"),
        *(b" 6 LAS", b" 6 LASTS", b" 6  LAST", b" 6\tLAST"),
    ],
)
def test_bdat_size_is_to_the_letter(family: int, argument: bytes) -> None:
    connection = mailing(family)
    connection.client(b"BDAT" + argument + b"\r\nEXPN\r\n")
    assert b"EXPN" not in connection.server_reads
    assert "bdat.size_invalid" in connection.names


@pytest.mark.parametrize("argument", [b" 6", b" 6 LAST", b" 6 last", b" 0 LAST", b" 0"])
def test_bdat_size_of_rfc_3030_passes(argument: bytes) -> None:
    connection = mailing()
    chunk = b"QUIT\r\n"[: int(argument.split()[0])]
    assert connection.client(b"BDAT" + argument + b"\r\n" + chunk) == [ACCEPT]
    connection.server(b"250 ok\r\n")
    assert connection.client(b"EXPN\r\n") == [REPLACE]


@families
def test_bdat_answered_before_its_octets_have_come_is_ambiguous(family: int) -> None:
    connection = mailing(family)
    connection.client(b"BDAT 12\r\nEXPN\r\n")
    assert connection.server(b"250 ok\r\n") == RESET
    assert connection.names == ["reply.ambiguous"]


@families
@pytest.mark.parametrize(
    ("said", "answered"),
    [
        (b"NOOP\r\nEHLO a\r\n", b"250 ok\r\n250 ok\r\n"),  # a line that was answered twice
        (b"\r\nEHLO a\r\n", b""),  # a blank line that is not answered
        (b"EHLO a\r\n", b"250 ok\r\n"),
    ],
    ids=["twice", "not at all", "too much"],
)
def test_keywords_under_drift_are_masked_all_the_same(family: int, said: bytes, answered: bytes) -> None:
    connection = Connection(Gateway(EXTENDED), family).greeted()
    connection.client(said)
    if answered:
        connection.server(answered)
    assert connection.server(b"250-mx\r\n250-SIZE 1\r\n250-XEXCH50\r\n250 DSN\r\n") == [REPLACE]
    assert connection.client_reads.endswith(b"250-mx\r\n250-SIZE 1\r\n250-XXXXXXA\r\n250 XXB\r\n")


@families
@pytest.mark.parametrize(
    ("at", "masked"), [(13, True), (14, False), (15, False), (18, False)], ids=["dash", "first", "second", "all"]
)
def test_keywords_under_drift_are_those_whose_line_has_not_begun(family: int, at: int, masked: bool) -> None:
    connection = Connection(Gateway(EXTENDED), family).greeted()
    reply = b"250-mx\r\n250-XEXCH\r\n250 DSN\r\n"
    connection.server(reply[: at - 1])
    connection.client(b"EHLO a\r\n")
    connection.server(reply[at - 1 :])
    line = b"250-XXXXA\r\n250 XXB\r\n" if masked else b"250-XEXCH\r\n250 XXA\r\n"
    assert connection.client_reads.endswith(b"250-mx\r\n" + line)


LISTING = b"250-STARTTLS <a@b>\r\n250 XEXCH50\r\n"


@families
@pytest.mark.parametrize("name", ["ios-esmtp", "asa", "pix70"])
@pytest.mark.parametrize("command", [b"MAIL FROM:<a@b>\r\n", b"EXPN list\r\n", b"VRFY x\r\n", b"RSET\r\n", b"NOOP\r\n"])
@pytest.mark.parametrize("pipelined", [True, False])
def test_keywords_under_drift_are_no_other_reply_s_where_there_is_none(
    family: int, name: str, command: bytes, pipelined: bool
) -> None:
    connection = Connection(Gateway(name), family).greeted()
    offer = b"250-mx\r\n250-SIZE 1\r\n250 STARTTLS\r\n"
    connection.client(b"EHLO a\r\n" + (command if pipelined else b""))
    connection.server(offer)
    if not pipelined:
        connection.client(command)
    assert connection.client_reads.endswith(b"250 XXXXXXXA\r\n")
    assert connection.server(LISTING) == [ACCEPT]
    assert connection.client_reads.endswith(LISTING)


def test_keywords_under_drift_are_no_other_reply_s_to_a_chunk() -> None:
    connection = mailing()
    connection.client(b"BDAT 3 LAST\r\nabc")
    assert connection.server(b"250- 3 byte chunk, total 3\r\n250 OK id=1\r\n") == [ACCEPT]


#: What comes before a reply to EHLO that nobody may take for another's, and what the server has said to it.
DRIFTING = {
    "another command first": (b"NOOP\r\n", b"250 ok\r\n", b"EHLO a\r\n"),
    "before the greeting": (b"", b"", b"EHLO a\r\n"),
    "something unasked": (b"", b"250 what\r\n", b"EHLO a\r\n"),
    "another EHLO": (b"EHLO a\r\n", OFFER, b"EHLO b\r\n"),
    "a blank line": (b"\r\n", b"", b"EHLO a\r\n"),
    "a denied one": (b"XYZZY\r\n", b"500 what\r\n", b"EHLO a\r\n"),
    "an answer of one line": (b"", b"", b"EHLO a\r\n|250 mx\r\n"),
    "a refusal": (b"", b"", b"EHLO a\r\n|501 name?\r\n"),
    "none of it": (b"", b"", b"EHLO a\r\n"),
    "another spelling": (b"EHLO a\r\n", OFFER, b" EHLO b\r\n"),
    "another spelling, longer": (b"EHLO a\r\n", OFFER, b"\0eHLOX b\r\n"),
}


@families
@pytest.mark.parametrize("behind", [b"", b"MAIL FROM:<a@b>\r\n", b"NOOP\r\nNOOP\r\n", b"EXPN x\r\n"])
@pytest.mark.parametrize("kind", DRIFTING)
@pytest.mark.parametrize("allow", [EXTENDED.commands.allow, ("*",)], ids=["extended", "all"])
def test_keywords_under_drift_are_masked_whatever_they_seem_to_answer(
    family: int, behind: bytes, kind: str, allow: tuple[str, ...]
) -> None:
    policy = Policy("drifting", commands=CommandPolicy(allow=allow), replies=EXTENDED.replies)
    connection = Connection(Gateway(policy), family)
    if kind != "before the greeting":
        connection.greeted()
    first, answer, then = DRIFTING[kind]
    if first:
        connection.client(first)
    if answer:
        connection.server(answer)
    asked, _, early = then.partition(b"|")
    before = connection.sent[True]
    connection.client(asked)
    if kind == "before the greeting":
        connection.greeted()
        connection.sent[True] = before  # it has not got there; the client sends it again
        connection.client(asked)
    if early:
        connection.server(early)
    if behind:
        connection.client(behind)
    connection.server(b"250-mx\r\n250-XEXCH50\r\n250 DSN\r\n")
    assert b"XEXCH50" not in connection.client_reads
    assert b"DSN" not in connection.client_reads


AGAIN = b"250-one\r\n250 two\r\n"
#: What is said before a reply of several lines that looks as if it answered EHLO, and is another's.
TAKEN = {
    "another command first": (
        *((False, b"220 mail\r\n"), (True, b"EXPN x\r\n"), (False, AGAIN)),
        (True, b"EHLO a\r\n"),
    ),
    "a blank line": ((False, b"220 mail\r\n"), (True, b"\r\n"), (False, b"500 what\r\n"), (True, b"EHLO a\r\n")),
    "something unasked": ((False, b"220 mail\r\n" + AGAIN), (True, b"EHLO a\r\n")),
    "in the midst of a line": ((False, b"220 mail\r\n25"), (True, b"EHLO a\r\n"), (False, b"0-x\r\n")),
    "in the midst of a reply": ((False, b"220 mail\r\n250-x\r\n"), (True, b"EHLO a\r\n")),
    "another EHLO": ((False, b"220 mail\r\n"), (True, b"EHLO a\r\n"), (False, OFFER), (True, b"EHLO b\r\n")),
    "one it may read as EHLO": (
        *((False, b"220 mail\r\n"), (True, b"EHLO a\r\n"), (False, OFFER)),
        (True, b"\tehlo b\r\n"),
    ),
}


@families
@pytest.mark.parametrize("kind", TAKEN)
def test_keywords_under_drift_are_masked_where_another_reply_was_taken_for_it(family: int, kind: str) -> None:
    connection = Connection(Gateway(Policy("any", replies=EXTENDED.replies)), family)
    for to_server, octets in TAKEN[kind]:
        connection.say(to_server, octets)
    connection.server(AGAIN)
    connection.client(b"MAIL FROM:<a@b>\r\n")
    connection.server(b"250-mx\r\n250-XEXCH50\r\n250 DSN\r\n")
    assert connection.client_reads.endswith(b"250-mx\r\n250-XXXXXXA\r\n250 XXB\r\n")


def test_keywords_under_drift_are_those_of_a_reply_that_answers_nothing() -> None:
    connection = extended()
    connection.server(LISTING)
    assert b"XEXCH50" not in connection.client_reads


@families
@pytest.mark.parametrize("at", range(20))
def test_reply_ends_are_lfs_wherever_a_cr_is_cut(family: int, at: int) -> None:
    connection = Connection(Gateway(EXTENDED), family).greeted()
    connection.client(b"EHLO a\r\n")
    reply = b"250-mx\r\n250-SIZE\rXEXCH50\r\n250 CHUNKING\r\n"
    connection.server(reply[: 6 + at])
    connection.server(reply[6 + at :])
    assert b"EXCH50" not in connection.client_reads
    assert connection.names == ["reply.keyword_masked"]


@pytest.mark.parametrize("line", [b"SIZE\rXEXCH50", b"SIZE 1\rXEXCH50"])
def test_reply_ends_are_lfs_in_a_line_that_is_there_as_a_whole(line: bytes) -> None:
    connection = Connection(Gateway(EXTENDED)).greeted()
    connection.client(b"EHLO a\r\n")
    connection.server(b"250-mx\r\n250-" + line + b"\r\n250 CHUNKING\r\n")
    masked = b"X" * (len(line) - 1) + b"A"
    assert connection.client_reads.endswith(b"250-mx\r\n250-" + masked + b"\r\n250 CHUNKING\r\n")


@families
@pytest.mark.parametrize("first", [b"\x80", b"\x00", b"E", b"\x17", b"\x15"])
def test_tls_first_octet_is_that_of_a_handshake(family: int, first: bytes) -> None:
    connection = extended(family)
    connection.client(b"STARTTLS\r\n")
    connection.server(b"220 go\r\n")
    assert connection.client(first + b"XPN\r\n") == RESET
    assert connection.names == ["tls.started", "tls.not_a_handshake"]


@families
def test_tls_first_octet_of_a_handshake_ends_the_inspection(family: int) -> None:
    connection = extended(family)
    connection.client(b"STARTTLS\r\n")
    connection.server(b"220 go\r\n")
    assert connection.client(b"\x16\x03\x01EXPN\r\n") == [ACCEPT]
    assert connection.client(b"EXPN\r\n") == [ACCEPT]
    assert connection.gateway.count("flows_passed") == 1


@families
def test_nothing_pending_at_tls_is_left_undecided(family: int) -> None:
    connection = extended(family)
    connection.client(b"STARTTLS\r\n")
    # Held while the reply is awaited; behind a gap when it comes.
    assert connection.send(True, payload=b"\x16\x03\x01late", at=connection.mark + 7) == []
    connection.server(b"220 go\r\n")
    assert connection.gateway.count("flows_passed") == 0
    assert connection.send(True, payload=b"\x16\x03\x01read") == [ACCEPT, ACCEPT]
    assert connection.gateway.count("held_now") == 0
    assert connection.gateway.count("flows_passed") == 1


def test_nothing_pending_at_tls_behind_a_gap() -> None:
    connection = extended()
    connection.client(b"STARTTLS\r\n")
    assert connection.send(True, payload=b"behind it", at=connection.mark + 20) == []
    connection.server(b"220 go\r\n")
    assert connection.client(b"\x16\x03\x01hello") == [ACCEPT]
    assert connection.gateway.count("flows_passed") == 0
    assert connection.gateway.count("held_now") == 1
    assert connection.client(b"in between..") == [ACCEPT, ACCEPT]
    assert connection.gateway.count("flows_passed") == 1


@families
def test_nothing_pending_at_tls_in_the_servers_direction_either(family: int) -> None:
    connection = extended(family)
    connection.client(b"STARTTLS\r\n")
    reply = b"220 go\r\n"
    assert connection.send(False, payload=b"\x16\x03\x01late", seq=connection.sent[False] + len(reply) + 5) == []
    connection.server(reply)
    assert connection.client(b"\x16\x03\x01hello") == [ACCEPT]
    assert connection.gateway.count("flows_passed") == 0
    assert connection.send(False, payload=b"\x16\x03\x01..") == [ACCEPT, ACCEPT]
    assert connection.gateway.count("flows_passed") == 1


@families
@pytest.mark.parametrize("command", [b"DATA", b"AUTH PLAIN", b"STARTTLS"])
def test_pipelined_too_far_in_the_same_packet_is_read_as_commands(family: int, command: bytes) -> None:
    connection = extended(family)
    assert connection.client(command + b"\r\nEXPN root\r\n") == [REPLACE]
    assert connection.server_reads.endswith(command + b"\r\nXXXX root\r\n")
    assert connection.names == ["command.pipelined_too_far", "command.denied"]
    assert connection.gateway.watched_names == ["command.pipelined_too_far"]  # to be read after the reply


@families
def test_pipelined_too_far_hides_no_injected_command_from_tls(family: int) -> None:
    connection = extended(family)
    connection.client(b"STARTTLS\r\nEXPN root\r\n")  # CVE-2011-0411
    assert b"EXPN" not in connection.server_reads
    connection.server(b"220 go\r\n")
    assert connection.client(b"EXPN\r\n") == RESET


@pytest.mark.parametrize("octets", [b"DATA\r\n.\r\n", b"DATA\r\n.", b"DATA\r\ntext\r\n.\r\n"])
@pytest.mark.parametrize("policy", [ALL, EXTENDED], ids=["all", "extended"])
def test_lone_dot_is_denied_as_a_verb(policy: Policy, octets: bytes) -> None:
    connection = Connection(Gateway(policy)).greeted()
    assert connection.client(octets) == [REPLACE]
    assert b"\r\n." not in connection.server_reads
    # A server that takes what stands behind DATA for a message has not seen its end, and sees no more of it.
    assert connection.server(b"354 go on\r\n") == RESET


def test_lone_dot_is_denied_anywhere_and_a_dot_within_a_verb_is_not_one() -> None:
    connection = Connection(Gateway(ALL)).greeted()
    assert connection.client(b".\r\n") == [REPLACE]
    assert connection.client(b".x\r\n..\r\n") in ([ACCEPT], [REPLACE])
    assert b"\r\n.\r\n" not in b"\r\n" + connection.server_reads
    assert "command.denied" in connection.names


@families
@pytest.mark.parametrize(("limit", "kinds"), [(10, RESET), (16, RESET), (100, RESET)])
def test_outstanding_commands_have_a_limit(family: int, limit: int, kinds: list[int]) -> None:
    connection = Connection(Gateway(ALL, limits=Limits(outstanding_commands=limit, cookies=0)), family).greeted()
    for _ in range(limit):
        assert connection.client(b"NOOP\r\n") == [ACCEPT]
    assert connection.client(b"NOOP\r\n") == kinds
    assert connection.names == ["command.too_many_outstanding"]


def test_outstanding_commands_that_are_answered_do_not_count() -> None:
    connection = Connection(Gateway(ALL, limits=Limits(outstanding_commands=10))).greeted()
    for _ in range(40):
        assert connection.client(b"NOOP\r\n") == [ACCEPT]
        assert connection.server(b"250 ok\r\n") == [ACCEPT]


def test_outstanding_commands_of_one_packet_count_too() -> None:
    connection = Connection(Gateway(ALL, limits=Limits(outstanding_commands=10))).greeted()
    assert connection.client(b"\r\n" * 11) == RESET
    assert connection.server_reads == b""


@pytest.mark.parametrize("action", [Action.LOG, Action.DROP_CONNECTION])
def test_outstanding_commands_are_what_the_policy_says(action: Action) -> None:
    policy = Policy("p", actions={"command.too_many_outstanding": action})
    connection = Connection(Gateway(policy, limits=Limits(outstanding_commands=2))).greeted()
    connection.client(b"NOOP\r\nNOOP\r\n")
    assert connection.send(True, ACK | PSH, b"NOOP\r\n") == ([DROP] if action is Action.DROP_CONNECTION else [ACCEPT])


#: Commands that lead to nothing, each as many as its replies.
JUNK = {
    "denied": (b"X\r\n", b"502 no\r\n"),
    "nothing": (b"\r\n", b"500 what\r\n"),
    "NOOP": (b"NOOP\r\n", OK),
    "RSET": (b"RSET\r\n", OK),
    "HELO": (b"HELO a\r\n", OK),
    "EHLO": (b"EHLO a\r\n", b"250-mx\r\n250 SIZE 1\r\n"),
    "VRFY": (b"VRFY a\r\n", b"252 maybe\r\n"),
    "MAIL": (b"MAIL FROM:<a@b>\r\n", OK),
    "a refused RCPT": (b"RCPT TO:<a@b>\r\n", b"550 no\r\n"),
    "a refused DATA": (b"DATA\r\n", b"503 no\r\n"),
    "a refused AUTH": (b"AUTH PLAIN AAAA\r\n", b"535 no\r\n"),
    "a bare LF": (b"X\nX\r\n", b"502 no\r\n"),
    "a NUL": (b"X\0\r\n", b"502 no\r\n"),
}
MANY_JUNK = "command.too_many_junk"
PIX63 = load_profile("pix63")


def busy(family: int = 4, limit: int = 5, policy: Policy = ALL, **options: object) -> Connection:
    gateway = Gateway(policy, limits=Limits(junk_commands=limit, cookies=0), **options)  # type: ignore[arg-type]
    return Connection(gateway, family).greeted()


@families
@pytest.mark.parametrize("policy", [ALL, PIX63], ids=["all", "pix63"])
@pytest.mark.parametrize("kind", JUNK)
def test_junk_has_a_limit(family: int, policy: Policy, kind: str) -> None:
    command, answer = JUNK[kind]
    connection = busy(family, policy=policy)
    for _ in range(5):
        connection.client(command)
        assert connection.server(answer) in ([ACCEPT], [REPLACE])
    assert MANY_JUNK not in connection.names
    connection.client(command)
    assert connection.server(answer) == RESET
    assert connection.names[-1] == MANY_JUNK
    assert connection.gateway.watched_names.count(MANY_JUNK) == 1


@pytest.mark.parametrize("kind", ["NOOP", "RSET", "HELO", "denied", "nothing"])
def test_junk_of_one_packet_counts_too(kind: str) -> None:
    command, answer = JUNK[kind]
    connection = busy()
    connection.client(command * 6)
    assert connection.server(answer * 5) in ([ACCEPT], [REPLACE])
    assert connection.server(answer) == RESET
    connection = busy()
    connection.client(command * 6)
    assert connection.server(answer * 6) == RESET


@families
def test_junk_is_each_line_behind_auth(family: int) -> None:
    connection = busy(family)
    connection.client(b"AUTH LOGIN\r\n")
    for _ in range(5):
        assert connection.server(b"334 \r\n") == [ACCEPT]
        connection.client(b"AAAA\r\n")
    assert connection.server(b"334 \r\n") == RESET


@families
def test_junk_is_no_recipient_or_message_the_server_takes(family: int) -> None:
    connection = busy(family)
    for _ in range(4):
        connection.client(b"NOOP\r\nMAIL FROM:<a@b>\r\n" + b"RCPT TO:<a@b>\r\n" * 40 + b"DATA\r\n")
        assert connection.server(OK * 42 + b"354 go\r\n") == [ACCEPT]
        connection.client(b"text\r\n.\r\n")
        assert connection.server(b"250 queued\r\n") == [ACCEPT]
    assert connection.names == []
    connection.client(b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nDATA\r\n")
    connection.server(OK * 2 + b"354 go\r\n")
    connection.client(b"text\r\n.\r\n")
    connection.server(b"550 no\r\n")  # two: what was begun, and came to nothing
    connection.client(b"NOOP\r\n" * 4)
    assert connection.server(OK * 3) == [ACCEPT]
    assert connection.server(OK) == RESET


@families
def test_junk_is_no_chunk(family: int) -> None:
    connection = busy(family)
    connection.client(b"EHLO a\r\n")
    connection.server(OFFER)
    for _ in range(3):
        connection.client(b"MAIL FROM:<a@b>\r\n")
        connection.server(OK)
        connection.client(b"RCPT TO:<a@b>\r\n")
        connection.server(OK)
        for last in (*[b""] * 10, b" LAST"):
            connection.client(b"BDAT 1" + last + b"\r\nx")
            assert connection.server(OK) == [ACCEPT]
    assert connection.names == []


def test_junk_without_a_limit_goes_on() -> None:
    for connection in (busy(limit=0), busy(policy=Policy("p", actions={MANY_JUNK: Action.PASS}))):
        for _ in range(30):
            connection.client(b"RSET\r\n" * 100)
            assert connection.server(OK * 100) == [ACCEPT]
        assert connection.gateway.count("records_omitted") == 0


def test_junk_beyond_the_limit_is_not_told_where_it_goes_on() -> None:
    connection = busy(policy=Policy("p", actions={MANY_JUNK: Action.LOG}))
    for _ in range(3):
        connection.client(b"RSET\r\nHELO a\r\n" * 3)
        connection.server(OK * 6)
    kept = [kind for kind, *_ in connection.gateway.records if kind in (RecordKind.COMMAND, RecordKind.REPLY)]
    assert kept.count(RecordKind.COMMAND) == kept.count(RecordKind.REPLY) - 1 == 6  # and the greeting's
    assert connection.gateway.count("records_omitted") == 24
    assert connection.gateway.count("finding." + MANY_JUNK) == 1
    connection.client(b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nDATA\r\n")
    connection.server(OK * 2 + b"354 go\r\n")
    connection.client(b"text\r\n.\r\n")
    connection.server(b"250 queued\r\n")
    known = len(connection.gateway.records)
    connection.client(b"RSET\r\n")
    connection.server(OK)
    assert [kind for kind, *_ in connection.gateway.records[known:]] == [RecordKind.COMMAND, RecordKind.REPLY]


@pytest.mark.parametrize("lines", [1, 50])
@pytest.mark.parametrize("odd", [b"", b"|"])
def test_many_recipients_beyond_those_told_are_counted(lines: int, odd: bytes) -> None:
    connection = Connection().greeted()
    transactions = Transactions()
    connection.client(b"MAIL FROM:<a@b>\r\n")
    connection.server(OK)
    for begin in range(0, 1_300, lines):
        line = b"RCPT TO:<r%d" + odd + b"@b>\r\n"
        connection.client(b"".join(line % number for number in range(begin, begin + lines)))
        connection.server((OK if begin < 1_100 else b"550 no\r\n") * lines)
        connection.send(True, ACK)
    verbs = [one[11] for one in connection.gateway.records if one[0] == RecordKind.COMMAND]
    assert verbs.count(VERB_INDEX["RCPT"]) == 1_000
    assert connection.gateway.count("records_omitted") == 600
    for line, reply in ((b"DATA\r\n", b"354 go\r\n"), (b"x\r\n.\r\n", b"250 queued\r\n")):
        connection.client(line)
        connection.server(reply)
    (mail,) = [one for record in connection.gateway.records for one in transactions.feed(Record.of(record))]
    assert len(mail.rcpt_to) == 100
    assert mail.rcpt_omitted == 1_000
    known = len(connection.gateway.records)
    connection.client(b"MAIL FROM:<a@b>\r\nRCPT TO:<x@b>\r\n")  # of the next mail they are told again
    connection.server(OK * 2)
    assert len(connection.gateway.records) == known + 4


#: What a server says to EHLO so that clients find STARTTLS in it; what has to be left of it.
ODD_OFFERS = {
    "another code": (b"250-mx\r\n251-STARTTLS\r\n250 SIZE\r\n", b"250-mx\r\n251-XXXXXXXA\r\n250 SIZE\r\n"),
    "another code at its end": (b"250-mx\r\n250-SIZE\r\n220 STARTTLS\r\n", b"250-mx\r\n250-SIZE\r\n220 XXXXXXXA\r\n"),
    "two digits": (b"250-mx\r\n25-STARTTLS\r\n250 SIZE\r\n", b"250-mx\r\n25XXXXXXXXX\r\n250 SIZE\r\n"),
    "no digits": (b"250-mx\r\nfoo STARTTLS\r\n250 SIZE\r\n", b"250-mx\r\nXXXXXXXXXXXX\r\n250 SIZE\r\n"),
    "a space": (b"250-mx\r\n 250-STARTTLS\r\n250 SIZE\r\n", b"250-mx\r\nXXXXXXXXXXXXX\r\n250 SIZE\r\n"),
    "behind what is no reply": (
        b"junk junk\r\n250-STARTTLS\r\n250 SIZE\r\n",
        b"junk junk\r\n250-XXXXXXXA\r\n250 SIZE\r\n",
    ),
    "behind a tab": (
        b"250-mx\r\n250\tx\r\n250-STARTTLS\r\n250 SIZE\r\n",
        b"250-mx\r\n250\tA\r\n250-XXXXXXXA\r\n250 SIZE\r\n",
    ),
    "behind four digits": (
        b"250-mx\r\n2500-x\r\n250-STARTTLS\r\n250 SIZE\r\n",
        b"250-mx\r\n2500XA\r\n250-XXXXXXXA\r\n250 SIZE\r\n",
    ),
    "behind a CR": (b"250-mx\r\n250-SIZE 1\r250-STARTTLS\r\n250 SIZE\r\n", None),
    "in a refusal that becomes none": (
        b"550-mx\r\n550-what\r\n250-STARTTLS\r\n250 SIZE\r\n",
        b"550-mx\r\n550-what\r\nXXXXXXXXXXXX\r\nXXXXXXXX\r\n",
    ),
    "before it becomes one": (b"250-mx\r\n550-STARTTLS\r\n250 SIZE\r\n", b"250-mx\r\n550-XXXXXXXA\r\n250 SIZE\r\n"),
}
HIDING = Policy("hiding", replies=ReplyPolicy(ehlo=EhloMask.E1, keywords=("SIZE",)))


@families
@pytest.mark.parametrize("kind", ODD_OFFERS)
@pytest.mark.parametrize("before", [b"", b"NOOP\r\n"], ids=["first", "later"])
@pytest.mark.parametrize("pieces", [1, 2, 1000])
def test_keywords_of_any_code_are_masked_where_a_client_may_read_them(
    family: int, kind: str, before: bytes, pieces: int
) -> None:
    connection = Connection(Gateway(HIDING), family).greeted()
    if before:
        connection.client(before)
        connection.server(OK)
    connection.client(b"EHLO a\r\n")
    heard = len(connection.client_reads)
    reply, left = ODD_OFFERS[kind]
    size = -(-len(reply) // pieces)
    for at in range(0, len(reply), size):
        connection.server(reply[at : at + size])
    assert b"STARTTLS" not in connection.client_reads
    assert b"LS\r" not in connection.client_reads
    assert len(connection.client_reads) - heard == len(reply)
    assert "reply.keyword_masked" in connection.names
    if pieces == 1 and left is not None:
        assert connection.client_reads[heard:] == left


@families
@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (b"EHLO a\r\n", b"550-mx does not want you\r\n550-see http://mx.example\r\n550 STARTTLS\r\n"),
        (b"HELP\r\n", b"214-this is mx\r\n214-STARTTLS\r\n214 end\r\n"),
        (b"RCPT TO:<a@b>\r\n", b"550-no such user\r\n550 try another\r\n"),
        (b"RCPT TO:<a@b>\r\n", b"550-no such user\r\n55 ?\r\n550 try another\r\n"),
    ],
)
def test_keywords_of_any_code_are_no_text_for_people(family: int, said: bytes, reply: bytes) -> None:
    connection = Connection(Gateway(HIDING), family).greeted()
    for line in (b"EHLO a\r\n", b"EHLO a\r\n"):  # from here on any reply of several lines may be EHLO's
        connection.client(line)
        connection.server(b"250-mx\r\n250 SIZE\r\n")
    connection.client(said)
    assert connection.server(reply) == [ACCEPT]
    assert connection.client_reads.endswith(reply)


@families
@pytest.mark.parametrize("line", [b"050 <a@b>... Connecting\r\n", b"150 what\r\n", b"650 what\r\n", b"950-what\r\n"])
@pytest.mark.parametrize("cut", [False, True])
def test_reply_code_is_from_2_to_5(family: int, line: bytes, cut: bool) -> None:
    connection = Connection(family=family).greeted()
    connection.client(b"NOOP\r\n")
    for piece in [line[:1], line[1:]] if cut else [line]:
        assert connection.server(piece) == [ACCEPT]
    connection.client(b"DATA\r\n")
    connection.server(OK)
    assert connection.server(b"354 go on\r\n") == [ACCEPT]
    assert connection.names == ["reply.malformed"]
