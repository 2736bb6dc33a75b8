"""What is shipped to be installed: it works as it is, and nothing in it is out of date."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from nfmailguard.config import Config, Rule, load
from nfmailguard.policy.model import CONDITIONS, Mode, On, Policy

DEPLOY = Path(__file__).parents[2] / "deploy"
DEFAULT = DEPLOY / "nfmailguard.toml"
TEXT = DEFAULT.read_text()


def structs(kind: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """The sections of a struct: fields that are structs themselves."""
    return {
        field.encode_name: field.type
        for field in msgspec.structs.fields(kind)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
    }


def keys() -> list[tuple[str, str]]:
    """Every key of the configuration with the section it stands in, as the file writes it."""
    found = [
        (section, field.encode_name)
        for section, kind in structs(Config).items()
        for field in msgspec.structs.fields(kind)
    ]
    found += [("gateway", field.encode_name) for field in msgspec.structs.fields(Rule)]
    found += [
        ("policy", f"{section}.{field.encode_name}")
        for section, kind in structs(Policy).items()
        for field in msgspec.structs.fields(kind)
    ]
    return found


def section_text(section: str) -> str:
    return TEXT.partition(f"\n[{section}]\n")[2].partition("\n[")[0]


@pytest.mark.parametrize(("section", "key"), keys())
def test_every_key_is_in_the_default_configuration(section: str, key: str) -> None:
    assert re.search(rf"^(# )?{re.escape(key)} = ", section_text(section), re.MULTILINE)


def test_the_default_configuration_is_the_default() -> None:
    shipped = msgspec.structs.asdict(load(DEFAULT))
    assert shipped.pop("log").eve == "/var/log/nfmailguard/eve.json"
    defaults = msgspec.structs.asdict(load())
    del defaults["log"]
    assert shipped == defaults


def test_the_comments_say_what_each_condition_is_what_enforce_does_and_what_is_legal() -> None:
    said = {
        name: (action, meaning, legal or "pass, drop or reset")
        for name, action, meaning, legal in re.findall(
            r'^(?:# )?(\w+) = "(\w+)" +# (.*?)(?:: ("pass" or "drop"))?$', section_text("on"), re.MULTILINE
        )
    }
    words = {2: '"pass" or "drop"', 3: "pass, drop or reset"}
    assert said == {
        name: (On().action(name, Mode.ENFORCE), spec.meaning, words[len(spec.actions)])
        for name, spec in CONDITIONS.items()
    }


def test_what_stands_in_comments_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "nfmailguard.toml"
    lines = [re.sub(r"^# (?=(\[\[|\w[\w.\"]* = ))", "", line) for line in TEXT.splitlines()]
    path.write_text("\n".join(lines))
    table = tomllib.loads(path.read_text())
    assert table["policy"]["actions"]
    assert len(table["on"]) == len(On.__struct_fields__)
    assert load(path).rule[0].mode is Mode.ENFORCE


def test_check_accepts_it() -> None:
    command = [sys.executable, "-m", "nfmailguard", "check", "-c", str(DEFAULT)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("monitor pix63, queue 0, ports 25, hook forward\n")


@pytest.mark.parametrize(("name", "commands"), [("nfmailguard", 2), ("nfmailguard-exporter", 1)])
def test_systemd_accepts_the_unit(tmp_path: Path, name: str, commands: int) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "nfmailguard"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / f"{name}.service"
    text, found = re.subn(
        r"(?<=[a-z]=)nfmailguard (?=run|rules|exporter)", f"{program} ", (DEPLOY / unit.name).read_text()
    )
    unit.write_text(text)
    assert found == commands
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    told = [line for line in done.stderr.splitlines() if "nfmailguard" in line]
    assert (done.returncode, told) == (0, [])


def test_each_sysctl_has_a_value_and_a_reason() -> None:
    previous = ""
    settings = 0
    for line in (DEPLOY / "90-nfmailguard.conf").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"-?net\.[\w.]+ = \d+", line)
            assert previous.startswith(("#", "net."))
            settings += 1
        previous = line
    assert settings >= 4
