"""Lines that lie in a segment whole are read at once where nobody is told of them: nothing else may differ.

A finding that is told is told by the way that reads octet by octet, so an engine that tells everything is the measure
of one that tells the first of a kind: the same segments go through both. Where nothing may be changed, how they are
cut must not matter either.
"""

from __future__ import annotations

import random

import msgspec
import pytest

from nfmailguard.events.records import RecordKind
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import BugPolicy, Limits, Mode, Policy, UnknownCommand
from tests.support.dialogue import Dialogue

VERBS = [
    *(b"NOOP", b"noop", b"RSET", b"rSeT", b"QUIT", b"HELO a", b"EHLO a", b"ehlo", b"EXPN x", b"VRFY y", b"X", b"XXXX"),
    *(b"XXXXX y", b"PASS hunter2", b"AUTH PLAIN AAAA", b"xauth a", b"T1 AUTHENTICATE PLAIN", b"E", b"EHL", b".", b".a"),
    *(
        b"MAIL FROM:<a@b>",
        b"MAIL FROM:<a|b>",
        b"RCPT TO:<a@b>",
        b"RCPT TO:<a<b>>",
        b"RCPT TO:>a<",
        b"RCPT TO:|",
        b"HELP",
    ),
    *(b"GET / HTTP/1.0", b"BDAT 5", b"STARTTLS x", b"SITE a", b"\x01X", b"N\x7fOP", b"XCLIENT a", b"NOOP PLAIN x"),
]
ODD = [b"\0", b"\n", b"\r", b" ", b"\t", b"\x01", b"\0\0", b"\n\n"]
ENDS = [b"\r\n"] * 12 + [b"\n", b"\rX", b"\r\r\n", b"\0\r\n", b" \r\n", b"\n\r\n"]
REPLIES = [
    *(
        b"250 ok\r\n",
        b"250 ok\r\n",
        b"502 no\r\n",
        b"550-a\r\n550 b\r\n",
        b"250\r\n",
        b"250-a\r\n250-STARTTLS\r\n250 X\r\n",
    ),
    *(b"x\r\n", b"\r\n", b"\n", b"221 bye\n", b"25\r\n", b"99\r\n", b"2:0 x\r\n", b"\xc2\xd0\xe0 x\r\n", b"650 x\r\n"),
    *(b"999 y\r\n", b"250 \rx\r\n", b"\r\r\n", b"250 " + b"z" * 200 + b"\r\n", b"5\r\n", b"/50 a\r\n"),
]
KEPT = {RecordKind.COMMAND, RecordKind.REPLY, RecordKind.MESSAGE}


def some_line(chance: random.Random) -> bytes:
    verb = chance.choice(VERBS)
    for _ in range(chance.choice([0, 0, 0, 1, 2])):
        at = chance.randint(0, len(verb))
        verb = verb[:at] + chance.choice(ODD) + verb[at:]
    return verb + chance.choice(ENDS)


def said(seed: int) -> list[tuple[bool, bytes]]:
    """Segments of both sides: lines in great numbers, some of them cut."""
    chance = random.Random(seed)
    turns = [(False, b"220 a\r\n"), (True, chance.choice([b"EHLO a\r\n", b"HELO a\r\n"])), (False, b"250 a\r\n")]
    for _ in range(12):
        lines = b"".join(some_line(chance) for _ in range(chance.randint(1, 40)))
        replies = b"".join(chance.choice(REPLIES) for _ in range(chance.randint(1, 40)))
        cut = chance.randint(0, len(lines))
        turns += [(True, part) for part in (lines[:cut], lines[cut:]) if part]
        turns.append((False, replies))
    return turns


def played(
    policy: Policy, mode: Mode, turns: list[tuple[bool, bytes]], told: int, junk_commands: int = 1000
) -> Dialogue:
    limits = Limits(findings_told=told, outstanding_commands=50_000, cookies=0, junk_commands=junk_commands)
    dialogue = Dialogue.under(policy, mode, limits=limits)
    for to_server, octets in turns:
        dialogue.say(to_server, octets)
    return dialogue


def seen(dialogue: Dialogue) -> tuple[object, ...]:
    """All that is the same however many findings are told."""
    kept = [record for record in dialogue.records if record[0] in KEPT]
    counters = {
        name: count
        for name, count in dialogue.engine.counters().items()
        if name.startswith("finding.") or name == "records_omitted"
    }
    without_ids = [record[:1] + record[2:] for record in kept]
    return dialogue.received_by_server, dialogue.received_by_client, without_ids, counters, len(dialogue.emitted)


