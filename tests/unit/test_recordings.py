"""What --record writes: forms that are known, colours that can be read, nothing from outside."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from nfmailguard.cli import cli
from nfmailguard.reports.console import Console, save


@pytest.mark.parametrize("command", ["demo", "compare", "restore", "evade"])
@pytest.mark.parametrize("name", ["x.pdf", "x"])
def test_a_form_that_is_not_written_is_refused_before_anything_is_run(command: str, name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["lab", command, "--record", str(tmp_path / name)])
    assert result.exit_code != 0
    assert "name it .svg, .html or .txt" in str(result.exception)
    assert not (tmp_path / name).exists()


def contrast(first: str, second: str) -> float:
    """WCAG 2.1, 1.4.3, of two colours as #rrggbb."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, bright = sorted((light(first), light(second)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("form", "ground"), [("html", "#ffffff"), ("svg", "#12171d")])
def test_every_colour_can_be_read(form: str, ground: str, tmp_path: Path) -> None:
    console = Console(record=True, file=io.StringIO(), force_terminal=True, width=60)
    for style in ("red", "green", "yellow", "blue", "magenta", "cyan", "white", "bold red", "bold yellow"):
        console.print("text", style=style)
    path = tmp_path / f"x.{form}"
    save(console, path, "title")
    colours = set(re.findall(r"(?:fill|color): ?(#[0-9a-f]{6})", path.read_text())) - {ground}
    assert len(colours) > 5
    assert {colour: contrast(colour, ground) for colour in colours if contrast(colour, ground) < 4.5} == {}


def test_an_svg_asks_no_other_machine_for_a_font(tmp_path: Path) -> None:
    console = Console(record=True, file=io.StringIO(), width=60)
    console.print("text")
    save(console, tmp_path / "x.svg", "title")
    text = (tmp_path / "x.svg").read_text()
    assert re.findall(r"https?://[^\"' )]+", text.replace("http://www.w3.org/2000/svg", "")) in (
        [],
        ["https://www.textualize.io"],
    )
    assert "@font-face" not in text
