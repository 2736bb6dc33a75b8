"""Mails put together from records: each command and reply belongs to its own mail, pipelined or not."""

from __future__ import annotations

from nfmailguard.events.records import Record
from nfmailguard.events.transactions import Mail, Transactions
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import Mode
from tests.support.dialogue import Dialogue


def mails(*said: tuple[bool, bytes], ended: bool = True, mode: Mode = Mode.ENFORCE) -> list[Mail]:
    """The mails of a dialogue behind greeting and HELO; ``True`` is the client."""
    dialogue = Dialogue.under(load_profile("pix63"), mode)
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
