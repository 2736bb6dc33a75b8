"""Chunks: when BDAT may go, so that what follows it is read as one (docs/streams.md)."""

from __future__ import annotations

import pytest

from nfmailguard.policy.model import Policy
from tests.rules.gateway import ACCEPT, DROP, REPLACE, RESET, Connection, Gateway
from tests.rules.test_dialogue import ALL, OFFER, OK, extended, mailing

families = pytest.mark.parametrize("family", [4, 6])
GSO = 2
CHUNK = b"BDAT 6\r\nEXPN\r\n"
LAST = b"BDAT 6 LAST\r\nEXPN\r\n"


def answered(connection: Connection, said: bytes, *replies: bytes) -> Connection:
    """``connection``, whose client has said something that its server answers."""
    connection.client(said)
    for reply in replies:
        connection.server(reply)
    return connection


@families
def test_bdat_passes_again_and_again_in_a_message(family: int) -> None:
    connection = answered(mailing(family), CHUNK, OK)
    answered(connection, b"NOOP\r\n", OK)
    assert connection.client(LAST) == [ACCEPT]
    connection.server(b"250 queued\r\n")
    assert connection.client(CHUNK) == [REPLACE]  # of no message
    assert connection.names == ["bdat.not_offered", "command.denied"]


@families
@pytest.mark.parametrize("said", [b"", b"MAIL FROM:<a@b>\r\n", b"MAIL FROM:<a@b>\r\nRCPT TO:<c>\r\nRSET\r\n"])
def test_bdat_needs_a_recipient_that_was_accepted(family: int, said: bytes) -> None:
    connection = Connection(Gateway(ALL), family).greeted()
    answered(connection, b"EHLO a\r\n", OFFER)
    if said:
        answered(connection, said, OK * said.count(b"\n"))
    assert connection.client(CHUNK) == [REPLACE]  # some servers read no chunk then
    assert connection.server_reads.endswith(b"XXXX 6\r\nEXPN\r\n")
    assert connection.names == ["bdat.not_offered"]


@families
@pytest.mark.parametrize(
    "refused", [b"BDAT 0\r\n", b"BDAT 1\r\nx", b"\r\n", b"HELP\r\n", b"QUIT now\r\n", b"XYZ\r\n", b"MAIL FROM:<a>\r\n"]
)
@pytest.mark.parametrize("reply", [b"503 only BDAT\r\n", b"452-later\r\n452 full\r\n"])
def test_bdat_refused_between_chunks_is_masked_until_the_next_mail(family: int, refused: bytes, reply: bytes) -> None:
    connection = answered(mailing(family, policy=ALL), CHUNK, OK)
    answered(connection, refused, reply)
    assert connection.client(LAST) == [REPLACE]  # Exim reads it as commands
    assert connection.server_reads.endswith(b"XXXX 6 LAST\r\nEXPN\r\n")
    assert connection.names == ["bdat.not_offered"]
    answered(connection, b"", b"503 no\r\n" * 2)
    answered(connection, b"RSET\r\nMAIL FROM:<a@b>\r\n", OK * 2)
    assert connection.client(LAST)[0] == REPLACE
    connection.server(b"503 no\r\n" * 2)
    answered(connection, b"RCPT TO:<c@d>\r\n", OK)
    assert connection.client(LAST) == [ACCEPT]


@families
def test_bdat_refused_and_answered_once_more_is_ambiguous(family: int) -> None:
    connection = answered(mailing(family), CHUNK, b"503 no\r\n")
    assert connection.server(b"500 what\r\n") == RESET
    assert connection.names == ["reply.ambiguous"]


@families
def test_bdat_refused_or_not_a_reply_that_answers_nothing_takes_the_offer_back(family: int) -> None:
    connection = mailing(family)
    connection.server(OK)
    assert connection.client(CHUNK) == [REPLACE]
    assert connection.names == ["reply.unsolicited", "bdat.not_offered", "command.denied"]
    mailing(family).server(b"421 bye\r\n")


@families
@pytest.mark.parametrize("between", [b"NOOP\r\n", b"BDAT 3\r\nabc", b"\r\n", b"RCPT TO:<e@f>\r\n"])
def test_bdat_waits_until_all_before_it_is_answered(family: int, between: bytes) -> None:
    connection = answered(mailing(family, policy=ALL), CHUNK)
    count = 1 + (connection.client(between) == [ACCEPT])
    before = len(connection.server_reads)
    assert connection.client(LAST) == []
    assert connection.client(b"NOOP\r\n") == []
    for _ in range(count - 1):
        assert connection.server(OK) == [ACCEPT]
        assert len(connection.server_reads) == before
    connection.server(OK)
    while connection.gateway.count("held_now"):
        connection.server(OK)
    assert connection.server_reads.endswith(between + LAST + b"NOOP\r\n")
    assert connection.names == []


