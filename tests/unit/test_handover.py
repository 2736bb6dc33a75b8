"""What a gateway says to its successor, and what it refuses: without packets."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nfmailguard.cext.drivers.netlink import emit_older, emit_verdict
from nfmailguard.cext.handover import state
from nfmailguard.config import Config, load
from nfmailguard.errors import ConfigError, ControlError, RefusedError
from nfmailguard.events.records import Record
from nfmailguard.events.transactions import Sessions, Transactions
from nfmailguard.reports.standing import taken_over
from nfmailguard.service.changes import fixed_differ, fixed_values
from nfmailguard.service.control import ControlSocket, Request
from nfmailguard.service.handover import RunningGateway, refusal, stage
from nfmailguard.service.leaving import leave
from nfmailguard.service.worker import QueueWorker
from tests.support.dialogue import Dialogue

_SEALS = 0xF
LOOP: dict[str, Any] = {"wall_offset": 1, "core_now": 2, "counters": {"packets": 3}}


def set_to(values: dict[str, str]) -> Config:
    return load(overrides=[f"{key}={value}" for key, value in values.items()])


def test_what_cannot_change_goes_from_one_process_to_another() -> None:
    config = set_to({"queue.length": "100", "limits.memory": "100000000"})
    fixed = json.loads(json.dumps(fixed_values(config)))
    assert fixed_differ(fixed_values(config), fixed) == []
    assert not any(key.startswith(("policy", "log", "on.")) for key in fixed)
    other = set_to({"queue.length": "101", "limits.memory": "100000001", "gateway.hook": "input"})
    assert [line.split()[0] for line in fixed_differ(fixed, fixed_values(other))] == ["gateway.hook", "queue.length"]
    assert fixed_differ(fixed_values(other), fixed)[-1].startswith("limits.memory changed from 100000001 to 100000000")
    assert fixed_differ(fixed, {"queue.\x1b[31m": [1]} | fixed)[0].startswith("queue.\\x1b[31m changed")


def test_a_batch_verdict_differs_from_a_single_one_in_its_type_alone() -> None:
    single, batch = emit_verdict(3, 77, False), emit_older(3, 77)
    assert len(single) == len(batch)
    assert [place for place in range(len(single)) if single[place] != batch[place]] == [4]
    assert batch[4] == 3  # NFQNL_MSG_VERDICT_BATCH


def test_who_may_take_the_queues_and_when() -> None:
    workers: list[QueueWorker] = []
    assert refusal(0, workers, tapped=False, bypassed=False) == ""
    assert refusal(os.geteuid(), workers, tapped=False, bypassed=False) == ""
    assert "user 4711 may not" in refusal(4711, workers, tapped=False, bypassed=False)
    assert "--tap" in refusal(0, workers, tapped=True, bypassed=False)
    assert "bypass" in refusal(0, workers, tapped=False, bypassed=True)
    package = QueueWorker(set_to({"queue.driver": "netfilterqueue"}), load().flow_rules(), 0, None)
    assert "kernel driver" in refusal(0, [package], tapped=False, bypassed=False)


def test_the_state_is_in_a_sealed_file() -> None:
    config = load()
    worker = QueueWorker(config, config.flow_rules(), 0, None)
    worker.standing_of_loop = lambda: LOOP  # type: ignore[method-assign]
    file = stage([worker], {0: config}, {}, {}, 0)
    try:
        assert fcntl.fcntl(file, 1034) == _SEALS
        with pytest.raises(PermissionError):
            os.write(file, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(file, 0)
    finally:
        os.close(file)


class Answering:
    """A gateway's end of the control socket, which answers ``hand-over`` with what ``answer`` has."""

    def __init__(self, folder: Path, answer: dict[str, Any], files: list[int]) -> None:
        self.path = folder / "control.sock"
        self.asked: list[Request] = []
        self.answer, self.files = answer, files
        self.socket = ControlSocket(str(self.path), "", self.take)
        self.socket.start()

    def take(self, request: Request) -> None:
        self.asked.append(request)
        if request.command == "hand-over":
            request.reply_with(self.answer, self.files)
        else:
            request.reply({})


ANSWER: dict[str, Any] = {"pid": 7, "version": "0.0", "queues": [0], "reason": "", "left": 1}


@contextmanager
def predecessor(
    folder: Path, state_file: bytes | None, *, sealed: bool = True, **more: Any
) -> Iterator[RunningGateway]:
    file = os.memfd_create("state", os.MFD_ALLOW_SEALING)
    os.write(file, state_file or b"")
    if sealed:
        fcntl.fcntl(file, 1033, _SEALS)
    with socket.socket() as control, socket.socket() as queue_socket:
        files = [control.fileno(), queue_socket.fileno(), *([file] if state_file is not None else [])]
        answering = Answering(folder, ANSWER | more, files)
        found = RunningGateway(set_to({"service.control": str(answering.path)}))
        try:
            yield found
        finally:
            found.close()
            answering.socket.close()
            os.close(file)


def workers() -> list[QueueWorker]:
    config = load()
    return [QueueWorker(config, config.flow_rules(), 0, None)]


