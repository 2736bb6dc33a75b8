"""What differs between two configurations, what of it needs a restart, and what the kernel is to do for both."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nfmailguard import config
from nfmailguard.config import Config
from nfmailguard.service.changes import FIXED, Treatment, changes, needs_restart, reaches_further, treatment


def made(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "a.toml"
    path.write_text(text)
    return config.load(path, overrides)


def test_each_key_that_differs_is_told_once(tmp_path: Path) -> None:
    old = made(tmp_path, '[gateway]\nprofile = "pix63"\n[[rule]]\nfrom = ["10.0.0.0/8"]\nmode = "monitor"\n')
    new = made(
        tmp_path,
        '[gateway]\nprofile = "asa"\n[limits]\nidle = 60\n[policy.commands]\nallow = ["HELO"]\n'
        '[[rule]]\nfrom = ["10.0.0.0/8"]\nmode = "enforce"\n[[rule]]\nports = [26]\nprofile = "pix40"\n',
    )
    assert changes(old, new) == [
        "gateway.profile: pix63 -> asa",
        "rule 1.mode: monitor -> enforce",
        "limits.idle: 3600.0 -> 60.0",
        "rule 2.ports: [26]",
        "rule 2.profile: pix40",
        'policy.commands.allow: ["HELO"]',
    ]
    assert changes(old, old) == []


def test_a_profile_s_file_may_have_changed_under_its_name(tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text('[commands]\nallow = ["HELO"]\n')
    old = config.load(None, [], profile=str(profile))
    before = old.flow_rules()
    profile.write_text('[commands]\nallow = ["EHLO"]\n')
    new = config.load(None, [], profile=str(profile))
    assert changes(old, new, before, new.flow_rules()) == ["profile mine: another of that name"]
    assert changes(old, old, before, before) == []


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("queue.numbers=1", "queue.numbers changed from 0 to 1: needs a restart"),
        ("queue.driver=netfilterqueue", "queue.driver changed from kernel to netfilterqueue: needs a restart"),
        ("queue.length=100", "queue.length changed from N to 100: needs a restart"),
        ("gateway.hook=input", 'gateway.hook changed from ["forward"] to ["input"]: needs a restart'),
        ("limits.flows=10", "limits.flows changed from N to 10: needs a restart"),
        ("limits.memory=1000000", "limits.memory changed from N to 1000000: needs a restart"),
        ("limits.cookies=1", "limits.cookies changed from N to 1.0: needs a restart"),
        ("limits.startup=1", "limits.startup changed from N to 1.0: needs a restart"),
        ("limits.event_memory=1", "limits.event_memory changed from N to 1: needs a restart"),
        ("service.control=/x", "service.control changed from /run/nfmailguard/control.sock to /x: needs a restart"),
        ("service.group=mail", 'service.group changed from "" to mail: needs a restart'),
    ],
)
def test_what_needs_a_restart_is_named_with_both_values(setting: str, told: str) -> None:
    old, new = config.load(None), config.load(None, [setting])
    (line,) = needs_restart(old, new)
    assert re.sub("from [0-9.]{4,} to", "from N to", line).startswith(told)
    assert needs_restart(old, old) == []
    key = setting.partition("=")[0]
    assert sum(key == fixed or (fixed.endswith(".") and key.startswith(fixed)) for fixed in FIXED) == 1


@pytest.mark.parametrize(
    "setting",
    [
        *("gateway.mode=enforce", "gateway.profile=asa", "gateway.ports=25,26", "gateway.addresses=10.0.0.1"),
        *(
            "gateway.dry_run=yes",
            "gateway.faithful=yes",
            "limits.idle=9",
            "limits.memory=999999999",
            "limits.log_rate=9",
        ),
        *("limits.held_packets=9", "on.gap=drop", "log.eve=/tmp/x", "log.stats=9", "log.alerts=yes"),
        *("syslog.target=/tmp/x", "syslog.style=pix", "restore.scope=all", "banner.separator=no"),
    ],
)
def test_all_else_changes_while_it_runs(setting: str) -> None:
    old, new = config.load(None), config.load(None, [setting])
    assert needs_restart(old, new) == []
    assert len(changes(old, new)) == 1


def test_a_value_is_shown_in_one_printable_line() -> None:
    old, new = config.load(None), config.load(None, ["log.eve=/tmp/\x1b[31m" + "x" * 200])
    (line,) = changes(old, new)
    assert "\x1b" not in line
    assert len(line) < 120


@pytest.mark.parametrize(
    ("before", "after", "further"),
    [
        ([], [], False),
        ([], ["gateway.ports=25,26"], True),
        (["gateway.ports=25,26"], [], False),
        ([], ["gateway.addresses=10.0.0.1"], False),
        (["gateway.addresses=10.0.0.1"], [], True),
        (["gateway.addresses=10.0.0.0/24"], ["gateway.addresses=10.0.0.1"], False),
        (["gateway.addresses=10.0.0.1"], ["gateway.addresses=10.0.0.0/24"], True),
        (["gateway.addresses=10.0.0.1"], ["gateway.addresses=fd00::1"], True),
        ([], ["gateway.mode=enforce"], False),
    ],
)
def test_more_is_inspected_or_not(before: list[str], after: list[str], further: bool) -> None:
    assert reaches_further(config.load(None, before), config.load(None, after)) == further


def test_the_kernel_does_what_the_strictest_wants() -> None:
    watch, enforce = config.load(None, mode="monitor"), config.load(None, mode="enforce")
    passing = config.load(None, ["on.queue_full=pass"], mode="enforce")
    assert treatment([watch]) == Treatment(bypass=True, fail_open=True, conntrack=False, connections=False)
    assert treatment([enforce]) == Treatment(bypass=False, fail_open=False, conntrack=True, connections=True)
    assert treatment([watch, enforce]) == treatment([enforce, watch]) == treatment([enforce])
    assert treatment([passing]) == Treatment(bypass=False, fail_open=True, conntrack=True, connections=False)
    assert treatment([passing, enforce]) == treatment([enforce])