def policies(seed: int) -> Policy:
    chance = random.Random(seed)
    policy = load_profile(chance.choice(["pix63", "pix51", "pix40", "asa", "fwsm2"]))
    allow = chance.choice([policy.commands.allow, policy.commands.allow, ("*",)])
    commands = msgspec.structs.replace(policy.commands, unknown=chance.choice(list(UnknownCommand)), allow=allow)
    policy = msgspec.structs.replace(policy, commands=commands)
    if chance.random() < 0.3:
        policy = msgspec.structs.replace(policy, bugs=BugPolicy(*(chance.random() < 0.5 for _ in range(3))))
    return policy


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.MONITOR])
@pytest.mark.parametrize("seed", range(100))
def test_read_at_once_what_nobody_is_told_of_is_read_as_what_is_told(mode: Mode, seed: int) -> None:
    policy, turns = policies(seed), said(seed)
    assert seen(played(policy, mode, turns, 1)) == seen(played(policy, mode, turns, 4_000_000))


#: Lines behind which the client has to wait, and what may be said to them.
WAITS = [
    b"AUTH a",
    b"AUTH PLAIN QUJD",
    b"auth",
    b"DATA",
    b"STARTTLS",
    b"X-EXPS LOGIN",
    b"NOOP",
    b"MAIL FROM:<a@b>",
    b"X",
]
WAITED_FOR = [b"502 no\r\n"] * 6 + [
    b"454 no\r\n",
    b"250 ok\r\n",
    b"334 \r\n",
    b"354 go\r\n",
    b"x\r\n",
    b"550-a\r\n550 b\r\n",
]


def pipelined(seed: int) -> list[tuple[bool, bytes]]:
    chance = random.Random(seed)
    turns = [(False, b"220 a\r\n"), (True, b"EHLO a\r\n"), (False, b"250 a\r\n")]
    for _ in range(6):
        count = chance.randint(1, 60)
        turns.append((True, b"".join(chance.choice(WAITS) + chance.choice(ENDS) for _ in range(count))))
        turns.append((False, b"".join(chance.choice(WAITED_FOR) for _ in range(count))))
    return turns


@pytest.mark.parametrize("seed", range(40))
def test_read_at_once_what_is_pipelined_behind_lines_that_wait_is_read_between_the_replies(seed: int) -> None:
    policy, turns = policies(seed), pipelined(seed)
    single = [(side, bytes([octet])) for side, octets in turns for octet in octets]
    assert seen(played(policy, Mode.MONITOR, turns, 1)) == seen(played(policy, Mode.MONITOR, single, 1))


@pytest.mark.parametrize("seed", range(40))
def test_read_at_once_commands_of_which_no_record_is_made_any_more_are_read_alike(seed: int) -> None:
    policy, turns = policies(seed), pipelined(seed)
    single = [(side, bytes([octet])) for side, octets in turns for octet in octets]
    whole = played(policy, Mode.MONITOR, turns, 1, junk_commands=5)
    assert seen(whole) == seen(played(policy, Mode.MONITOR, single, 1, junk_commands=5))


def test_read_at_once_where_more_is_outstanding_than_is_counted_nothing_more_is_read() -> None:
    turns = [(False, b"220 a\r\n"), (True, b"NOOP a\r\n" * 40 + b"X\r\n" * 5)]
    limits = Limits(outstanding_commands=30, cookies=0)
    for cut in (1, 400):
        dialogue = Dialogue.under(load_profile("pix63"), Mode.MONITOR, limits=limits)
        for to_server, octets in turns:
            for at in range(0, len(octets), cut):
                dialogue.say(to_server, octets[at : at + cut])
        counters = dialogue.engine.counters()
        assert counters["finding.command.too_many_outstanding"] == 1
        assert counters["finding.command.denied"] == 0


@pytest.mark.parametrize("seed", range(40))
def test_read_at_once_where_nothing_is_changed_no_cut_matters(seed: int) -> None:
    policy, turns = policies(seed), said(seed)
    single = [(side, bytes([octet])) for side, octets in turns for octet in octets]
    assert seen(played(policy, Mode.MONITOR, turns, 1)) == seen(played(policy, Mode.MONITOR, single, 1))