@families
def test_bdat_waits_for_a_refusal_that_masks_it(family: int) -> None:
    connection = answered(mailing(family), CHUNK)
    connection.client(b"NOOP\r\n")  # Exim refuses it where the next chunk is there already
    assert connection.client(LAST) == []
    connection.server(OK)
    connection.server(b"503 only BDAT\r\n")
    assert connection.server_reads.endswith(b"NOOP\r\nXXXX 6 LAST\r\nXXXX\r\n")
    assert connection.names == ["bdat.not_offered", "command.denied"]


@families
def test_bdat_waits_in_a_packet_with_what_it_waits_for(family: int) -> None:
    connection = extended(family)
    envelope = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
    assert connection.client(envelope + LAST) == [REPLACE]
    assert connection.last.payload == envelope
    assert connection.send(True, payload=LAST, seq=connection.sent[True] - len(LAST)) == []
    connection.server(OK * 2)
    assert connection.server_reads.endswith(envelope + LAST)
    assert connection.names == []


@families
@pytest.mark.parametrize("at", range(1, 9))
def test_bdat_waits_wherever_it_is_cut(family: int, at: int) -> None:
    connection = extended(family)
    envelope = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
    assert connection.client(envelope + LAST[:at]) == [REPLACE]
    assert connection.last.payload == envelope
    assert connection.client(LAST[at:]) == []
    connection.send(True, payload=LAST[:at], seq=connection.sent[True] - len(LAST))
    connection.server(OK)
    assert connection.server_reads.endswith(envelope)
    connection.server(b"550 unknown\r\n")
    assert b"EXPN" not in connection.server_reads
    assert "bdat.not_offered" in connection.names


@families
def test_bdat_waits_in_a_super_packet_none_of_which_goes(family: int) -> None:
    connection = extended(family)
    both = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" + LAST
    before = len(connection.server_reads)
    assert connection.raw(True, connection.packet(True, payload=both), flags=GSO) == [DROP]
    assert len(connection.server_reads) == before
    assert connection.client(both) == [REPLACE]
    connection.server(OK * 2)
    assert connection.send(True, payload=LAST, seq=connection.sent[True] - len(LAST)) == [ACCEPT]


def test_bdat_waits_where_a_held_packet_brings_it() -> None:
    connection = extended()
    envelope = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
    at = connection.mark
    assert connection.send(True, payload=LAST, at=at + len(envelope)) == []
    assert connection.send(True, payload=envelope, at=at) == [ACCEPT]
    assert connection.server_reads.endswith(envelope)
    connection.server(OK * 2)
    assert connection.server_reads.endswith(envelope + LAST)


def test_bdat_waits_not_where_it_is_another_verb() -> None:
    policy = Policy("burl", commands=ALL.commands)
    connection = mailing(policy=policy)
    for line in (b"BURL x\r\n", b"BDATA 1\r\n", b"NOOP\r\n"):
        assert connection.client(line) == [ACCEPT]


@families
def test_forward_out_of_order_in_a_chunk_as_far_as_it_goes(family: int) -> None:
    connection = answered(mailing(family), b"BDAT 12\r\n")
    at = connection.mark
    assert connection.send(True, payload=b"BDAT 6", at=at + 12) == []  # a command, or the beginning of one
    assert connection.send(True, payload=b"behind", at=at + 6) == [ACCEPT]
    assert connection.send(True, payload=b"before", at=at) == [ACCEPT]
    assert connection.server_reads.endswith(b"BDAT 12\r\nbeforebehind")
    assert connection.names == []


@families
@pytest.mark.parametrize(
    "argument", [b"6 FOO", b"6  LAST", b"6 LASTX", b"6x", b"6\tLAST", b"2147483648", b"6 LAS", b"6 "]
)
@pytest.mark.parametrize("at", [0, 1, 3])
def test_bdat_size_whose_digits_have_passed_ends_the_connection(family: int, argument: bytes, at: int) -> None:
    connection = mailing(family)
    line = b"BDAT " + argument + b"\r\n"
    if at:
        connection.client(line[: 5 + at])
    connection.client(line[5 + at if at else 0 :])  # Exim takes the digits (sscanf) and reads a chunk
    assert connection.gateway.count("flows_reset") == 1
    assert connection.names == ["bdat.size_invalid"]
    assert not connection.server_reads.endswith(b"\r\nEXPN\r\n")


@families
@pytest.mark.parametrize("argument", [b"", b" ", b" x6", b" -6", b" +6", b"  6", b"\t6"])
def test_bdat_size_without_a_digit_is_masked(family: int, argument: bytes) -> None:
    connection = mailing(family)
    assert connection.client(b"BDAT" + argument + b"\r\nEXPN\r\n") == [REPLACE]
    assert b"EXPN" not in connection.server_reads
