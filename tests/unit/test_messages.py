"""What an operator is told of a mistake: once, where it is, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfmailguard.config import load
from nfmailguard.errors import ConfigError
from nfmailguard.policy.load import profile_text
from nfmailguard.service import preflight


def told(*settings: str, mode: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(None, settings, mode=mode)
    return [line.removeprefix("configuration: ") for line in raised.value.lines]


@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_a_findings_action_is_set_with_quotes_or_without(quote: str) -> None:
    config = load(None, [f"actions.{quote}command.denied{quote}=drop-connection"])
    assert config.flow_rules()[-1].policy.actions["command.denied"] == "drop-connection"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "foo.bar=1",
            (
                "--set foo.bar: no such section; one of gateway, queue, limits, on, log, syslog, restore, service,"
                " banner, commands, replies, address, data, bugs, actions"
            ),
        ),
        ("banner.sepparator=1", "--set banner.sepparator: no such key; did you mean 'banner.separator'?"),
        ("on.no_listener=maybe", "on.no_listener: maybe; one of pass, drop"),
        ("on.gap=log", "on.gap: log; one of pass, drop, reset"),
        (
            "limits.startup=0",
            'limits.startup: 0; to reset flows older than the start, on.midstream_at_start = "reset"',
        ),
    ],
)
def test_a_mistake_is_told_once_with_what_was_meant(setting: str, said: str) -> None:
    assert told(setting) == [said]


def test_a_finding_that_is_none_is_not_answered_with_all_there_are() -> None:
    (close,) = told("actions.command.denyed=log")
    assert close.endswith("actions.command.denyed: no such finding; did you mean 'command.denied'?")
    (far,) = told("actions.qqq=log")
    assert far.endswith("actions.qqq: no such finding; `nfmailguard profile findings` lists them")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gateway]\nmode = enforce\n", 'line 2: mode = enforce: text needs quotes: mode = "enforce"'),
        ("[log]\neve = /var/log/eve.json # here\n", 'line 2: eve = /var/log/eve.json: text needs quotes: eve = "/var'),
        ("[gateway]\nmode = = \n", "Invalid value (at line 2, column 8)"),
    ],
)
def test_text_without_quotes_is_shown_with_them(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}: {said}")


@pytest.mark.parametrize("port", [465, 993, 995])
def test_where_there_is_no_smtp_nothing_can_be_enforced(port: int, tmp_path: Path) -> None:
    (line,) = told(f"gateway.ports=25,{port}", mode="enforce")
    assert line.startswith(f"gateway.ports: {port} speaks TLS from the first byte on")
    assert load(None, [f"gateway.ports=25,{port}"]).ports() == (25, port)
    assert load(None, [f"gateway.ports=25,{port}"], mode="enforce", dry_run=True).ports() == (25, port)
    path = tmp_path / "mine.toml"
    for rule, wrong in (
        (f'ports = [{port}]\nmode = "monitor"', False),
        (f'ports = [{port}]\nfrom = "192.0.2.1"\nmode = "monitor"', True),
        (f"ports = [{port}]", True),
    ):
        path.write_text(f'[gateway]\nmode = "enforce"\n[[rule]]\n{rule}\n')
        if wrong:
            with pytest.raises(ConfigError, match=f"{port} speaks TLS"):
                load(path)
        else:
            assert port in load(path).ports()


def test_profiles_that_answer_ehlo_with_250_are_named() -> None:
    for profile, named in (("fwsm2", 1), ("pix44", 1), ("pix40", 1), ("pix63", 0), ("asa", 0), ("rfc821", 0)):
        config = load(mode="enforce", profile=profile)
        assert len([line for line in preflight.warnings(config) if "EHLO is answered with 250" in line]) == named, (
            profile
        )
    assert not any("EHLO" in line for line in preflight.warnings(load(mode="monitor", profile="fwsm2")))


def test_profiles_that_end_connections_without_a_word_are_named_with_the_way_out() -> None:
    for profile, named in (("asa", 1), ("asa-tls", 1), ("asa84", 1), ("asa-log", 0), ("pix63", 0)):
        lines = [
            line for line in preflight.warnings(load(mode="enforce", profile=profile)) if "drop-connection" in line
        ]
        assert len(lines) == named, profile
        assert all("`--set actions.recipients.too_many=reset`" in line for line in lines)
    reset = [f"actions.{name}=reset" for name in load(profile="asa").flow_rules()[-1].policy.actions]
    assert not any("drop-conn" in line for line in preflight.warnings(load(None, reset, mode="enforce", profile="asa")))
    assert not any("drop-connection" in line for line in preflight.warnings(load(mode="monitor", profile="asa")))


def test_a_greeting_with_a_time_in_it_is_none_to_restore(tmp_path: Path) -> None:
    path = tmp_path / "restore.toml"
    for banner, named in (("mx Exim 4.96 Sun, 29 Nov 2026 12:00:01 +0000", 1), ("mx ESMTP 1:2", 0)):
        for table in ("[restore]", "[[restore.server]]"):
            path.write_text(f'[gateway]\nmode = "restore"\nprofile = "asa"\n{table}\nbanner = "{banner}"\n')
            lines = [line for line in preflight.warnings(load(path)) if "holds a time" in line]
            assert len(lines) == named, (banner, table)


def test_events_that_go_nowhere_are_told() -> None:
    (note,) = preflight.sink_notes(load())
    assert "events written nowhere" in note
    for target in ("log.eve=-", "syslog.target=journald"):
        assert list(preflight.sink_notes(load(None, [target]))) == []


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("asa", ("STARTTLS is hidden", "Exim delivers twice", "101st recipient")),
        ("asa-tls", ("Postfix does not use it", "101st recipient")),
        ("fwsm2", ("EHLO is answered with 250", "503")),
        ("pix44", ("EHLO is answered with 250", "503")),
        ("pix40", ("EHLO is answered with 250", "503")),
    ],
)
def test_a_profiles_page_says_what_it_does_to_real_clients(profile: str, said: tuple[str, ...]) -> None:
    page = " ".join(line.removeprefix("# ") for line in profile_text(profile).splitlines())
    assert "Real clients: " in page
    assert all(words in page for words in said)


@pytest.mark.sources
def test_the_readme_says_it_too() -> None:
    text = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    assert "`fwsm2`, `pix44` and `pix40` make servers answer 503 to clients that say EHLO" in text
    assert "`asa-tls` gives Postfix no TLS" in text
    assert "actions.recipients.too_many=reset" in text