@pytest.mark.parametrize(
    ("octets", "sealed", "words"),
    [
        (b"", True, "its state cannot be read"),
        (b"\0" * 8, True, "its state cannot be read"),
        (b"\xff" * 100, True, "its state cannot be read"),
        ((4).to_bytes(8, "little") + b"null", True, "its state cannot be read"),
        ((9).to_bytes(8, "little") + b'{"pid":1}', True, "its state cannot be read"),
        ((4).to_bytes(8, "little") + b"null", False, "it is not sealed"),
    ],
)
def test_a_file_that_says_nothing_is_no_state(tmp_path: Path, octets: bytes, sealed: bool, words: str) -> None:
    with predecessor(tmp_path, octets, sealed=sealed) as found:
        found.ask()
        assert found.answers
        assert words in found.reason
        assert found.standing(0) is None
        with pytest.raises(ValueError, match=words):
            found.load(workers())


def staged(change: dict[str, Any]) -> bytes:
    """The file of a gateway that has seen nothing, with what is said in it changed."""
    config = load()
    worker = QueueWorker(config, config.flow_rules(), 0, None)
    worker.standing_of_loop = lambda: LOOP  # type: ignore[method-assign]
    file = stage([worker], {0: config}, {"rules": ""}, {}, 0)
    octets = os.pread(file, 1 << 24, 0)
    os.close(file)
    length = int.from_bytes(octets[:8], "little")
    said = json.loads(octets[8 : 8 + length])
    said["queues"][0] |= change
    head = json.dumps(said).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + octets[8 + length :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"rules": {"0": [0, "00"]}}, "its rules mean something else here"),
        ({"rules": {"0": [9, "00"]}}, "index out of range"),
        ({"offset": 1}, "not whole"),
        ({"offset": 1 << 40}, "not whole"),
        ({"size": 100}, "not whole"),
        ({"number": 5}, "5|0"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with predecessor(tmp_path, staged(change)) as found:
        found.ask()
        assert (found.reason, found.answers, found.process) == ("", True, 7)
        if not words:
            assert found.load(workers()) == []
            assert found.standing(0) == LOOP
            return
        with pytest.raises(ValueError, match=words):
            found.load(workers())
        found.does_not_fit("so")
        assert (found.reason, found.standing(0), found.placed) == ("so", None, {})


def test_an_answer_that_makes_no_sense_is_an_error(tmp_path: Path) -> None:
    for answer in ({"queues": [0, 1, 2]}, {"queues": [1]}, {"pid": None}, {"left": "soon"}):
        with (
            predecessor(tmp_path, None, reason="none", **answer) as found,
            pytest.raises(ControlError, match="no sense"),
        ):
            found.ask()


def test_without_a_control_socket_nobody_can_be_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--hand-over"):
        RunningGateway(set_to({"service.control": ""}))
    found = RunningGateway(set_to({"service.control": str(tmp_path / "none.sock")}))
    found.ask()
    assert not found.answers
    assert "no gateway answers" in found.reason


def test_a_request_that_does_not_say_what_it_needs_is_refused(tmp_path: Path) -> None:
    answering = Answering(tmp_path, ANSWER, [])
    try:
        for arguments in ({}, {"fixed": []}, {"fixed": {"queue.length": 3}}):
            request = Request("hand-over", arguments, lambda *_: None, None)  # type: ignore[arg-type]
            with pytest.raises(RefusedError, match="hand-over: "):
                leave(request, queue.SimpleQueue(), [], {}, load(), {}, answering.socket)
    finally:
        answering.socket.close()


def test_the_socket_is_left_to_another_process(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    first = Answering(tmp_path, ANSWER, [])
    listener = os.dup(first.socket.fileno())
    second = ControlSocket(str(first.path), "", first.take, listener=listener)
    first.socket.leave()
    first.socket.close()
    assert first.path.exists()
    second.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(first.path))
        client.sendall(b'{"v":1,"command":"taken"}\n')
        assert b'"ok":true' in client.recv(1000)
    second.close()
    assert not first.path.exists()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), thread


def test_a_mail_under_way_is_told_whole_by_the_writer_that_took_over() -> None:
    dialogue = Dialogue.under(load(profile="asa").flow_rules()[-1].policy)
    said = (
        (False, b"220 m\r\n"), (True, b"EHLO me\r\n"), (False, b"250 m\r\n"), (True, b"MAIL FROM:<a@x>\r\n"),
        (False, b"250 ok\r\n"), (True, b"RCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\n"), (False, b"250 ok\r\n250 ok\r\n"),
        (True, b"DATA\r\n"), (False, b"354 go\r\n"), (True, b"text\r\n.\r\n"), (False, b"250 2.0.0 queued as 7\r\n"),
    )  # fmt: skip
    alone, mails = Transactions(), []
    followed, others = Transactions(), []
    for to_server, octets in said:
        dialogue.say(to_server, octets)
        records = [Record.of(record) for record in dialogue.records]
        dialogue.records.clear()
        for record in records:
            mails += alone.feed(record)
            handed = msgspec.json.decode(msgspec.json.encode(followed.sessions()), type=Sessions)
            successor = Transactions()
            successor.take_over(handed)
            assert successor.octets == followed.octets
            followed = successor
            others += followed.feed(record)
    assert others == mails
    assert [(mail.helo, mail.mail_from, mail.rcpt_to, mail.complete) for mail in mails] == [
        ("me", "a@x", ["b@x", "c@x"], True)
    ]


def test_status_says_from_whom_it_took_over() -> None:
    standing = {"at": 0, "process": 7, "version": "0.1", "flows": 3, "held": 1, "unread": 12}
    assert "taken over from process 7 (nfmailguard 0.1)" in taken_over(standing)
    assert "3 flows, 1 packets held; for 12 ms packets waited" in taken_over(standing)
    assert "and nothing else: it is another's; as after a crash" in taken_over(standing, "it is another's")
    assert state.version()[0] == 1
