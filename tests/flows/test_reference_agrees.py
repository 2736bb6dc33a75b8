"""The core against the obvious model, on dialogues from a grammar."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import BugPolicy, Limits, Mode, Policy, UnknownCommand
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.turns import Result, Turn
from tests.flows.grammar import chunk_turns, offer_turns, polite_turns, wild_turns
from tests.support.dialogue import Dialogue

PROFILES = ["pix51", "pix63", "asa"]


def loose(policy: Policy) -> Policy:
    """``policy`` that lets every verb through, so that BDAT, AUTH and STARTTLS are followed."""
    return msgspec.structs.replace(policy, commands=msgspec.structs.replace(policy.commands, allow=("*",)))


def historic(policy: Policy, data: st.DataObject) -> Policy:
    """``policy`` with some of the faults and forms of early releases."""
    bugs = BugPolicy(*(data.draw(st.booleans()) for _ in range(3)))
    form = data.draw(st.sampled_from(list(UnknownCommand)))
    commands = msgspec.structs.replace(policy.commands, unknown=form)
    return msgspec.structs.replace(policy, bugs=bugs, commands=commands)


def core(policy: Policy, turns: list[Turn], mode: Mode) -> Dialogue:
    dialogue = Dialogue.under(policy, mode)
    for turn in turns:
        dialogue.say(turn.to_server, turn.data)
        dialogue.repeat()
    return dialogue


def said(turns: list[Turn], to_server: bool) -> bytes:
    return b"".join(turn.data for turn in turns if turn.to_server is to_server)


def of_core(dialogue: Dialogue) -> list[tuple[bool, int, str, str]]:
    return sorted((f.to_server, f.offset, f.name, f.action) for f in dialogue.findings)


def of_model(result: Result) -> list[tuple[bool, int, str, str]]:
    return sorted((f.to_server, f.offset, f.name, str(f.action)) for f in result.findings)


@pytest.mark.parametrize("profile", PROFILES)
@given(data=st.data())
def test_enforce_delivers_and_reports_what_the_model_says(profile: str, data: st.DataObject) -> None:
    policy = load_profile(profile)
    if data.draw(st.booleans()):
        policy = loose(policy)
    turns = data.draw(wild_turns())
    dialogue, model = core(policy, turns, Mode.ENFORCE), translate(policy, turns)
    assert dialogue.received_by_server == said(model.turns, True)
    assert dialogue.received_by_client == said(model.turns, False)
    assert of_core(dialogue) == of_model(model)


@given(data=st.data())
def test_chunks_and_offers_are_what_the_model_says(data: st.DataObject) -> None:
    policy = load_profile(data.draw(st.sampled_from(PROFILES)))
    if data.draw(st.booleans()):
        policy, turns = loose(policy), data.draw(chunk_turns())
    else:
        turns = data.draw(offer_turns())
    dialogue, model = core(policy, turns, Mode.ENFORCE), translate(policy, turns)
    assert dialogue.received_by_server == said(model.turns, True)
    assert dialogue.received_by_client == said(model.turns, False)
    assert of_core(dialogue) == of_model(model)


@given(data=st.data())
def test_faults_and_forms_of_early_releases_are_what_the_model_says(data: st.DataObject) -> None:
    policy = historic(load_profile(data.draw(st.sampled_from(PROFILES))), data)
    turns = data.draw(wild_turns())
    dialogue, model = core(policy, turns, Mode.ENFORCE), translate(policy, turns)
    assert dialogue.received_by_server == said(model.turns, True)
    assert dialogue.received_by_client == said(model.turns, False)
    assert of_core(dialogue) == of_model(model)


@pytest.mark.parametrize("profile", PROFILES)
@given(data=st.data())
def test_monitor_changes_nothing_and_reports_what_the_model_says(profile: str, data: st.DataObject) -> None:
    policy = load_profile(profile)
    turns = data.draw(wild_turns())
    dialogue, model = core(policy, turns, Mode.MONITOR), translate(policy, turns, apply=False)
    assert dialogue.received_by_server == said(turns, True)
    assert dialogue.received_by_client == said(turns, False)
    assert of_core(dialogue) == of_model(model)


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.MONITOR])
@given(data=st.data())
def test_what_leads_to_nothing_is_counted_as_the_model_counts_it(mode: Mode, data: st.DataObject) -> None:
    policy, most = load_profile(data.draw(st.sampled_from(PROFILES))), data.draw(st.integers(1, 8))
    if data.draw(st.booleans()):
        policy, turns = loose(policy), data.draw(chunk_turns())
    else:
        turns = data.draw(wild_turns())
    dialogue = Dialogue.under(policy, mode, limits=Limits(junk_commands=most))
    for turn in turns:
        dialogue.say(turn.to_server, turn.data)
    model = translate(policy, turns, apply=mode is Mode.ENFORCE, junk_commands=most)
    assert dialogue.received_by_server == said(model.turns, True)
    assert dialogue.received_by_client == said(model.turns, False)
    assert of_core(dialogue) == of_model(model)


@pytest.mark.parametrize("profile", PROFILES)
@given(data=st.data())
def test_segmentation_decides_nothing(profile: str, data: st.DataObject) -> None:
    policy = load_profile(profile)
    turns = data.draw(polite_turns())
    cut: list[Turn] = []
    for turn in turns:
        places = sorted(data.draw(st.sets(st.integers(1, max(1, len(turn.data) - 1)), max_size=5)))
        pieces = [turn.data[a:b] for a, b in zip([0, *places], [*places, len(turn.data)], strict=True)]
        cut += [Turn(turn.to_server, piece) for piece in pieces if piece]
    assert of_core(core(policy, cut, Mode.ENFORCE)) == of_core(core(policy, turns, Mode.ENFORCE))
    assert of_core(core(policy, turns, Mode.ENFORCE)) == of_model(translate(policy, turns))
