"""The command line: what it prints, what it exits with, and that an error is one line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from nfmailguard import __version__, cli
from nfmailguard.cli import common
from nfmailguard.policy.load import profile_names
from nfmailguard.policy.model import CONDITION_OF, CONDITIONS, FINDINGS
from tests.support.cisco import ASA, DEFAULT_MAP

DIALOGUE = "S: 220 mail.example.com ESMTP\nC: EHLO me\nS: 500 no\n"


@pytest.fixture(autouse=True)
def _no_configuration_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(common, "DEFAULT_CONFIG", tmp_path / "default.toml")


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


def test_the_list_of_profiles_says_what_each_release_does(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = dict(line.split(maxsplit=1) for line in said("profile", "list").splitlines())
    assert lines["fwsm2"] == "FWSM 2.x Mailguard; b51; 7 verbs; NOOP; no EHLO"
    assert lines["pix40"].endswith("b40; 7 verbs; XXXXXXXX, 250 OK; no EHLO; dot_crlf; data_bypass")
    found = json.loads(said("profile", "list", "--json"))
    assert found["asa-tls"]["starttls"] == "STARTTLS"
    assert found["pix63"]["greeting"] == "220 ****2*******2020"
    assert found["asa"]["keywords"][0] == "8BITMIME"
    assert found["pix51"]["keywords"] is None
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    table = re.sub(r"\x1b\[[0-9;]*m", "", said("profile", "list"))
    assert re.search(
        r"^ *profile +220 mail2 ESMTP 2020 +verbs +STARTTLS becomes +keywords +faults *$", table, re.MULTILINE
    )
    assert re.search(r"^ *asa-tls +220 \*{16} +16 +STARTTLS +11 pass *$", table, re.MULTILINE)
    assert re.search(r"^ verb +rfc821 +ios-smtp +pix70 +asa-tls +ios-esmtp *$", table, re.MULTILINE)
    assert re.search(r"^ STARTTLS +· +· +· +✓ +· *$", table, re.MULTILINE)
    assert re.search(r"^ VRFY +· +✓ +✓ +✓ +✓ *$", table, re.MULTILINE)


def test_a_configuration_becomes_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "fw.cfg"
    path.write_text(DEFAULT_MAP.replace(" match MIME filename length gt 255\n  drop-connection log\n", ""))
    text = said("profile", "import", str(path))
    assert text.startswith(f"# From {path}, line 1.\n# Lines of mail inspection: 19 honoured, 0 not; 0 others.\n")
    assert re.search(r"^line_length = 512 +# line 8$", text, re.MULTILINE)
    profile = tmp_path / "fw.toml"
    profile.write_text(text)
    assert "policy-map type inspect esmtp fw\n" in said("profile", "show", str(profile), "--cisco")
    assert "match cmd RCPT count gt 100" in said("profile", "show", "asa", "--cisco")


def test_lines_not_honoured_are_named_and_the_exit_code_is_1(tmp_path: Path) -> None:
    path = tmp_path / "fw.cfg"
    path.write_text(DEFAULT_MAP)
    assert ran("profile", "import", str(path)).returncode == 0
    path.write_text(DEFAULT_MAP.replace("MIME filename length gt 255", "mime encoding binary"))
    for options in ([], ["--json"]):
        done = ran("profile", "import", str(path), *options)
        assert done.returncode == 1
        assert done.stderr == (
            f"{path}: line 18: match mime encoding binary: not honoured: MIME parts are not read\n"
            f"{path}: line 19: drop-connection log: not honoured: belongs to line 18\n"
        )
    found = json.loads(done.stdout)
    assert found["maps"][0]["policy"]["commands"]["line_length"] == 512
    assert (len(found["lines"]), found["unrelated"], found["ports"]) == (21, 0, [25])
    assert ran("profile", "show", "rfc821", "--cisco").returncode == 1


def test_of_several_maps_one_is_chosen(tmp_path: Path) -> None:
    done = ran("profile", "import", "-", given=ASA)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nfmailguard: <stdin>: 2 policies; choose with --map: mail-map, partner-map\n"
    done = ran("profile", "import", "-", "--map", "partner-map", given=ASA)
    assert done.returncode == 1
    assert "# It is applied to port 2525-2526 (gateway.ports).\n" in done.stdout
    assert tomllib.loads(done.stdout)["address"]["characters"] == "|`"
    assert "no policy 'x'; one of mail-map" in ran("profile", "import", "-", "--map", "x", given=ASA).stderr


def test_a_fixup_becomes_its_release() -> None:
    text = said("profile", "import", "-", given="PIX Version 6.3(5)\nfixup protocol smtp 25 2525\n")
    assert text.endswith(said("profile", "show", "pix63"))
    assert "# It is applied to port 25, 2525 (gateway.ports).\n" in text
    done = ran("profile", "import", "-", given="hostname fw\nno fixup protocol smtp 25\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "nfmailguard: <stdin>: mail inspection is off: line 2: no fixup protocol smtp 25\n"


def test_a_wrong_line_is_exit_code_2() -> None:
    given = "policy-map type inspect esmtp m\n match cmd verb\n match cmd line length gt x\n"
    done = ran("profile", "import", "-", given=given)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(": ")[2] for line in done.stderr.splitlines()] == ["line 2", "line 3"]
    assert ran("profile", "import", "-", given="\0").stderr.startswith("nfmailguard: <stdin>: line 1: a NUL")


def test_faults_of_a_release_are_warned_of() -> None:
    assert "warning: bugs.dot_crlf, bugs.data_bypass: pix44 has the faults" in said(
        "check", "--mode", "enforce", "--profile", "pix44"
    )
    assert "warning: bugs" not in said("check", "--profile", "pix44")


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


def test_check_says_first_that_nothing_will_be_recorded() -> None:
    lines = said("check").splitlines()
    assert lines[1] == "warning: no event log is configured, so nothing will be recorded: set log.eve"
    assert "nothing will be recorded" not in said("check", "--set", "log.eve=/tmp/x")


def test_counters_that_are_zero_are_shown_where_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.write_text(
        '{"event_type":"stats","timestamp":"2026-11-24T16:20:00.000123+0000","stats":{"packets":3,"fragments":0}}\n'
    )
    assert said("counters", "--events", str(path)).split() == ["3", "packets"]
    assert said("counters", "--events", str(path), "--all").split() == ["3", "packets", "0", "fragments"]


def test_check_in_json() -> None:
    found = json.loads(said("check", "--mode", "enforce", "--set", "on.no_listener=pass", "--json"))
    assert found["config"]["gateway"]["mode"] == "enforce"
    # Others are of the machine: the tests' may have one interface, or bridges.
    configured = [line for line in found["warnings"] if not line.startswith(("interface ", "bridge "))]
    assert configured == ["on.no_listener: packets of enforced flows pass uninspected then"]
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
    assert "# command.denied: mask; the verb EHLO" in text
    stars = said("translate", "--profile", "pix63", "--set", "banner.separator=no", given=DIALOGUE)
    assert "S> 220*****" in stars


def test_translate_changes_nothing_in_monitor_or_a_dry_run(tmp_path: Path) -> None:
    path = tmp_path / "dialogue.txt"
    path.write_text(DIALOGUE)
    for option in (["--mode", "monitor"], ["--dry-run"]):
        text = said("translate", str(path), *option)
        assert "C> " not in text
        assert "# command.denied: would mask; the verb EHLO" in text
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
        (["check", "--set", "restore.scope=some"], "restore.scope: 'some'"),
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


def reading(process: subprocess.Popen[bytes]) -> None:
    """Waits until the program waits for what is written to it."""
    state, asleep, deadline = Path(f"/proc/{process.pid}/stat"), 0, time.monotonic() + 20
    while asleep < 5:  # it may sleep for a moment while it starts
        assert time.monotonic() < deadline
        asleep = asleep + 1 if state.read_text().rpartition(")")[2].split()[0] == "S" else 0
        time.sleep(0.02)


def begun(prepare: str, *arguments: str) -> subprocess.Popen[bytes]:
    """`nfmailguard` in a process of which a parent has prepared the signals."""
    program = f"import os, signal, sys; {prepare}; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", program, "-m", "nfmailguard", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_ctrl_c_is_quiet() -> None:
    with begun("signal.signal(signal.SIGINT, signal.SIG_DFL)", "translate") as process:
        reading(process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out.strip(), err.strip()) == (130, b"", b"")


def test_ctrl_c_is_not_meant_for_what_runs_in_the_background() -> None:
    with begun("signal.signal(signal.SIGINT, signal.SIG_IGN)", "translate") as process:
        reading(process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(b"C: HELO x\n", timeout=20)
    assert (process.returncode, err) == (0, b"")
    assert b"HELO x" in out


@pytest.mark.parametrize(
    "prepare",
    [
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    ],
)
def test_it_can_be_ended_whatever_its_parent_ignored_or_blocked(prepare: str) -> None:
    with begun(prepare, "translate") as process:
        reading(process)
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM


def test_the_end_of_what_it_starts_is_seen_by_a_child_of_one_that_ignores_it() -> None:
    """With SIGCHLD ignored the kernel keeps no exit code, and each looks like a success."""
    program = "import sys; from nfmailguard.cli import cli, main\n"
    program += "import subprocess, click\n"
    program += "@cli.command()\ndef begins(): sys.exit(subprocess.run([sys.executable, '-c', 'exit(7)']).returncode)\n"
    program += "sys.argv[1:] = ['begins']; main()"
    prepare = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    done = subprocess.run([sys.executable, "-c", prepare + program], check=False, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (7, b"")
