"""``lab diff``: two gateways, and a stand-in for a real box behind ``--attach``, told apart by what it does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from nfmailguard.lab import standing
from nfmailguard.lab.dialogues import DIALOGUES
from nfmailguard.lab.plan import row
from nfmailguard.lab.plans import text_named
from nfmailguard.lab.servers import Gateway
from nfmailguard.lab.topology import Topology
from nfmailguard.policy.load import profile_text

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="devices of this machine need root")]

NAME = f"d{os.getpid()}"
#: Ten settings in which the stand-in is not the ASA that it is held against, and the dialogues that show each.
PLANTED = {
    "banner.rule": ('rule = "basa"', 'rule = "b51"', {"greeting.plain", "greeting.lines"}),
    "VRFY": ('"SOML", "VRFY",\n]\nunknown', '"SOML",\n]\nunknown', {"verb.vrfy"}),
    "EXPN": ('"AUTH", "DATA", "EHLO"', '"EXPN", "AUTH", "DATA", "EHLO"', {"verb.expn"}),
    "STARTTLS": ('"HELO", "HELP"', '"HELO", "STARTTLS", "HELP"', {"verb.starttls"}),
    "keyword STARTTLS": ('"ETRN", "PIPELINING"', '"ETRN", "STARTTLS", "PIPELINING"', {"ehlo.starttls"}),
    "keyword DSN": ('"CHECKPOINT", "DSN",', '"CHECKPOINT",', {"ehlo.dsn", "ehlo.lower"}),
    "address.characters": ('characters = ""', 'characters = "|"', {"rcpt.pipe"}),
    "address.brackets": ("brackets = false", "brackets = true", {"mail.unpaired"}),
    "data.filename_length": ("filename_length = 255", "", {"text.file-name"}),
    "address.recipients": ("recipients = 100 ", "# ", {"rcpt.many"}),
}  # fmt: skip
SETTINGS = {
    "banner.rule": "b51",
    "commands.allow": "add EXPN STARTTLS, remove VRFY",
    "replies.keywords": "add STARTTLS, remove DSN",
    "address.characters": "|",
    "address.brackets": "yes",
    "data.filename_length": "none",
    "address.recipients": "none",
}


def planted() -> str:
    text = profile_text("asa")
    for before, after, _ in PLANTED.values():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def nfmailguard(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nfmailguard", "lab", words[0], "--name", NAME, *words[1:]]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=900)


def up(*words: str) -> str:
    done = nfmailguard("up", *words)
    if "cannot make namespaces" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout


class Box:
    """A router with a gateway of its own, at the other end of two devices of this machine."""

    def __init__(self, stack: ExitStack, directory: Path, which: str) -> None:
        self.topology = stack.enter_context(Topology(f"box{os.getpid()}{which}-", plan=row(("box",))))
        self.devices = [f"nfmg{os.getpid() % 100_000}{which}{side}" for side in "ab"]
        self._directory, self._gateway = directory, ExitStack()
        for number, device in enumerate(self.devices, start=101):
            inside = f"box{number}"
            space = self.topology.namespace("box")
            self._ip("link", "add", device, "type", "veth", "peer", "name", inside, "netns", space)
            stack.callback(self._ip, "link", "del", device, check=False)
            self._ip("link", "set", device, "up")
            for command in (
                ["addr", "add", f"10.25.{number}.1/24", "dev", inside],
                ["addr", "add", f"fd25:{number}::1/64", "dev", inside, "nodad"],
                ["link", "set", inside, "up"],
            ):
                self.topology.run("box", ["ip", *command], check=True)
        stack.callback(self._gateway.close)

    @staticmethod
    def _ip(*words: str, check: bool = True) -> None:
        subprocess.run(["ip", *words], check=check, capture_output=True)

    def be(self, profile: str) -> None:
        self._gateway.close()
        options = ("--profile", profile, "--mode", "enforce")
        self._gateway.enter_context(
            Gateway(self.topology, self._directory / f"of-{Path(profile).stem}", *options, host="box")
        )

    def attach(self) -> list[str]:
        return [word for device in self.devices for word in ("--attach", device)]


@contextmanager
def standing_box(directory: Path, which: str = "") -> Iterator[Box]:
    with ExitStack() as stack:
        box = Box(stack, directory, which)
        stack.callback(standing.down, NAME)
        yield box


def as_they_are(devices: list[str]) -> list[str]:
    """All that `ip` says of devices, addresses and routes too, but for counters and whom the kernel numbers how."""
    said = [
        subprocess.run(["ip", "-d", *words], check=True, capture_output=True, text=True).stdout
        for device in devices
        for words in (
            ["address", "show", device],
            ["route", "show", "dev", device],
            ["-6", "route", "show", "dev", device],
        )
    ]
    return [re.sub(r"(valid|preferred)_lft \d+sec", "", one) for one in said]


def given_back(devices: list[str], before: list[str]) -> None:
    deadline = time.monotonic() + 30
    while (now := as_they_are(devices)) != before:
        assert time.monotonic() < deadline, (before, now)
        time.sleep(0.1)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A lab of two gateways under one profile, and the stand-in beside them, which is planted with differences."""
    directory = tmp_path_factory.mktemp("box")
    directory.joinpath("box.toml").write_text(planted())
    directory.joinpath("lab.toml").write_text(text_named("side-by-side").replace("pix63", "asa"))
    with standing_box(directory) as made:
        made.be(str(directory / "box.toml"))
        up(str(directory / "lab.toml"), *made.attach())
        yield made


