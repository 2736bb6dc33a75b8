"""Every signal there is, to a gateway that runs: it goes on and guards, or it has ended and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from queue_router import Router, router_or_skip
from test_gateway import PROGRAM, Gateway, dialogue, tables

from nfmailguard.service.signals import CRASHES

pytestmark = pytest.mark.live

ENDS = {signal.SIGTERM: 0, signal.SIGINT: 0, signal.SIGQUIT: 131, signal.SIGABRT: 134, signal.SIGXCPU: 152}
STOPS = {signal.SIGKILL, signal.SIGSTOP}
GOES_ON = sorted(signal.valid_signals() - ENDS.keys() - CRASHES - STOPS)


@pytest.fixture
def router() -> Iterator[Router]:
    with router_or_skip() as made:
        yield made


def test_all_signals_are_spoken_of() -> None:
    assert {signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPIPE, signal.SIGTSTP, signal.SIGIO} <= set(
        GOES_ON
    )
    assert {*GOES_ON, *ENDS, *CRASHES, *STOPS} == signal.valid_signals()
    assert signal.SIGRTMAX in GOES_ON


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_ends_it_and_nothing_is_left(router: Router, number: int) -> None:
    with Gateway(router, "--mode", "enforce", "--queue", "0-2") as gateway:
        assert gateway.end(number)[0] == ENDS[number]
    assert tables(router) == ""
    with Gateway(router, "--queue", "0-2") as again:
        assert "ready" in again.first_line


def test_all_others_change_nothing(router: Router) -> None:
    with Gateway(router, "--mode", "enforce", "--profile", "pix63") as gateway:
        for number in GOES_ON:
            gateway.process.send_signal(number)
            time.sleep(0.02)
        assert gateway.process.poll() is None
        assert tables(router) == "table inet nfmailguard"
        client, server = dialogue(router, b"EHLO me\r\n")
        assert b"mail" not in client[0]
        assert server == [b"XXXX me\r\n"]
        state = Path(f"/proc/{gateway.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state in "SR"
        assert gateway.end()[0] == 0
    assert tables(router) == ""


@pytest.mark.parametrize("number", sorted(CRASHES))
def test_what_a_crash_leaves_is_taken_away_as_the_unit_does(router: Router, number: int) -> None:
    with Gateway(router, "--mode", "enforce") as gateway:
        assert gateway.end(number)[0] == -number
        assert tables(router) == "table inet nfmailguard"
    remove = [sys.executable, "-m", "nfmailguard", "rules", "remove"]
    assert router.run(router.gateway, lambda: subprocess.run(remove, check=False)).returncode == 0
    assert tables(router) == ""


def test_hup_opens_the_log_files_anew(router: Router, tmp_path: Path) -> None:
    eve, log = tmp_path / "eve.json", tmp_path / "mail.log"
    options = ["--mode", "enforce", "--profile", "asa", "--set", f"log.eve={eve}", "--set", f"syslog.target={log}"]
    with Gateway(router, *options) as gateway:
        moved = [path.rename(path.with_suffix(".1")) for path in (eve, log)]
        dialogue(router, b"EHLO me\r\n")
        time.sleep(0.3)
        gateway.process.send_signal(signal.SIGHUP)
        lines = iter(gateway.read_line, "")
        assert any("log files opened anew" in line for line in lines)
        dialogue(router, b"EHLO again\r\n", b"MAIL FROM:<a|b@example.net>\r\n")
        assert gateway.end()[0] == 0
    assert b"banner.masked" in moved[0].read_bytes()
    events = [json.loads(line) for line in eve.read_text().splitlines()]
    assert {event["event_type"] for event in events} >= {"mailguard", "flow", "stats"}
    assert log.exists()


def test_a_terminal_that_hangs_up_takes_no_gateway_along(router: Router) -> None:
    with Gateway(router, "--mode", "enforce", "--set", "log.stats=0.1") as gateway:
        assert gateway.process.stdout
        assert gateway.process.stderr
        gateway.process.stdout.close()
        gateway.process.stderr.close()
        for _ in range(3):
            gateway.process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
        assert dialogue(router, b"EHLO me\r\n")[1] == [b"XXXX me\r\n"]
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0
        gateway.process.stdout = gateway.process.stderr = None
    assert tables(router) == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_a_signal_while_it_starts_leaves_nothing(router: Router, number: int) -> None:
    command = [*PROGRAM, "--mode", "enforce", "--queue", "0-3"]
    for place in range(6):
        process = router.run(
            router.gateway,
            lambda: subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
        )
        time.sleep(0.1 + place * 0.2)
        process.send_signal(number)
        try:
            process.wait(1 if number in GOES_ON else 30)
        except subprocess.TimeoutExpired:
            assert number in GOES_ON
            process.terminate()
            process.wait(60)
        assert tables(router) == "", place


def begun(prepare: str) -> list[str]:
    """The program, begun by a parent that has prepared the signals."""
    program = f"import os, signal, sys; {prepare}; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    return [sys.executable, "-c", program, *PROGRAM[1:]]


IGNORED = "[signal.signal(one, signal.SIG_IGN) for one in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}]"
BLOCKED = "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"


@pytest.mark.parametrize("prepare", [IGNORED, BLOCKED])
def test_whatever_its_parent_ignored_or_blocked_it_hears_hup_and_term(router: Router, prepare: str) -> None:
    with Gateway(router, "--mode", "enforce", program=begun(prepare)) as gateway:
        gateway.process.send_signal(signal.SIGHUP)
        assert any("log files opened anew" in line for line in iter(gateway.read_line, ""))
        assert dialogue(router, b"EHLO me\r\n")[1] == [b"XXXX me\r\n"]
        assert gateway.end()[0] == 0
    assert tables(router) == ""


def test_begun_in_the_background_it_is_not_ended_by_the_terminals_keys(router: Router) -> None:
    prepare = "[signal.signal(one, signal.SIG_IGN) for one in (signal.SIGINT, signal.SIGQUIT)]"
    with Gateway(router, "--mode", "enforce", program=begun(prepare)) as gateway:
        for number in (signal.SIGINT, signal.SIGQUIT):
            gateway.process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                gateway.process.wait(1)
        assert dialogue(router, b"EHLO me\r\n")[1] == [b"XXXX me\r\n"]
        assert gateway.end()[0] == 0
    assert tables(router) == ""


@pytest.mark.parametrize(("prepare", "code"), [("SIG_IGN", 0), ("SIG_DFL", 128 + signal.SIGHUP)])
def test_a_lab_outlives_its_terminal_under_nohup(prepare: str, code: int) -> None:
    program = f"""if 1:
        import os, signal
        signal.signal(signal.SIGHUP, signal.{prepare})
        os.environ["NFMAILGUARD_PRIVATE"] = "1"
        from nfmailguard.lab.namespaces import enter_private
        enter_private()
        os.kill(os.getpid(), signal.SIGHUP)
    """
    world = ["unshare", "--net", "--mount", "--", sys.executable, "-c", program]
    done = subprocess.run(world, check=False, capture_output=True, text=True, timeout=60)
    if "unshare failed" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert (done.returncode, done.stderr) == (code, "")


def test_one_signal_after_another_ends_it_once(router: Router) -> None:
    with Gateway(router, "--mode", "enforce", "--queue", "0-3") as gateway:
        for _ in range(30):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if gateway.process.poll() is None:
                    os.kill(gateway.process.pid, number)
            time.sleep(0.005)
        _, err = gateway.process.communicate(timeout=60)
        assert (gateway.process.returncode, err) in ((0, ""), (130, ""), (-15, ""), (-1, ""), (-2, ""))
    assert tables(router) == ""
