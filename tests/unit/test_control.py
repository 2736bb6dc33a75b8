"""The control socket: whoever may ask is answered; whatever else comes costs a line and a moment."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nfmailguard.errors import ControlError, QueueError, RefusedError
from nfmailguard.service import control
from nfmailguard.service.asking import Asking
from nfmailguard.service.control import ControlSocket, Request


def answer(request: Request) -> None:
    if request.command == "echo":
        request.reply(request.arguments)
    elif request.command == "later":
        threading.Timer(0.3, request.reply, ["late"]).start()
    elif request.command == "big":
        request.reply("x" * (4 << 20))
    elif request.command == "events":
        request.follow()
    elif request.command == "known":
        raise QueueError("queue 0: is taken", "stop that")
    elif request.command == "bug":
        raise KeyError("bug")
    else:
        request.fail("no such command")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "control.sock"


@pytest.fixture
def server(path: Path) -> Iterator[ControlSocket]:
    made = ControlSocket(str(path), "", answer)
    made.start()
    yield made
    made.close()
    assert not path.exists()


def link(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(20)
    made.connect(str(path))
    return made


def said(path: Path, octets: bytes) -> list[dict[str, object]]:
    """All that is answered until the connection ends."""
    with link(path) as client:
        client.sendall(octets)
        client.shutdown(socket.SHUT_WR) if not octets.endswith(b"\n") else None
        text = b"".join(iter(lambda: client.recv(65536), b""))
    return [json.loads(line) for line in text.splitlines()]


def test_questions_are_answered_one_after_the_other(server: ControlSocket, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Asking(str(path)) as asking:
        assert asking.ask("echo", a=1) == {"a": 1}
        assert asking.ask("later") == "late"
        assert len(asking.ask("big")) == 4 << 20
        assert asking.ask("echo") == {}
        with pytest.raises(RefusedError, match="no such command"):
            asking.ask("fly")
        with pytest.raises(RefusedError, match="queue 0: is taken\nstop that"):
            asking.ask("known")
        with pytest.raises(RefusedError, match="internal error: KeyError"):
            asking.ask("bug")
    with link(path) as client:
        client.sendall(b'{"v": 1, "command": "later"}\n{"v":1,"command":"echo","b":2}\n')
        lines = client.makefile("rb")
        assert [json.loads(lines.readline())["answer"] for _ in range(2)] == ["late", {"b": 2}]


@pytest.mark.parametrize(
    ("octets", "error"),
    [
        (b"GET / HTTP/1.1\r\n", "no JSON object"),
        (b"\xff\xfe\x00\n", "no JSON object"),
        (b"[" * 4000 + b"\n", "no JSON object"),
        (b"\n", "no JSON object"),
        (b"1\n", "no command"),
        (b'{"v":1,"command":3}\n', "no command"),
        (b'{"command":"echo"}\n', "version 1"),
        (b'{"v":2,"command":"echo"}\n', "version 1"),
        (b'{"v":1,"command":"echo","x":"' + b"x" * 5000 + b'"}\n', "at most 4096 octets"),
    ],
)
def test_what_is_no_request_gets_one_line_and_ends(
    server: ControlSocket, path: Path, octets: bytes, error: str
) -> None:
    (line,) = said(path, octets)
    assert line["ok"] is False
    assert error in str(line["error"])
    with Asking(str(path)) as asking:
        assert asking.ask("echo") == {}


def test_a_line_that_is_not_finished_is_given_up(
    server: ControlSocket, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_PATIENCE", 0.3)
    with link(path) as client:
        client.sendall(b'{"v": 1')
        reply = json.loads(client.makefile("rb").readline())
    assert "ends with a line feed" in reply["error"]


def test_who_asks_and_asks_and_takes_no_answer_keeps_one_waiting(
    server: ControlSocket, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_PATIENCE", 1.0)
    asked = b'{"v": 1, "command": "echo", "of": "%s"}\n' % (b"x" * 2000)
    began = time.monotonic()
    with link(path) as client:
        most = sent = 0
        with suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began < 15:
                client.sendall(asked)
                sent += 1
                most = max(most, *(len(one.waiting) for one in list(server._clients.values())), 0)
        assert time.monotonic() - began < 10  # it was given up
    assert sent > 50
    assert most < 2 * len(asked)


def test_requests_at_once_are_answered_in_their_order_as_the_answers_are_taken(
    server: ControlSocket, path: Path
) -> None:
    count = 3000
    asked = b"".join(b'{"v":1,"command":"echo","n":%d,"of":"%s"}\n' % (n, b"x" * (n % 900)) for n in range(count))
    with link(path) as client:
        sender = threading.Thread(target=client.sendall, args=(asked,))
        sender.start()
        lines = client.makefile("rb")
        for number in range(count):
            assert json.loads(lines.readline())["answer"]["n"] == number
        sender.join()


def test_an_answer_that_comes_an_octet_at_a_time_is_not_waited_for_longer_than_was_said(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def drip() -> None:
            taken, _ = listener.accept()
            with taken, suppress(OSError):
                for _ in range(100):
                    taken.sendall(b"x")
                    time.sleep(0.1)

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        with Asking(str(path), 0.5) as asking, pytest.raises(ControlError, match="does not answer: timed out"):
            asking.ask("status")
        assert 0.4 < time.monotonic() - began < 3
        thread.join()


def test_clients_that_are_stuck_keep_nobody_waiting(
    server: ControlSocket, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_PATIENCE", 0.5)
    stuck = []
    for number in range(200):
        client = link(path)
        client.sendall((b'{"v": 1, "command": "big"}\n', b"{", b"", b'{"v": 1, "command": "events"}\n')[number % 4])
        stuck.append(client)
        if number % 20 == 0:
            began = time.monotonic()
            with Asking(str(path)) as asking:
                assert asking.ask("echo") == {}
            assert time.monotonic() - began < 1
    assert len(server._clients) <= control._MOST_CLIENTS
    for client in stuck:
        client.close()


def test_who_follows_too_slowly_is_told_what_it_lost(server: ControlSocket, path: Path) -> None:
    with link(path) as client:
        client.sendall(b'{"v": 1, "command": "events"}\n')
        lines = client.makefile("rb")
        assert json.loads(lines.readline())["answer"] == {"following": True}
        deadline = time.monotonic() + 20
        while not server._followers:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        one = b'{"event_type":"flow","x":"' + b"x" * 1000 + b'"}\n'
        for _ in range(100):
            server.publish([one] * 100)  # never waits
            time.sleep(0.001)
        got = lost = 0
        client.settimeout(1)
        while got + lost < 10_000:
            try:
                line = json.loads(lines.readline())
            except TimeoutError:
                pytest.fail(f"{got} events came, and of the others {lost} were told")
            got, lost = got + ("event_type" in line), lost + line.get("lost", 0)
        assert got > 500
        assert lost > 0


def test_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    folder = Path("/tmp") / f"nm-control-{os.getpid()}"
    path = folder / "control.sock"
    group = 65533
    made = ControlSocket(str(path), str(group), answer)
    made.start()
    try:
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o660, group)
        path.chmod(0o666)  # only the peer's credentials are left to stand in the way
        program = (
            "import os, socket, sys; os.setgroups([int(g) for g in sys.argv[2:]]); os.setgid(65532); os.setuid(65532)\n"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
            'try: s.sendall(b\'{"v": 1, "command": "echo"}\\n\')\n'
            "except BrokenPipeError: pass\n"
            "print(s.makefile().readline())"
        )
        for groups, ok in (([], False), ([group], True)):
            command = [sys.executable, "-c", program, str(path), *map(str, groups)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
            reply = json.loads(done.stdout)
            assert reply["ok"] is ok
            assert ok or "user 65532 may not ask" in reply["error"]
    finally:
        made.close()
        folder.rmdir()


def test_where_another_listens_or_no_socket_is_nothing_is_replaced(server: ControlSocket, path: Path) -> None:
    with pytest.raises(ControlError, match="another gateway answers there"):
        ControlSocket(str(path), "", answer)
    with Asking(str(path)) as asking:
        assert asking.ask("echo") == {}
    other = path.with_name("file")
    other.write_text("precious")
    with pytest.raises(ControlError, match="is there, and no socket"):
        ControlSocket(str(other), "", answer)
    assert other.read_text() == "precious"
    with pytest.raises(ControlError, match="there is no group 'nobody-here'"):
        ControlSocket(str(path.with_name("third")), "nobody-here", answer)


def test_what_a_crash_left_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    made = ControlSocket(str(path), "", answer)
    made.start()
    with Asking(str(path)) as asking:
        assert asking.ask("echo") == {}
    made.close()


def test_where_nobody_answers_it_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nfmailguard", "status", "--socket", str(tmp_path / "none")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    told = f"nfmailguard: no gateway answers at {tmp_path / 'none'}: No such file or directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)
