"""Restoring: the core against the obvious model, behind and in front of a Mailguard's own work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.policy.load import load_profile, profile_names
from nfmailguard.policy.model import Mode, Offer, Restore, RestoreScope, RestoreSide
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.turns import Turn
from tests.flows.grammar import KEYWORDS, wild_turns
from tests.flows.test_reference_agrees import core, loose, of_core, of_model, said
from tests.support.dialogue import Dialogue
from tests.support.wire import ACK, PSH

MASKED = ["XXXX a", "XXXXXXXX", "XXXX PLAIN AGEAYg==", "NOOP a", "xxxx a.b", "XXXX a b", "XXXX", "XXXX [10.0.0.1]"]
BANNERS = ["220 ****************\r\n", "220 ****2*****0***\r\n", "220 SMTP/cmap ready____\r\n", "220********\r\n"]


@st.composite
def restores(draw: st.DrawFn) -> Restore:
    words = [word for word in draw(st.lists(st.sampled_from(KEYWORDS), max_size=5)) if word]
    banner = draw(st.sampled_from(["", "mail2 ready", "mail2 ready20", "m"]))
    offers = [Offer((), tuple(words), banner)] if draw(st.booleans()) else []
    return Restore(
        draw(st.sampled_from(list(RestoreSide))),
        draw(st.sampled_from(list(RestoreScope))),
        draw(st.booleans()),
        tuple(offers),
    )


@st.composite
def damaged_turns(draw: st.DrawFn, profile: str) -> list[Turn]:
    """A dialogue as a Mailguard leaves it, with lines that look like its work put in."""
    turns = draw(wild_turns())
    if draw(st.booleans()):
        turns[0] = Turn(False, draw(st.sampled_from(BANNERS)).encode())
    lines = draw(st.lists(st.sampled_from(MASKED), max_size=2))
    at = draw(st.integers(1, len(turns)))
    for line in lines:
        turns[at:at] = [
            Turn(True, line.encode() + b"\r\n"),
            Turn(
                False,
                draw(
                    st.sampled_from(
                        [
                            b"250-host\r\n250-STARTTLS\r\n250-AUTH=LOGIN\r\n250 SIZE 3\r\n",
                            b"250 ok\r\n",
                            b"500 no\r\n",
                            b"250-host\r\n250-XXXXXXXA\r\n250 XXXB\r\n",
                            b"250-host\r\n250-XXXXXXXA\r\n250-XA\r\n250 XB\r\n",
                        ]
                    )
                ),
            ),
        ]
    if draw(st.booleans()):
        turns = translate(loose(load_profile(profile)) if draw(st.booleans()) else load_profile(profile), turns).turns
    return [turn for turn in turns if turn.data]


@given(data=st.data())
def test_restore_delivers_and_reports_what_the_model_says(data: st.DataObject) -> None:
    profile = data.draw(st.sampled_from(profile_names()))
    policy, restore = load_profile(profile), data.draw(restores())
    turns = data.draw(damaged_turns(profile))
    dialogue = Dialogue.under(policy, restore=restore)
    for turn in turns:
        dialogue.say(turn.to_server, turn.data)
    model = translate(policy, turns, restore=restore)
    assert of_core(dialogue) == of_model(model)
    assert dialogue.received_by_server == said(model.turns, True)
    assert dialogue.received_by_client == said(model.turns, False)
    assert model.ended is None


@given(data=st.data())
def test_damage_is_told_in_every_mode(data: st.DataObject) -> None:
    profile = data.draw(st.sampled_from(profile_names()))
    policy, turns = load_profile(profile), data.draw(damaged_turns(profile))
    for mode, apply in ((Mode.MONITOR, False), (Mode.ENFORCE, True)):
        assert of_core(core(policy, turns, mode)) == of_model(translate(policy, turns, apply=apply))


@given(data=st.data())
def test_restore_changes_nothing_of_what_nobody_masked(data: st.DataObject) -> None:
    """But for what it hides behind an EHLO it has restored, and there is none."""
    profile = data.draw(st.sampled_from(profile_names()))
    turns = data.draw(wild_turns())
    result = translate(load_profile(profile), turns, restore=data.draw(restores()))
    if not any(finding.name.startswith("restore.") for finding in result.findings):
        kept = zip(result.turns, turns, strict=True)
        assert all(after.data in (b"", before.data) for after, before in kept)


KEEPING = Restore(RestoreSide.CLIENT, offers=(Offer((), (), "mail ready"),))


def in_text(restore: Restore = KEEPING) -> Dialogue:
    dialogue = Dialogue.under(load_profile("pix42"), restore=restore)
    for to_server, octets in ((False, b"220 m\r\n"), (True, b"DATA\r\n"), (False, b"354 go\r\n")):
        dialogue.say(to_server, octets)
    return dialogue


@pytest.mark.parametrize(
    ("first", "kept"),
    [
        (b"text\r\n.", 3),
        (b"text\r\n.\r", 4),
        (b"\r\n.\r", 4),
        (b".", 1),
        (b".\r", 2),
        (b"text\r\n", 0),
        (b"text.", 0),
        (b"text\n.", 0),
        (b"x\r", 0),
    ],
)
def test_an_end_of_data_leaves_in_one_segment(first: bytes, kept: int) -> None:
    """CSCds90792: what begins it waits until its sender repeats it with the rest."""
    dialogue = in_text()
    whole = first + b"\r\n.\r\n"[kept:] if kept else first + b"\r\n.\r\n"
    before = len(dialogue.received_by_server)
    dialogue.send(True, ACK | PSH, first)
    left = len(first) - kept
    assert len(dialogue.received_by_server) == before + left
    assert [f.name for f in dialogue.findings].count("stream.end_kept") == bool(kept)
    dialogue.send(True, ACK | PSH, whole[left:], seq=dialogue.sent[True] + left)
    assert dialogue.received_by_server[before:] == whole


def test_a_sender_that_repeats_no_more_goes_on_after_three_times() -> None:
    dialogue = in_text()
    assert [dialogue.send(True, ACK | PSH, b".") for _ in range(4)] == [[2], [2], [2], [0]]
    dialogue.sent[True] += 1
    dialogue.client(b"\r\n")
    assert dialogue.received_by_server.endswith(b"DATA\r\n.\r\n")


def test_nothing_is_held_back_where_no_greeting_is_restored() -> None:
    dialogue = in_text(Restore(RestoreSide.CLIENT))
    assert dialogue.send(True, ACK | PSH, b"text\r\n.") == [0]


def test_a_repetition_of_what_is_partly_decided_acknowledged_and_ahead_is_honest() -> None:
    dialogue = Dialogue.under(load_profile("pix63"), restore=Restore())
    for to_server, octets in ((False, b"220 m\r\n"), (True, b"NOOP\r\n"), (False, b"250 ok\r\n")):
        dialogue.say(to_server, octets)
    at, said = dialogue.sent[True], b"RSET\r\nDATA\r\nMAI"
    assert dialogue.client(said) == [0]
    dialogue.send(False, ACK)  # all of it
    had = len(dialogue.received_by_server)
    assert dialogue.send(True, ACK | PSH, said, seq=at) != [2]
    del dialogue.received[True][had:]  # the server has them
    dialogue.server(b"250 ok\r\n503 no\r\n")
    dialogue.client(b"L FROM:<a@b>\r\n")
    assert dialogue.emitted == []
    assert "stream.conflicting_retransmission" not in [finding.name for finding in dialogue.findings]
    assert dialogue.received_by_server.endswith(b"L FROM:<a@b>\r\n")


def test_a_held_reply_comes_behind_the_command_that_had_gone_ahead() -> None:
    dialogue = Dialogue.under(load_profile("pix63"), restore=Restore())
    for to_server, octets in ((False, b"220 m\r\n"), (True, b"DATA\r\n"), (False, b"503 no\r"), (True, b"NOOP\r\n")):
        dialogue.say(to_server, octets)
    at = dialogue.sent[False]
    assert dialogue.send(False, ACK | PSH, b"250 ok\r\n", seq=at + 1) == []
    assert dialogue.send(False, ACK | PSH, b"\n", seq=at) == [0, 0]
    assert "reply.unsolicited" not in [finding.name for finding in dialogue.findings]
