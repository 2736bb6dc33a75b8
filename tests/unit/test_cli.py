"""The command line: what it prints, what it exits with, and that an error is one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from nfmailguard import __version__, cli
from nfmailguard.policy.load import profile_names
from nfmailguard.policy.model import CONDITION_OF, CONDITIONS, FINDINGS

DIALOGUE = "S: 220 mail.example.com ESMTP\nC: EHLO me\nS: 500 no\n"


@pytest.fixture(autouse=True)
def _no_configuration_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cli, "DEFAULT_CONFIG", tmp_path / "default.toml")


def said(*arguments: str, given: str | None = None) -> str:
    """Standard output of a command that succeeds."""
    result = CliRunner().invoke(cli.cli, arguments, input=given, prog_name="nfmailguard", catch_exceptions=False)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def ran(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nfmailguard", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, input=given, timeout=30)


def commands(group: object, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [prefix]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*prefix, name))
    return found


@pytest.mark.parametrize("command", commands(cli.cli), ids=" ".join)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    text = said(*command, "--help")
    assert text.startswith(f"Usage: nfmailguard {' '.join(command)}".rstrip())
    assert len(text.splitlines()) > 4
    assert said(*command, "-h") == text


def test_the_version_is_told() -> None:
    assert said("--version") == f"nfmailguard {__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    heavy = ("pyroute2", "rich.console", "scapy", "msgspec", "asyncio", "nfmailguard.cext", "nfmailguard.config")
    code = f"import sys, nfmailguard.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_profiles_are_listed_and_shown() -> None:
    assert [line.split()[0] for line in said("profile", "list").splitlines()] == profile_names()
    assert list(json.loads(said("profile", "list", "--json"))) == profile_names()
    for name in profile_names():
        assert tomllib.loads(said("profile", "show", name))["title"]
        assert json.loads(said("profile", "show", name, "--json"))["name"] == name


def test_every_finding_is_explained() -> None:
    text = said("profile", "findings")
    assert all(f"{finding.name} " in text and finding.meaning in text for finding in FINDINGS[1:])
    assert len(json.loads(said("profile", "findings", "--json"))) == len(FINDINGS) - 1
    assert text.count("decided by on.") == len(CONDITION_OF)


def test_check_says_what_would_run(tmp_path: Path) -> None:
    path = tmp_path / "nfmailguard.toml"
    path.write_text(
        '[gateway]\nmode = "enforce"\nhook = ["input", "output"]\n'
        '[[rule]]\nfrom = "10.0.0.0/8"\nin = "eth1"\nmode = "monitor"\nprofile = "asa"\n'
        "[queue]\nlength = 100\n"
    )
    text = said("check", "-c", str(path), "--queue", "4-5")
    assert text.startswith("enforce pix63, 1 rules before it, queue 4-5, ports 25, hook input,output\n")
    assert "rule 1: from 10.0.0.0/8 in eth1: monitor asa\nevery other flow: enforce pix63\n" in text
    assert "on.queue_full         drop (or pass) " in text
    assert "on.gap                monitor pass, enforce reset (or drop) " in text
    assert "warning: on.queue_full: packets of monitored flows are dropped" in text
    assert "warning: gateway.hook: " in text
    assert "warning: limits.held_packets: lowered to 25" in text
    assert text.endswith(said("rules", "show", "-c", str(path), "--queue", "4-5"))


def test_check_in_json() -> None:
    found = json.loads(said("check", "--mode", "enforce", "--set", "on.no_listener=pass", "--json"))
    assert found["config"]["gateway"]["mode"] == "enforce"
    assert found["warnings"] == ["on.no_listener: packets of enforced flows pass uninspected then"]
    assert "queue flags bypass to 0" in found["ruleset"]
    assert list(found["conditions"]) == list(CONDITIONS)
    assert found["conditions"]["gap"]["actions"] == {"enforce": "reset"}
    assert found["conditions"]["no_listener"]["actions"] == {"every flow": "pass"}


def test_the_usual_configuration_is_found(tmp_path: Path) -> None:
    assert said("check").startswith("monitor pix63, queue 0,")
    (tmp_path / "default.toml").write_text('[gateway]\nmode = "enforce"\nprofile = "asa"\n')
    assert said("check").startswith("enforce asa, queue 0,")
    assert said("check", "-c", os.devnull).startswith("monitor pix63, queue 0,")


def test_flags_and_set_change_the_configuration() -> None:
    options = ["--mode", "enforce", "--profile", "asa", "--queue", "2", "--driver", "netfilterqueue", "--faithful"]
    found = json.loads(said("check", *options, "--dry-run", "--set", "gateway.ports=25,587", "--json"))["config"]
    assert found["queue"]["numbers"] == "2"
    assert found["queue"]["driver"] == "netfilterqueue"
    assert found["gateway"]["ports"] == [25, 587]
    assert found["gateway"]["dry_run"] is found["gateway"]["faithful"] is True


def test_translate_shows_both_sides() -> None:
    text = said("translate", "--profile", "pix63", given=DIALOGUE)
    assert "C: EHLO me\nC> XXXX me\n" in text
    assert "# command.denied EHLO: mask" in text
    stars = said("translate", "--profile", "pix63", "--set", "banner.separator=no", given=DIALOGUE)
    assert "S> 220*****" in stars


def test_translate_changes_nothing_in_monitor_or_a_dry_run(tmp_path: Path) -> None:
    path = tmp_path / "dialogue.txt"
    path.write_text(DIALOGUE)
    for option in (["--mode", "monitor"], ["--dry-run"]):
        text = said("translate", str(path), *option)
        assert "C> " not in text
        assert "# command.denied EHLO" in text
    found = json.loads(said("translate", str(path), "--json"))
    assert found["applied"] is True
    assert found["lines"][1]["seen"] == "XXXX me"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["profile", "show", "pix7"], "profile 'pix7': unknown; one of "),
        (["check", "-c", "/nonexistent/x.toml"], "/nonexistent/x.toml: No such file or directory"),
        (["check", "--set", "queue.lenth=3"], "did you mean 'length'?"),
        (["check", "--set", "banner.separator=perhaps"], "'perhaps'; yes or no"),
        (["check", "--mode", "restore"], "restoring is not part of this version"),
        (["rules", "show", "--queue", "7-3"], "queue.numbers: '7-3'"),
        (["translate", "-", "--set", "actions.command.denied=drop"], "drop is not possible here"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(arguments: list[str], told: str) -> None:
    done = ran(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("nfmailguard: ")
    assert told in done.stderr


def test_every_fault_has_a_line(tmp_path: Path) -> None:
    path = tmp_path / "nfmailguard.toml"
    path.write_text('[queue]\nlength = 0\ncopy_range = 1\n[on]\ngap = "mask"\n[limits]\nflows = -1\n')
    done = ran("check", "-c", str(path))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert all(line.startswith(f"nfmailguard: {path}: ") for line in lines)
    assert [line.split(": ")[2] for line in lines] == ["queue.length", "queue.copy_range", "limits.flows", "on.gap"]


@pytest.mark.parametrize("arguments", [["nonsense"], ["run", "--nonsense"], ["profile", "show"], ["lab", "exec"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    done = ran(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr


def test_a_transcript_that_cannot_be_read_is_told_with_its_line() -> None:
    done = ran("translate", given="S: 220 mail\nnonsense\n")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert ":2: 'nonsense'" in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "nfmailguard", "profile", "findings"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, check=False, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30)
    os.close(writer)
    assert done.stderr == ""


def test_ctrl_c_is_quiet() -> None:
    command = [sys.executable, "-m", "nfmailguard", "translate"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out.strip(), err.strip()) == (130, b"", b"")
