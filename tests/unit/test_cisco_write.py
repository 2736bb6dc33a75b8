"""Policies written as configurations and as profiles: what is read back is what was written."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.policy import dump
from nfmailguard.policy.cisco.read import read
from nfmailguard.policy.cisco.text import Status
from nfmailguard.policy.cisco.write import write
from nfmailguard.policy.load import load_profile, override, profile_names
from nfmailguard.policy.model import Action, Policy
from tests.support.cisco import esmtp_map

OF_A_BOX = [name for name in profile_names() if name != "rfc821"]


def loaded(text: str, name: str) -> Policy:
    with TemporaryDirectory() as folder:
        path = Path(folder, "p.toml")
        path.write_text(text)
        return msgspec.structs.replace(load_profile(str(path)), name=name)


@given(esmtp_map())
def test_import_show_import_is_stable(text: str) -> None:
    (policy,) = read(text).policies
    written = write(policy)
    assert written.lost == ()
    again = read(written.text)
    assert again.policies == (policy,)
    assert not again.of(Status.NOT_HONOURED)
    assert write(again.policies[0]).text == written.text


@given(esmtp_map())
def test_an_imported_policy_is_a_profile(text: str) -> None:
    (found,) = read(text).maps
    assert loaded(dump.render(found.policy, found.sources, ["a head"]), "m") == found.policy


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_can_be_dumped(name: str) -> None:
    policy = load_profile(name)
    assert loaded(dump.render(policy), name) == policy


@given(st.text(), st.text())
def test_any_title_and_comment_can_be_dumped(title: str, note: str) -> None:
    policy = Policy("m", title.encode("utf-8", "replace").decode())
    text = dump.render(policy, {"title": note, "commands.allow": note}, [note]).encode("utf-8", "replace").decode()
    assert loaded(text, "m") == policy


@pytest.mark.parametrize("name", OF_A_BOX)
def test_a_boxs_profile_is_written_as_that_box_and_read_as_that_profile(name: str) -> None:
    written = write(load_profile(name))
    assert written.lost == ()
    found = read(written.text)
    assert found.policies == (load_profile(name),)
    assert not found.of(Status.NOT_HONOURED)
    assert not found.of(Status.ERROR)


@pytest.mark.parametrize("name", ["pix40", "pix51", "pix63", "fwsm2"])
def test_the_seven_verb_profiles_are_a_fixup(name: str) -> None:
    text = write(load_profile(name)).text
    assert ("fixup protocol smtp 25\n" in text) is (name != "pix40")
    assert "policy-map" not in text


def test_what_no_box_can_be_told_is_named() -> None:
    lost = write(load_profile("rfc821")).lost
    assert [line.split(" ")[0] for line in lost] == ["actions.command.too_long", "commands.line_length"]
    settings = {"banner.rule": "b51", "commands.unknown": "noop", "bugs.dot_crlf": "yes", "commands.allow": "*"}
    lost = write(override(load_profile("asa"), settings)).lost
    assert {line.split(" ")[0] for line in lost} >= {
        "banner.rule",
        "commands.unknown",
        "bugs.dot_crlf",
        "commands.allow",
    }
    assert "commands.unknown = noop: not in the text, which says xverb" in lost


@given(st.data())
def test_what_is_not_named_as_lost_is_in_the_text(data: st.DataObject) -> None:
    settings = data.draw(
        st.dictionaries(
            st.sampled_from(["actions.command.denied", "actions.banner.masked", "actions.reply.keyword_masked"]),
            st.sampled_from(["pass", "log", "mask", "reset", "drop-connection"]),
        )
    )
    verbs = data.draw(st.lists(st.sampled_from(["EHLO", "HELO", "STARTTLS", "VRFY", "BDAT", "*"]), max_size=4))
    keywords = data.draw(st.lists(st.sampled_from(["SIZE", "AUTH", "STARTTLS", "CHUNKING"]), max_size=4))
    settings |= {"commands.allow": ",".join(verbs), "replies.keywords": ",".join(keywords)}
    settings["replies.ehlo"] = data.draw(st.sampled_from(["e1", "none"]))
    policy = override(load_profile("asa"), settings)
    written = write(policy)
    (again,) = read(written.text).policies
    lost = {line.split(" ")[0] for line in written.lost}
    if "commands.allow" not in lost:
        assert set(again.commands.allow) == set(policy.commands.allow)
    if not {"replies.keywords", "replies.ehlo"} & lost and settings["replies.ehlo"] == "e1":
        assert set(again.replies.keywords) == set(policy.replies.keywords)
    if "actions.command.denied" not in lost:
        assert again.action("command.denied") is policy.action("command.denied")
    assert not read(written.text).of(Status.ERROR)


@pytest.mark.parametrize("title", ["two\nlines", "a\0b", "  spaces  ", "!", "\x1b[31mred", "# x", ""])
def test_a_title_is_a_description_or_nothing(title: str) -> None:
    policy = msgspec.structs.replace(load_profile("asa"), name="my map", title=title)
    (again,) = read(write(policy).text).policies
    assert again.name == "my_map"
    assert again.title == (" ".join("".join(c if c.isprintable() else " " for c in title).split()) or again.title)
    assert again.action("command.too_long") is Action.DROP_CONNECTION
