"""No structure of the core is written by more than two modules: its own room, and who fills it in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.writers import Core, writers

pytestmark = pytest.mark.sources

ROOT = Path(__file__).parents[2]

MOST = 2

#: Reads back what was written elsewhere, into every structure there is.
HANDOVER = "handover."

#: What more modules write, and why.
MORE = {
    "core.Core": "the whole state: a field is its own room's, and what Python sets is set in `engine`",
    "core.Counters": "a counter is counted where what it counts happens",
    "flow.table.Flow": "each place and its reason stand in docs/streams.md, which test_every_rule.py holds",
    "tcp.stream.Stream": "as Flow",
    "record.Record": "whoever makes a record fills in what his kind has",
    "wire.packet.QueuedPacket": "each driver fills in the packets it hands over",
    "record.Identity": "a flow's own, that of a packet of none, and those that a record says",
    "events.buffer.Buffer": "whoever has made sure of room writes behind its end",
    "events.session.Mail": "`standing` fills in what the writer before knew of it",
    "events.session.Session": "as Mail; its Community ID is `lines`', who needs it first",
    "events.text.Text": "a list of recipients is linked by who keeps it; as Mail",
}


def too_many(root: Path) -> dict[str, set[str]]:
    return {
        struct: by
        for struct, modules in writers(Core(root)).items()
        if len(by := {module for module in modules if not module.startswith(HANDOVER)}) > MOST
    }


def test_no_structure_is_written_by_more_than_two_modules() -> None:
    found = too_many(ROOT / "cext")
    assert {struct: by for struct, by in found.items() if struct not in MORE} == {}
    assert MORE.keys() - found.keys() == set()


def test_the_writers_are_seen() -> None:
    found = writers(Core(ROOT / "cext"))
    assert len(found) > 70
    assert "memory.accounting" in found["memory.account.Account"]
    assert found["smtp.mime.Mime"].keys() == {"smtp.mime"}
    assert found["smtp.outstanding.Exchange"].keys() == {"smtp.outstanding", "handover.flows"}
    assert {"waiting", "input", "few"} <= found["smtp.outstanding.Exchange"]["smtp.outstanding"]


@pytest.mark.parametrize(
    ("module", "line", "struct"),
    [
        ("tcp.window", "flow.dialogue.exchange.waiting = 0", "smtp.outstanding.Exchange"),
        ("tcp.window", "flow.session.recipients += 1", "smtp.session.Session"),
        ("tcp.reorder", "flow.dialogue.text.mime.counted = flow.dialogue.text.parts.line = 0", "smtp.mime.Mime"),
        ("tcp.reorder", "memset(&flow.dialogue.text.lines, 0, 8)", "smtp.text_lines.TextLines"),
        ("flow.census", "take(&flow.dialogue.command.verb)", "smtp.command_line.CommandLine"),
        ("flow.census", "flow.dialogue.reply.kept.data[0] = 1", "smtp.line.Line"),
        ("flow.census", "flow.dialogue.exchange.few[0] = 1", "smtp.outstanding.Exchange"),
        ("flow.census", "flow.session = other[0].session", "flow.table.Flow"),
    ],
)
def test_a_planted_write_is_found(tmp_path: Path, module: str, line: str, struct: str) -> None:
    shutil.copytree(ROOT / "cext", tmp_path / "cext")
    path = (tmp_path / "cext" / module.replace(".", "/")).with_suffix(".pyx")
    planted = f"cdef void planted(Flow *flow, Flow *other) noexcept nogil:\n    {line}\n"
    path.write_text(f"{path.read_text()}\n\n{planted}")
    assert module not in writers(Core(ROOT / "cext"))[struct] or struct == "flow.table.Flow"
    assert module in writers(Core(tmp_path / "cext"))[struct]


def test_a_third_writer_is_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "cext", tmp_path / "cext")
    path = tmp_path / "cext" / "tcp" / "window.pyx"
    planted = "cdef void planted(Flow *flow) noexcept nogil:\n    flow.dialogue.text.bytes = 0\n"
    path.write_text(f"{path.read_text()}\n\n{planted}")
    assert "tcp.window" in too_many(tmp_path / "cext")["smtp.text.Text"]


def test_what_a_function_makes_for_itself_is_no_write(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "cext", tmp_path / "cext")
    path = tmp_path / "cext" / "tcp" / "window.pyx"
    planted = (
        "cdef bint planted(const Flow *flow) noexcept nogil:\n"
        "    cdef Flow copy = flow[0]\n"
        "    copy.mode = 0\n"
        "    return flow.mode == copy.mode\n"
    )
    path.write_text(f"{path.read_text()}\n\n{planted}")
    assert "tcp.window" not in writers(Core(tmp_path / "cext"))["flow.table.Flow"]
