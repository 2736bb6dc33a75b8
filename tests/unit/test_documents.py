"""Pages say what is so: each command in them is one, and prints what the page says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from nfmailguard.cli import cli
from tests.support.documents import Step, commands, differs, steps

pytestmark = pytest.mark.sources

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "deploy" / "README.md"]
#: Where nothing but the program is needed; the tutorial's is in tests/live.
OFFLINE = [ROOT / "README.md", ROOT / "docs" / "verify.md", ROOT / "docs" / "events.md"]


def place(tmp_path: Path) -> dict[str, str]:
    """A folder with the examples, and an environment in which the program is found."""
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "examples")
    program = tmp_path / "bin" / "nfmailguard"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m nfmailguard "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C.UTF-8", "COLUMNS": "100", "TZ": "UTC"}


def ran(step: Step, where: Path, environment: dict[str, str]) -> str:
    argv = ["bash", "-c", f"exec 2>&1; {step.command}"]
    done = subprocess.run(argv, check=False, cwd=where, env=environment, stdout=subprocess.PIPE, text=True, timeout=120)
    return done.stdout


@pytest.mark.parametrize("page", OFFLINE, ids=lambda path: path.name)
def test_what_a_page_says_is_printed(page: Path, tmp_path: Path) -> None:
    environment = place(tmp_path)
    for step in steps(page.read_text()):
        assert differs(step.lines, ran(step, tmp_path / "examples", environment)) == "", step.command


def test_the_readme_shows_something() -> None:
    assert sum(bool(step.lines) for step in steps((ROOT / "README.md").read_text())) >= 2


def parsed(line: str) -> None:
    """Raises what click raises for a command or an option that there is not."""
    words = shlex.split(line)[1:]
    command: click.Command = cli
    context = click.Context(cli, **cli.context_settings)  # click keeps the help option it makes of them
    while isinstance(command, click.Group):
        name, command_found, words = command.resolve_command(context, words)
        assert command_found is not None
        command = command_found
        context = click.Context(command, info_name=name, parent=context)
    if "-h" in words or "--help" in words:
        return
    command.make_parser(context).parse_args(list(words))
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = [word.partition("=")[0] for word in words[: words.index("--") if "--" in words else None]]
    assert {word for word in given if re.fullmatch(r"-[a-zA-Z]|--[a-z-]+", word)} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_of_a_page_is_one(page: Path) -> None:
    for line in commands(page):
        try:
            parsed(line)
        except (click.ClickException, AssertionError, ValueError) as error:
            pytest.fail(f"{page.name}: {line}: {error}")


def test_a_command_that_is_none_is_found() -> None:
    for line in ("nfmailguard nosuch", "nfmailguard lab up --nosuch", "nfmailguard lab nosuch", "nfmailguard check -q"):
        with pytest.raises((click.ClickException, AssertionError)):
            parsed(line)


def test_what_is_printed_is_compared() -> None:
    assert differs(("a", "...", "d...e"), "a\nb\nc\ndxxe\n") == ""
    assert differs(("a", "..."), "b\n") != ""
    assert differs(("a",), "a\nb\n") != ""
    assert differs((), "a\n") != ""


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_help_shows_commands_that_are_some() -> None:
    def walk(command: click.Command, path: str) -> None:
        for line in (command.help or "").splitlines():
            for part in re.split(r" ?\| ", line.strip()):
                if part.startswith("nfmailguard "):
                    parsed(re.split(r" {2,}| > ", part)[0])
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                walk(inner, f"{path} {name}")

    walk(cli, "nfmailguard")
