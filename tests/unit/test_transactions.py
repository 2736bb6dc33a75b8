"""Mails put together from records: each command and reply belongs to its own mail, pipelined or not."""

from __future__ import annotations

import pytest

from nfmailguard.events.records import Record
from nfmailguard.events.transactions import Mail, Transactions
from nfmailguard.policy.load import load_profile, override
from nfmailguard.policy.model import Mode, Policy
from tests.support.dialogue import Dialogue


def mails(
    *said: tuple[bool, bytes], ended: bool = True, mode: Mode = Mode.ENFORCE, policy: Policy | None = None
) -> list[Mail]:
    """The mails of a dialogue behind greeting and HELO; ``True`` is the client."""
    dialogue = Dialogue.under(policy or load_profile("pix63"), mode)
    opening = ((False, b"220 x\r\n"), (True, b"HELO c.example\r\n"), (False, b"250 x\r\n"))
    for to_server, octets in (*opening, *said):
        dialogue.say(to_server, octets)
    if ended:
        dialogue.carry_out(dialogue.engine.finish(dialogue.now + 1000))
    transactions = Transactions()
    return [mail for record in dialogue.records for mail in transactions.feed(Record.of(record))]


def envelope(number: int) -> bytes:
    return b"MAIL FROM:<a%d@c.example>\r\nRCPT TO:<b%d@d.example>\r\nDATA\r\n" % (number, number)


