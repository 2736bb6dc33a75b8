"""The table at the head of ``cext/inspect.pyx``: what becomes of a segment's payload, by its flow's Conduct.

Each situation is played in each of the three, and with an engine that runs dry, which watches whatever its rule says.
"""

from __future__ import annotations

import pytest

from nfmailguard.engine import Engine, OperationKind
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Mode, Restore, RestoreSide
from tests.support.dialogue import Dialogue
from tests.support.wire import ACK, PSH

ACCEPT, REPLACE, DROP, EMIT = (
    OperationKind.ACCEPT,
    OperationKind.REPLACE,
    OperationKind.DROP,
    OperationKind.EMIT,
)
PIX = load_profile("pix63")
RULES = {
    "watch": FlowRule(Mode.MONITOR, PIX),
    "edit": FlowRule(Mode.RESTORE, PIX, restore=Restore(side=RestoreSide.BOTH)),
    "gate": FlowRule(Mode.ENFORCE, PIX),
}
CONDUCTS = ("watch", "dry", "edit", "gate")


def by_conduct(watch: list[int], edit: list[int], gate: list[int]) -> dict[str, list[int]]:
    """The kinds of operations a segment gives; none: it is held."""
    return {"watch": watch, "dry": watch, "edit": edit, "gate": gate}


def greeted(conduct: str) -> Dialogue:
    engine = Engine([RULES.get(conduct, RULES["gate"])], dry_run=conduct == "dry")
    dialogue = Dialogue(engine)
    dialogue.server(b"220 x\r\n")
    return dialogue


def in_text(conduct: str) -> Dialogue:
    """The client's next bytes are a message's."""
    dialogue = greeted(conduct)
    for line, reply in ((b"HELO x", b"250 x"), (b"MAIL FROM:<a@x>", b"250 x"), (b"RCPT TO:<b@x>", b"250 x")):
        assert dialogue.client(line + b"\r\n") == [ACCEPT]
        assert dialogue.server(reply + b"\r\n") == [ACCEPT]
    assert dialogue.client(b"DATA\r\n") == [ACCEPT]
    assert dialogue.server(b"354 x\r\n") == [ACCEPT]
    return dialogue


def early(dialogue: Dialogue, to_server: bool, payload: bytes, gap: int) -> list[int]:
    """A segment that comes before ``gap`` bytes that stand in front of it."""
    return dialogue.send(to_server, ACK | PSH, payload, dialogue.sent[to_server] + gap)


@pytest.mark.parametrize("conduct", CONDUCTS)
def test_a_segment_in_its_turn_is_changed_where_it_has_to_be(conduct: str) -> None:
    denied = by_conduct(watch=[ACCEPT], edit=[ACCEPT], gate=[REPLACE])
    assert greeted(conduct).client(b"EHLO a.example\r\n") == denied[conduct]
    masked = by_conduct(watch=[ACCEPT], edit=[REPLACE], gate=[ACCEPT])
    assert greeted(conduct).client(b"XXXX a.example\r\n") == masked[conduct]


@pytest.mark.parametrize("conduct", CONDUCTS)
def test_a_clients_command_before_its_turn(conduct: str) -> None:
    dialogue = greeted(conduct)
    answers = by_conduct(watch=[ACCEPT], edit=[ACCEPT], gate=[])
    assert early(dialogue, True, b"EHLO x\r\n", 6) == answers[conduct]
    answers = by_conduct(watch=[ACCEPT], edit=[ACCEPT], gate=[ACCEPT, REPLACE])
    assert dialogue.client(b"NOOP\r\n") == answers[conduct]


@pytest.mark.parametrize("conduct", CONDUCTS)
def test_a_clients_text_before_its_turn(conduct: str) -> None:
    dialogue = in_text(conduct)
    answers = by_conduct(watch=[ACCEPT], edit=[ACCEPT], gate=[ACCEPT])
    assert early(dialogue, True, b"two\r\n", 5) == answers[conduct]
    assert dialogue.client(b"one\r\n") == [ACCEPT]


@pytest.mark.parametrize("conduct", CONDUCTS)
def test_a_servers_reply_before_its_turn(conduct: str) -> None:
    dialogue = greeted(conduct)
    dialogue.client(b"NOOP\r\nNOOP\r\n")
    answers = by_conduct(watch=[ACCEPT], edit=[], gate=[])
    assert early(dialogue, False, b"250 b\r\n", 7) == answers[conduct]
    answers = by_conduct(watch=[ACCEPT], edit=[ACCEPT, ACCEPT], gate=[ACCEPT, ACCEPT])
    assert dialogue.server(b"250 a\r\n") == answers[conduct]


@pytest.mark.parametrize("conduct", CONDUCTS)
def test_a_client_that_goes_on_before_the_reply_it_has_to_wait_for(conduct: str) -> None:
    dialogue = greeted(conduct)
    dialogue.client(b"HELO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n")
    answers = by_conduct(watch=[ACCEPT], edit=[ACCEPT], gate=[])
    assert dialogue.client(b"text\r\n") == answers[conduct]
    for _ in range(3):
        assert dialogue.server(b"250 x\r\n") == [ACCEPT]
    answers = by_conduct(watch=[ACCEPT], edit=[ACCEPT], gate=[ACCEPT, ACCEPT])
    assert dialogue.server(b"354 x\r\n") == answers[conduct]


@pytest.mark.parametrize("conduct", CONDUCTS)
def test_bytes_that_have_gone_on_and_are_to_be_changed(conduct: str) -> None:
    dialogue = in_text(conduct)
    assert early(dialogue, True, b"\n.\n", 1) == [ACCEPT]  # an end of data to some servers
    answers = by_conduct(watch=[ACCEPT], edit=[ACCEPT], gate=[DROP, EMIT, EMIT])
    assert dialogue.client(b"x") == answers[conduct]
    assert "data.smuggling_shape" in {finding.name for finding in dialogue.findings}


@pytest.mark.parametrize("conduct", CONDUCTS)
def test_a_command_that_has_gone_on_is_not_restored(conduct: str) -> None:
    dialogue = greeted(conduct)
    early(dialogue, True, b"XXXX a.example\r\n", 6)
    dialogue.client(b"NOOP\r\n")
    assert b"XXXX a.example\r\n" in dialogue.received_by_server


@pytest.mark.parametrize("conduct", CONDUCTS)
def test_a_repetition_that_differs(conduct: str) -> None:
    dialogue = in_text(conduct)
    at = dialogue.sent[True]
    assert dialogue.client(b"first\r\n") == [ACCEPT]
    answers = by_conduct(watch=[ACCEPT], edit=[REPLACE], gate=[REPLACE])
    assert dialogue.send(True, ACK | PSH, b"other\r\n", at) == answers[conduct]
    assert "stream.conflicting_retransmission" in {finding.name for finding in dialogue.findings}
    assert dialogue.received_by_server.endswith(b"other\r\n" if answers[conduct] == [ACCEPT] else b"first\r\nfirst\r\n")
