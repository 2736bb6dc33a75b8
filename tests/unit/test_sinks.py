"""Log sinks when nobody reads, the disk is full, or what they write to has gone: counted, and never waited for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nfmailguard.cext.drivers.tap import TapWriter
from nfmailguard.errors import ConfigError
from nfmailguard.events import sinks
from nfmailguard.events.sinks import FileSink, open_sink
from nfmailguard.events.syslog import open_syslog
from nfmailguard.events.targets import Format

LINES = [b"%05d" % number + b"x" * 94 + b"\n" for number in range(2000)]


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def reader(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def all_read(fd: int) -> bytes:
    found = b""
    while True:
        try:
            octets = os.read(fd, 1 << 16)
        except BlockingIOError:
            return found
        if not octets:
            return found
        found += octets


def test_a_pipe_without_a_reader_is_opened_and_tried_again(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "_AGAIN", 0.0)
    sink = FileSink(fifo)
    sink.write(LINES[:3])
    assert (sink.lost, sink.failure) == (3, f"log.eve: {fifo}: it is gone, or nobody reads it")
    fd = reader(fifo)
    sink.write(LINES[3:5])
    assert (all_read(fd), sink.lost) == (b"".join(LINES[3:5]), 3)
    os.close(fd)
    sink.write(LINES[5:7])
    assert sink.lost == 5
    fd = reader(fifo)
    sink.write(LINES[7:8])
    assert (all_read(fd), sink.lost) == (LINES[7], 5)
    os.close(fd)
    sink.close()


def test_a_reader_that_does_not_read_is_waited_for_once_and_loses_whole_lines(fifo: Path) -> None:
    fd = reader(fifo)
    sink = FileSink(fifo)
    began = time.monotonic()
    for _ in range(20):
        sink.write(LINES)
    assert time.monotonic() - began < 3
    read = all_read(fd)
    sink.write(LINES[:10])
    read += all_read(fd)
    whole = [line for line in read.split(b"\n") if len(line) == 99]
    assert len(whole) + sink.lost == 20 * len(LINES) + 10
    assert read.endswith(b"".join(LINES[:10]))
    assert all(len(line) <= 99 for line in read.split(b"\n"))
    os.close(fd)
    sink.close()


def test_a_full_disk_is_counted() -> None:
    sink = FileSink(Path("/dev/full"))
    sink.write(LINES[:7])
    assert (sink.lost, sink.failure) == (7, "log.eve: /dev/full: No space left on device")
    sink.close()


def test_a_file_that_was_removed_is_made_anew_and_without_its_folder_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "_AGAIN", 0.0)
    path = tmp_path / "log" / "eve.json"
    path.parent.mkdir()
    sink = FileSink(path)
    path.unlink()
    sink.write(LINES[:2])
    assert (path.read_bytes(), sink.lost) == (b"".join(LINES[:2]), 0)
    path.unlink()
    path.parent.rmdir()
    sink.write(LINES[:4])
    assert sink.lost == 4
    path.parent.mkdir()
    sink.write(LINES[4:5])
    assert (path.read_bytes(), sink.lost) == (LINES[4], 4)
    sink.close()


def test_an_unfinished_line_ends_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    program = (
        "import resource, signal, sys; from pathlib import Path; from nfmailguard.events.sinks import FileSink\n"
        "sink = FileSink(Path(sys.argv[1])); resource.setrlimit(resource.RLIMIT_FSIZE, (250, 1000))\n"
        "sink.write([b'x' * 99 + b'\\n'] * 4)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); sink.write([b'y\\n']); print(sink.lost)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout == "2\n"
    assert path.read_bytes().split(b"\n") == [b"x" * 99, b"x" * 99, b"x" * 50, b"y", b""]


def test_what_another_process_left_torn_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    for before, between in ((b'{"a":1}\n{"b"', b"\n"), (b'{"a":1}\n', b""), (b"", b"")):
        path.write_bytes(before)
        sink = FileSink(path)
        sink.write([b"{}\n"])
        sink.close()
        assert path.read_bytes() == before + between + b"{}\n"


def test_a_file_that_is_cut_while_its_last_line_is_torn_begins_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.write_bytes(b"torn")
    sink = FileSink(path)
    os.truncate(path, 0)
    sink.write([b"{}\n"])
    assert path.read_bytes() == b"{}\n"
    sink.close()


def test_a_file_that_was_moved_away_is_followed_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, moved = tmp_path / "eve.json", tmp_path / "eve.json.1"
    sink = FileSink(path)
    sink.write(LINES[:1])
    path.rename(moved)
    sink.write(LINES[1:2])
    assert not path.exists()
    monkeypatch.setattr(sinks, "_AGAIN", 0.0)
    sink.write(LINES[2:3])
    assert (moved.read_bytes(), path.read_bytes()) == (b"".join(LINES[:2]), LINES[2])
    other = tmp_path / "other"
    other.write_bytes(b"")
    other.rename(path)
    sink.write(LINES[3:4])
    assert (path.read_bytes(), sink.lost) == (LINES[3], 0)
    sink.close()


def test_why_nothing_is_taken_is_known_until_it_is_taken_again(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "_AGAIN", 0.0)
    sink = FileSink(fifo)
    assert sink.trouble is None
    sink.write(LINES[:1])
    assert sink.trouble == f"{fifo}: it is gone, or nobody reads it; events are lost"
    fd = reader(fifo)
    sink.write(LINES[:1])
    assert sink.trouble is None
    os.close(fd)
    sink.close()


def test_a_server_that_is_not_there_is_known_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    syslog = open_syslog(f"unix://{path}", facility="local4", host="", form=Format.RFC3164)
    syslog.look()
    assert syslog.trouble == f"unix://{path}: No such file or directory; log lines would be lost"
    syslog.close()


def event(kind: str, size: int = 100) -> bytes:
    return b'{"event_type":"%s","x":"' % kind.encode() + b"x" * size + b'"}\n'


def test_what_is_lost_is_counted_by_kind_and_findings_wait_for_another_try(fifo: Path) -> None:
    sink = FileSink(fifo)
    lines = [event("smtp"), event("mailguard"), event("flow"), event("health"), event("stats"), event("smtp")]
    sink.write(lines)
    assert sink.trouble
    assert sink.lost == 4
    assert +sink.lost_by_kind == {"smtp": 2, "flow": 1, "stats": 1}
    fd = reader(fifo)
    sink.reopen()
    sink.write([event("alert")])
    assert all_read(fd) == event("mailguard") + event("health") + event("alert")
    assert (sink.lost, sink.trouble) == (4, None)
    os.close(fd)
    sink.close()
    assert sink.lost == 4


def test_findings_that_wait_are_bounded_and_lost_when_there_is_no_other_try() -> None:
    sink = FileSink(Path("/dev/full"))
    for _ in range(5):
        sink.write([event("mailguard", 1000), event("smtp")] * 1000)
    waiting = (1 << 20) // len(event("mailguard", 1000))
    assert sink.lost == 10_000 - waiting
    assert +sink.lost_by_kind == {"mailguard": 5000 - waiting, "smtp": 5000}
    sink.close()
    assert sink.lost == 10_000
    assert +sink.lost_by_kind == {"mailguard": 5000, "smtp": 5000}


def test_a_finding_that_went_in_part_is_written_again_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    program = (
        "import resource, sys; from pathlib import Path; from nfmailguard.events.sinks import FileSink\n"
        "sink = FileSink(Path(sys.argv[1])); resource.setrlimit(resource.RLIMIT_FSIZE, (150, 9000))\n"
        "line = b'{\"event_type\":\"mailguard\"}' + b' ' * 71 + b'\\n'\n"
        "sink.write_block(memoryview(line * 3), 3)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); sink.write([b'y\\n']); print(sink.lost)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout == "0\n"
    first, torn, second, third, last, rest = path.read_bytes().split(b"\n")
    assert (first, second, third, last, rest) == (first, first, first, b"y", b"")
    assert first.startswith(torn)
    assert len(torn) < len(first)


@pytest.mark.parametrize("name", ["", "nowhere/eve", "a\0b"])
def test_what_is_no_file_is_told_at_the_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"log\.eve: "):
        open_sink(str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"syslog\.target: "):
        open_syslog(str(tmp_path / name), facility="local4", host="", form=Format.RFC3164)


def test_a_tap_waits_for_no_reader(fifo: Path) -> None:
    with pytest.raises(OSError, match="No such device or address"):
        TapWriter(str(fifo), None)


def test_a_standard_output_that_nobody_reads_holds_nothing_up() -> None:
    program = (
        "import time; from nfmailguard.events.sinks import StandardOutput\n"
        "sink = StandardOutput(); began = time.monotonic()\n"
        "for _ in range(10): sink.write([b'x' * 999 + b'\\n'] * 500)\n"
        "import sys; print(sink.lost, time.monotonic() - began, file=sys.stderr)\n"
    )
    came, goes = os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=goes, stderr=subprocess.PIPE, text=True, timeout=30
    )
    lost, took = done.stderr.split()
    assert int(lost) > 4900
    assert float(took) < 5
    os.close(came)
    os.close(goes)