def test_ten_planted_differences_are_found_and_no_other(box: Box) -> None:
    done = nfmailguard("diff", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["left"], found["right"]) == ("left", box.devices[1])
    shown = {one["dialogue"] for one in found["differences"]}
    assert shown == set().union(*(dialogues for _, _, dialogues in PLANTED.values()))
    assert {key: one["words"].removeprefix(f"{key}: ") for one in found["settings"] for key in one["set"]} == SETTINGS
    assert found["unexplained"] == 0
    assert all(one["settings"] for one in found["differences"])


def test_two_gateways_of_one_profile_do_not_differ(box: Box) -> None:
    done = nfmailguard("diff", "left", "right", "--json")
    assert (done.returncode, json.loads(done.stdout)["differences"]) == (0, [])


def test_the_box_behind_the_devices_does_not_differ_once_it_is_the_same(box: Box) -> None:
    box.be("asa")
    done = nfmailguard("diff")
    count = len(DIALOGUES)
    said = f"left and {box.devices[1]}: 0 of {count} dialogues show a difference"
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, said)
    standing.down(NAME)  # the tests below make labs of that name


def test_what_is_shown_has_both_sides_and_the_setting(tmp_path: Path) -> None:
    up("side-by-side")
    try:
        done = nfmailguard("diff", "-6", "--only", "verb.vrfy", "--only", "greeting.plain")
        assert done.returncode == 1, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "left and right: 2 of 2 dialogues show a difference"
        at = lines.index("verb.vrfy: the verb VRFY")
        assert lines[at + 1 : at + 5] == [
            "    C: VRFY postmaster    right changes it",
            "      left   VRFY postmaster",
            "      right  XXXX postmaster",
            "      explained by commands.allow",
        ]
        assert any(line.startswith("  --set banner.rule=b51 --set 'commands.allow=") for line in lines)
    finally:
        standing.down(NAME)


def test_a_device_is_given_back_as_it_was_however_the_lab_ends(tmp_path: Path) -> None:
    with standing_box(tmp_path, "x") as box:
        subprocess.run(["ip", "addr", "add", "192.0.2.77/32", "dev", box.devices[0]], check=True)
        time.sleep(2.5)  # until its link-local address is done with duplicate address detection
        before = as_they_are(box.devices)
        for end in ("down", "killed"):
            said = up("--gateway", "asa", *box.attach())
            assert f"{box.devices[0]} of this machine, up; client net1 10.25.101.2" in " ".join(said.split())
            talk = subprocess.run(
                [sys.executable, "-m", "nfmailguard", "lab", "talk", "--name", NAME, "--to", "10.25.102.2"],
                check=True, input="EHLO me\nQUIT\n", capture_output=True, text=True, timeout=60,
            ).stdout  # fmt: skip
            assert "S: 250-STARTTLS" in talk  # past the gateway, by the box, which inspects nothing
            again = nfmailguard_named(f"{NAME}-b", *box.attach())
            assert again.returncode == 1
            assert f"{box.devices[0]} is in another lab" in again.stderr
            if end == "down":
                assert standing.down(NAME)
            else:
                os.kill(keeper(), signal.SIGKILL)
            given_back(box.devices, before)


def nfmailguard_named(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nfmailguard", "lab", "up", "--name", name, *words]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)


def keeper() -> int:
    link = standing._connect(NAME)
    assert link is not None
    with link:
        return standing._peer(link)[0]


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("lo", "lo is the loopback device"),
        ("nosuch0", "no device 'nosuch0' on this machine; there are "),
    ],
)
def test_a_device_that_cannot_be_had_is_one_line(device: str, said: str) -> None:
    done = nfmailguard("up", "--attach", device)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert NAME not in standing.names()


def test_a_device_that_is_down_stays_so(tmp_path: Path) -> None:
    with standing_box(tmp_path, "y") as box:
        subprocess.run(["ip", "link", "set", box.devices[0], "down"], check=True)
        done = nfmailguard("up", "--attach", box.devices[0])
        assert f"`ip link set {box.devices[0]} up`" in done.stderr


def test_what_cannot_be_compared_is_one_line_and_exit_2(tmp_path: Path) -> None:
    up("one")
    try:
        done = nfmailguard("diff")
        assert done.returncode == 2
        assert "the paths of this lab are gateway, and it takes two" in done.stderr
        assert nfmailguard("diff", "left", "right").returncode == 2
        assert nfmailguard("diff", "--only", "nosuch").returncode == 2
    finally:
        standing.down(NAME)
