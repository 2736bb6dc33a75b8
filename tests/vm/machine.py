"""A Debian in software emulation, and a shell in it.

Promises: one processor and 1 GiB of memory; the image's disk stays as it is, for every machine writes into a file of
its own; no network but its own; what a console would show is in `console.log` beside that file. The first machine of an
image boots, in about a minute, and is kept as a snapshot; those after it go on from there, in seconds. Its clock is set
to the host's.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.vm.image import Image

__all__ = ["Machine", "MachineError", "Said"]

#: Emulated and beside other work, a boot was seen to take from 25 seconds to two minutes.
BOOT = 300.0
_SNAPSHOT = "booted"


class MachineError(RuntimeError):
    """The machine does not boot or does not answer, or a command in it failed that had to succeed."""


class Said(NamedTuple):
    """A command's exit code (124: stopped after its time) and what it printed, on standard output and error."""

    code: int
    text: str

    def __contains__(self, part: object) -> bool:
        return isinstance(part, str) and part in self.text


class _Port:
    """The host's end of the agent's port."""

    def __init__(self, path: Path, alive: Callable[[], bool]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._left = b""
        until = time.monotonic() + 20
        while True:
            try:
                self._socket.connect(str(path))
                return
            except OSError:
                if time.monotonic() > until or not alive():
                    self.close()
                    raise
                time.sleep(0.05)

    def close(self) -> None:
        self._socket.close()

    def send(self, *parts: bytes) -> None:
        self._socket.settimeout(120)
        self._socket.sendall(b"".join(parts))

    def _more(self, until: float) -> None:
        self._socket.settimeout(max(until - time.monotonic(), 0.001))
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the machine has gone")
        self._left += data

    def line(self, until: float) -> list[str]:
        """The words of the next line; TimeoutError when the monotonic clock says ``until``."""
        while b"\n" not in self._left:
            self._more(until)
        line, _, self._left = self._left.partition(b"\n")
        return line.decode(errors="replace").split()

    def take(self, size: int, until: float) -> bytes:
        while len(self._left) < size:
            self._more(until)
        data, self._left = self._left[:size], self._left[size:]
        return data


class Machine:
    """A machine that runs while its ``with`` block does; files of the run are made in ``folder``."""

    def __init__(self, image: Image, folder: Path, snapshot: Path | None = None) -> None:
        """``snapshot``: of an earlier machine, by ``save``, to go on from."""
        self._image = image
        self._folder = folder
        self._snapshot = snapshot or image.disk.with_name(f"booted-{image.kernel.name}.qcow2")
        self._boot = ""
        self._process: subprocess.Popen[bytes]
        self._port: _Port

    def __enter__(self) -> Self:
        disk = self._folder / "disk.qcow2"
        if self._snapshot.exists():
            shutil.copyfile(self._snapshot, disk)
            self._start("-loadvm", _SNAPSHOT)
            self._go_on(self._greeted, self._pinged)
        else:
            command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self._image.disk), str(disk)]
            subprocess.run(command, check=True)
            self._start()
            self._go_on(self._greeted)
            self.settled()
            self.save(self._snapshot)
        self.run(f"date -s @{time.time():.0f}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._port.close()
        self._process.kill()
        self._process.wait()

    def _start(self, *options: str) -> None:
        folder, image = self._folder, self._image
        command = ["nice", "-n", "10", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1G"]
        command += ["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"]
        command += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
        command += ["-append", "root=/dev/vda ro console=ttyS0 quiet mitigations=off"]
        command += ["-drive", f"file={folder}/disk.qcow2,if=virtio,cache=unsafe"]
        command += ["-serial", f"file:{folder}/console.log", "-qmp", f"unix:{folder}/qmp,server=on,wait=off"]
        command += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
        command += ["-chardev", f"socket,id=agent,path={folder}/agent,server=on,wait=off"]
        command += ["-device", "virtserialport,chardev=agent,name=nfmailguard.agent", *options]
        with (folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._port = _Port(folder / "agent", lambda: self._process.poll() is None)
        except OSError as error:
            self._process.kill()
            self._process.wait()
            raise MachineError(f"no machine: {(folder / 'qemu.log').read_text()}") from error

    def _go_on(self, *ways: Callable[[], bool]) -> None:
        """Until the agent has answered, in one of the ways."""
        try:
            if not any(way() for way in ways):
                raise MachineError(f"no answer from the machine: {self.console()}")
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _hello(self, until: float) -> bool:
        try:
            while True:
                words = self._port.line(until)
                if words[:1] == ["hello"] and words[1:] != [self._boot]:
                    self._boot = words[1]
                    return True
        except TimeoutError:
            return False

    def _greeted(self) -> bool:
        return self._hello(time.monotonic() + (2 if "-loadvm" in self._process.args else BOOT))  # type: ignore[operator]

    def _pinged(self) -> bool:
        self._port.send(b"ping\n")
        return self._hello(time.monotonic() + 30)

    def _monitor(self, line: str) -> None:
        """A command of qemu's monitor; MachineError where it says anything."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(120)
            monitor.connect(str(self._folder / "qmp"))
            with monitor.makefile("rw") as lines:
                lines.readline()
                for command, arguments in (
                    ("qmp_capabilities", {}),
                    ("human-monitor-command", {"command-line": line}),
                ):
                    lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                    lines.flush()
                    answer = {"event": ""}
                    while "event" in answer:
                        answer = json.loads(lines.readline())
                    if answer.get("return") not in ("", {}):
                        raise MachineError(f"{line}: {answer}")

    def save(self, path: Path) -> None:
        """The machine as it is now, disk and memory, as the file ``path``."""
        self.run("sync")
        self._monitor(f"savevm {_SNAPSHOT}")
        shutil.copyfile(self._folder / "disk.qcow2", path)

    def console(self) -> str:
        """The end of what the machine's console shows."""
        return (self._folder / "console.log").read_text(errors="replace")[-3000:]

    def _reply(self, seconds: float) -> Said:
        until = time.monotonic() + seconds
        try:
            while (words := self._port.line(until))[:1] == ["hello"]:
                pass
            return Said(int(words[0]), self._port.take(int(words[1]), until).decode(errors="replace"))
        except (TimeoutError, ConnectionError) as error:
            raise MachineError(f"the machine does not answer ({error}): {self.console()}") from error

    def put(self, data: bytes, path: str) -> None:
        """``data`` becomes the file ``path``."""
        self._port.send(f"put {len(data)} {path}\n".encode(), data)
        if (said := self._reply(120)).code:
            raise MachineError(f"{path}: {said.text}")

    def ask(self, script: str, seconds: float = 120) -> Said:
        """What bash says to ``script``, whatever its exit code; it is stopped after ``seconds``."""
        data = script.encode()
        self._port.send(f"run {len(data)} {seconds:.0f}\n".encode(), data)
        return self._reply(seconds + 30)

    def run(self, script: str, seconds: float = 120) -> str:
        """What ``script`` prints; a command of it that fails is a MachineError."""
        said = self.ask(f"set -e\n{script}", seconds)
        if said.code:
            raise MachineError(f"exit {said.code}: {script}\n{said.text}")
        return said.text

    def eventually(self, script: str, seconds: float = 60) -> float:
        """Until ``script`` exits with 0, asked again twice a second; after how many seconds it did."""
        said = self.ask(
            f"ask() {{\n{script}\n}}\nfor try in $(seq {2 * seconds:.0f}); do\n"
            "    ask && { echo; echo $SECONDS; exit 0; }; sleep 0.5\ndone\nexit 1",
            seconds * 3 + 30,
        )
        if said.code:
            raise MachineError(f"not in {seconds:.0f} seconds: {script}\n{said.text[-3000:]}")
        return float(said.text.split()[-1])

    def settled(self) -> str:
        """What systemd says the system's state is, once it has started."""
        return self.ask("systemctl is-system-running --wait", BOOT).text.strip()

    def reboot(self) -> None:
        """Down and up again, by systemd; returns when the agent runs, at the end of the boot."""
        script = b"systemctl reboot"
        self._port.send(f"run {len(script)} 60\n".encode(), script)  # its answer may come, or not
        if not self._hello(time.monotonic() + BOOT):
            raise MachineError(f"does not come back: {self.console()}")