def test_the_next_mail_pipelined_behind_a_message_is_a_mail_of_its_own() -> None:
    found = mails(
        (True, envelope(1)),
        (False, b"250 ok\r\n250 ok\r\n354 go\r\n"),
        (True, b"one\r\n.\r\n" + envelope(2)),
        (False, b"250 queued as 1\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
        (True, b"the second\r\n.\r\nQUIT\r\n"),
        (False, b"250 queued as 2\r\n221 bye\r\n"),
    )
    assert [(mail.mail_from, mail.rcpt_to, mail.bytes, mail.reply, mail.complete) for mail in found] == [
        ("a1@c.example", ["b1@d.example"], 5, "250 queued as 1", True),
        ("a2@c.example", ["b2@d.example"], 12, "250 queued as 2", True),
    ]


def test_a_finding_belongs_to_the_mail_whose_octets_it_is_about() -> None:
    found = mails(
        (True, envelope(1)),
        (False, b"250 ok\r\n250 ok\r\n354 go\r\n"),
        (True, b"one\r\n.\r\n" + envelope(2).replace(b"<b2", b"<|b2")),
        (False, b"250 queued as 1\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
        (True, b"two\r\n.\r\n"),
        (False, b"250 queued as 2\r\n"),
    )
    assert [mail.changed for mail in found] == [[], ["address.illegal_character"]]


def test_a_refused_recipient_is_not_told_and_moves_nobody_elses_reply() -> None:
    (mail,) = mails(
        (True, b"RCPT TO:<early@d.example>\r\n"),
        (False, b"503 MAIL first\r\n"),
        (True, b"MAIL FROM:<a@c.example>\r\nRCPT TO:<no@d.example>\r\nRCPT TO:<yes@d.example>\r\nDATA\r\n"),
        (False, b"250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n"),
        (True, b"x\r\n.\r\n"),
        (False, b"250 ok\r\n"),
    )
    assert mail.rcpt_to == ["yes@d.example"]


def test_a_refused_sender_begins_no_mail() -> None:
    assert mails((True, b"MAIL FROM:<a@c.example>\r\n"), (False, b"550 no\r\n")) == []


def test_what_was_begun_is_told_when_the_flow_ends() -> None:
    begun = ((True, envelope(1)), (False, b"250 ok\r\n250 ok\r\n354 go\r\n"), (True, b"one\r\n.\r\n" + envelope(2)))
    assert mails(*begun, ended=False) == []
    assert [(mail.mail_from, mail.bytes, mail.complete) for mail in mails(*begun)] == [
        ("a1@c.example", 5, False),
        ("a2@c.example", 0, False),
    ]


MESSAGE = ((True, b"DATA\r\n"), (False, b"354 go\r\n"), (True, b"hello\r\n.\r\n"), (False, b"250 queued\r\n"))
OK = b"250 ok\r\n"


@pytest.mark.parametrize(
    ("argument", "told", "certain"),
    [
        (b"<c@d.example>", "c@d.example", True),
        (b" <c@d.example> SIZE=1 ORCPT=rfc822;<x>", "c@d.example", True),
        (b"c@[10.0.0.1] SIZE=1", "c@[10.0.0.1]", True),
        (b'<"c d"@e>', '"c d"@e', True),
        (b"<>", "", True),
        (b"evil(<boss@corp>)@e.example", "evil(<boss@corp>)@e.example", False),
        (b"(<boss@corp>) <evil@e.example>", "(<boss@corp>) <evil@e.example>", False),
        (b'<"boss@corp>"@e.example>', '<"boss@corp>"@e.example>', False),
        (b'"<boss@corp>" <evil@e.example>', '"<boss@corp>" <evil@e.example>', False),
        (b"<boss@corp\\>@e.example>", "<boss@corp\\x5c>@e.example>", False),
        (b"a:<boss@corp>,evil@e.example;", "a:<boss@corp>,evil@e.example;", False),
        (b"<<boss@corp>evil@e.example>", "<<boss@corp>evil@e.example>", False),
        (b"<@boss.example:evil@e.example>", "<@boss.example:evil@e.example>", False),
        (b"<boss@corp> <evil@e.example>", "<boss@corp> <evil@e.example>", False),
        (b"<boss@corp>@e.example", "<boss@corp>@e.example", False),
        (b"<a\xfcb@c>", "<a\\xfcb@c>", False),
        (b"<@" + b"a" * 240 + b":evil@e.example>", "<@" + "a" * 240 + ":ev ...", False),
        (b"<boss@corp>\nRCPT TO:<evil@e>", "<boss@corp> ...", False),
        (b"<boss@corp>\0x", "<boss@corp> ...", False),
    ],
)
@pytest.mark.parametrize("verb", [b"MAIL FROM:", b"RCPT TO:"])
def test_an_address_is_told_as_one_only_where_every_server_reads_it(
    verb: bytes, argument: bytes, told: str, certain: bool
) -> None:
    said = [b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<a@b>\r\n"]
    said[verb == b"RCPT TO:"] = verb + argument + b"\r\n"
    found = mails((True, said[0]), (False, OK), (True, said[1]), (False, OK), *MESSAGE)[0]
    shown = found.rcpt_to[0] if verb == b"RCPT TO:" else found.mail_from
    if argument.startswith(b"<@aaa"):
        shown, told = shown[:200] + shown[-4:], told[:200] + " ..."
    assert shown == told
    assert found.uncertain is not certain


def test_a_refused_mail_takes_nothing_from_the_one_that_goes_on() -> None:
    (mail,) = mails(
        (True, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"),
        (False, OK * 2),
        (True, b"MAIL FROM:<other@b>\r\nXYZZY\r\n"),
        (False, b"503 nested\r\n500 what\r\n"),
        (True, b"DATA\r\n"),
        (False, b"354 go\r\n"),
        (True, b"hello\n.\r\n\r\n.\r\n"),
        (False, b"250 queued\r\n"),
    )
    assert (mail.mail_from, mail.bytes) == ("a@b", 11)
    assert {"command.denied", "data.smuggling_shape"} <= set(mail.changed)


def test_commands_that_were_text_take_no_replies() -> None:
    first, second = mails(
        (True, b"MAIL FROM:<e1@x>\r\nRCPT TO:<v1@x>\r\n"),
        (False, OK * 2),
        (True, b"DATA\r\nMAIL FROM:<ceo@corp>\r\nRCPT TO:<friend@x>\r\nHELO bank.example\r\n"),
        (False, b"354 go\r\n"),
        (True, b"one\r\n.\r\n"),
        (False, b"250 queued as 1\r\n"),
        (True, b"MAIL FROM:<e2@x>\r\nRCPT TO:<v2@x>\r\n"),
        (False, OK * 2),
        *MESSAGE,
        policy=override(load_profile("pix63"), {"actions.reply.ambiguous": "log"}),  # else it is reset
    )
    assert (first.mail_from, first.rcpt_to, first.reply) == ("e1@x", ["v1@x"], "250 queued as 1")
    assert (second.helo, second.mail_from, second.rcpt_to, second.bytes) == ("c.example", "e2@x", ["v2@x"], 7)


def test_commands_a_watched_server_skipped_take_no_replies() -> None:
    first, second = mails(
        (True, b"MAIL FROM:<a@b>\r\nRCPT TO:<lost@d>\r\n"),
        (False, OK),
        (True, b"DATA\r\n"),
        (False, b"354 go\r\n"),
        (True, b"hello\r\n.\r\n"),
        (False, b"250 queued\r\n"),
        (True, b"MAIL FROM:<e@f>\r\nRCPT TO:<g@h>\r\n"),
        (False, OK * 2),
        *MESSAGE,
        mode=Mode.MONITOR,
    )
    assert (first.rcpt_to, second.mail_from, second.rcpt_to) == ([], "e@f", ["g@h"])


@pytest.mark.parametrize("last", [b"250 queued as 1\r\n", b"550 no\r\n"])
def test_a_mail_behind_too_many_commands_is_told_without_its_envelope(last: bytes) -> None:
    found = mails(
        (True, b"MAIL FROM:<good@c.example>\r\nRCPT TO:<b@d.example>\r\n"),
        (False, b"250 ok\r\n250 ok\r\n"),
        (True, b"RSET\r\n" * 1000),
        (False, b"250 ok\r\n" * 1000),
        (True, b"RSET\r\n" + envelope(1)),
        (False, b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
        (True, b"one\r\n.\r\n" + envelope(2)),
        (False, last + b"250 ok\r\n250 ok\r\n354 go\r\n"),
        (True, b"two\r\n.\r\n" + envelope(3)),
        (False, b"250 queued as 2\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
        (True, b"three\r\n.\r\n"),
        (False, b"250 queued as 3\r\n"),
        mode=Mode.MONITOR,
    )
    # The count begins anew when the server has accepted a message. A command is recorded as it passes, so of the
    # three envelopes those that were pipelined before that reply are not known.
    third = ("a3@c.example", ["b3@d.example"], False) if last.startswith(b"2") else ("", [], True)
    assert [(mail.mail_from, mail.rcpt_to, mail.uncertain, mail.reply) for mail in found] == [
        ("", [], True, last.decode().strip()),
        ("", [], True, "250 queued as 2"),
        (*third, "250 queued as 3"),
    ]


def test_a_hello_that_was_refused_names_nobody() -> None:
    found = mails(
        (True, b"HELO evil.example\r\nHELO bank.example x\r\n"),
        (False, b"250 x\r\n501 no\r\n"),
        (True, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"),
        (False, OK * 2),
        *MESSAGE,
    )
    assert [mail.helo for mail in found] == ["evil.example"]


CHUNKED = Policy("chunked")


@pytest.mark.parametrize(
    ("said", "reply", "octets"),
    [
        (
            ((True, b"BDAT 5\r\nhello"), (False, b"250 5\r\n"), (True, b"BDAT 3 LAST\r\nabc"), (False, b"250 q\r\n")),
            "250 q",
            8,
        ),
        (((True, b"BDAT 0 LAST\r\n"), (False, b"250 q\r\n")), "250 q", 0),
        (((True, b"BDAT 5 LAST\r\nhello"), (False, b"550 spam\r\n")), "550 spam", 5),
        (((True, b"BDAT 5\r\nhello"), (False, b"552 too big\r\n")), "552 too big", 0),
        (
            (
                *((True, b"BDAT 5\r\nhello"), (False, b"250 5\r\n"), (True, b"BDAT 3\r\nabc"), (False, b"250 3\r\n")),
                *((True, b"BDAT 2 last\r\n.."), (False, b"550 spam\r\n")),
            ),
            "550 spam",
            10,
        ),
    ],
)
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.MONITOR])
def test_a_message_in_chunks_has_the_word_on_its_last(
    said: tuple[tuple[bool, bytes], ...], reply: str, octets: int, mode: Mode
) -> None:
    (mail,) = mails(
        (True, b"EHLO c.example\r\n"),
        (False, b"250-mx\r\n250 CHUNKING\r\n"),
        (True, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"),
        (False, OK * 2),
        *said,
        policy=CHUNKED,
        mode=mode,
    )
    assert (mail.reply, mail.complete, mail.bytes) == (reply, True, octets)


def test_chunks_pipelined_have_each_its_reply() -> None:
    (mail,) = mails(
        (True, b"EHLO c.example\r\n"),
        (False, b"250-mx\r\n250 CHUNKING\r\n"),
        (True, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"),
        (False, OK * 2),
        (True, b"BDAT 5\r\nhelloBDAT 3 LAST\r\nabc"),
        (False, b"250 5 octets\r\n"),
        (False, b"550 spam\r\n"),
        policy=CHUNKED,
        mode=Mode.MONITOR,
    )
    assert (mail.reply, mail.complete) == ("550 spam", True)


OFFERED = ((True, b"EHLO c.example\r\n"), (False, b"250-mx\r\n250 CHUNKING\r\n"))


def test_a_refused_chunk_is_not_the_end_of_a_mail_that_goes_on() -> None:
    said = (
        *OFFERED,
        (True, b"MAIL FROM:<a@b>\r\n"),
        (False, OK),
        (True, b"BDAT 5 LAST\r\nhello"),
        (False, b"503 valid RCPT command must precede BDAT\r\n"),
        (True, b"RCPT TO:<v@d>\r\n"),
        (False, OK),
    )
    for more, reply in (
        (((True, b"BDAT 5 LAST\r\nhello"), (False, b"250 OK id=1\r\n")), "250 OK id=1"),
        (MESSAGE, "250 queued"),
    ):
        (mail,) = mails(*said, *more, policy=CHUNKED, mode=Mode.MONITOR)
        assert (mail.mail_from, mail.rcpt_to, mail.reply) == ("a@b", ["v@d"], reply)


def test_a_mail_whose_last_chunk_was_refused_is_told_when_the_next_begins() -> None:
    said = (
        *OFFERED,
        (True, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"),
        (False, OK * 2),
        (True, b"BDAT 5 LAST\r\nhello"),
        (False, b"550 spam\r\n"),
    )
    for next_one in (b"MAIL FROM:<e@f>\r\n", b"RSET\r\n", b"HELO x\r\n"):
        (mail,) = mails(*said, (True, next_one), (False, OK), policy=CHUNKED, ended=False)
        assert (mail.mail_from, mail.rcpt_to, mail.reply) == ("a@b", ["c@d"], "550 spam")


def test_a_mail_that_another_one_did_not_take_the_place_of_has_its_event() -> None:
    (mail,) = mails(
        *OFFERED,
        (True, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"),
        (False, OK * 2),
        (True, b"MAIL FROM:<e@f>\r\n"),
        (False, b"503 nested\r\n"),
        (True, b"BDAT 5 LAST\r\nhello"),
        (False, b"250 queued\r\n"),
        policy=CHUNKED,
        mode=Mode.MONITOR,
    )
    assert (mail.mail_from, mail.rcpt_to, mail.bytes, mail.reply) == ("a@b", ["c@d"], 5, "250 queued")


def test_what_a_verbose_server_says_on_the_way_is_no_reply() -> None:
    (mail,) = mails(
        (True, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"),
        (False, OK * 2),
        (True, b"DATA\r\n"),
        (False, b"354 go\r\n"),
        (True, b"hello\r\n.\r\n"),
        (False, b"050 <c@d>... Connecting\r\n050 <c@d>... Deferred\r\n250 2.0.0 accepted\r\n"),
    )
    assert mail.reply == "250 2.0.0 accepted"


def test_a_mail_behind_many_that_came_to_nothing_has_its_event() -> None:
    (mail,) = mails(
        (True, b"MAIL FROM:<a@b>\r\nRSET\r\n" * 25 + b"MAIL FROM:<evil@b>\r\nRCPT TO:<victim@d>\r\n"),
        (False, OK * 52),
        *MESSAGE,
    )
    assert (mail.uncertain, mail.rcpt_to, mail.bytes, mail.reply, mail.complete) == (
        True,
        ["victim@d"],
        7,
        "250 queued",
        True,
    )
