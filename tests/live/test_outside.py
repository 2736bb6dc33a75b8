"""Outside opinions, live through the gateway: what scanners, mail software and Cisco's own test steps say of it.

The patterns and steps are others', as published; who says what stands beside each.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nfmailguard.lab.clients import Client
from nfmailguard.lab.postfix import Postfix, installed
from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import CLIENT, SERVER, Topology
from nfmailguard.policy.load import profile_names
from tests.live.test_mail import is_real_root, letter
from tests.support.listening import serving

pytestmark = pytest.mark.live

#: Rapid7's recog, smtp_banners.xml and smtp_expn/help/vrfy/ehlo.xml: of a greeting behind "220 ", and of replies.
RECOG_PIX = re.compile(r"^[\*20 ]{1,1000}$")
RECOG_PIX_4 = re.compile(r"^SMTP/cmap ready_+$")
RECOG_EHLO_HELP = re.compile(r'^500[ -]Syntax error, command "XXXX" unrecognized$')
RECOG_EXPN_VRFY = re.compile(r'^500[ -]Syntax error, command "XXXX.*" unrecognized$')
#: nmap's nmap-service-probes, what it says of the whole first line.
NMAP_PIX = "Cisco PIX sanitized smtpd"


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with Topology(f"no{os.getpid()}-") as made:
        yield made


def answer(line: str, *, refusal: str) -> str:
    """What sendmail says, of the years these boxes are of: HELP is 214, DATA wants recipients."""
    verb = line.split(" ", maxsplit=1)[0].upper()
    known = {
        "HELO": "250 mail.example.com Hello, pleased to meet you",
        "HELP": "214-This is Sendmail version 8.9.3\r\n214 End of HELP info",
        "NOOP": "250 OK",
        "RSET": "250 Reset state",
        "DATA": "503 Need MAIL command",
        "QUIT": "221 mail.example.com closing connection",
    }
    return known.get(verb, refusal.format(line))


@contextmanager
def sendmail(topology: Topology, refusal: str = '500 Command unrecognized: "{}"') -> Iterator[None]:
    """A server that reads lines and answers; as many connections as come, one at a time."""
    with topology.enter(SERVER):
        listener = socket.create_server((topology.address(SERVER), 25))

    def talk(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines, suppress(ConnectionError):
            connection.sendall(b"220 mail.example.com ESMTP Sendmail 8.9.3/8.9.3; Tue, 19 Mar 2002 11:15:23\r\n")
            for line in lines:
                reply = answer(line.decode("latin-1").rstrip("\r\n"), refusal=refusal)
                connection.sendall(reply.encode("latin-1") + b"\r\n")
                if reply.startswith("221"):
                    break

    with serving(listener, talk):
        yield


def enforcing(topology: Topology, directory: Path, profile: str, *settings: str) -> Gateway:
    options = [option for setting in settings for option in ("--set", setting)]
    return Gateway(topology, directory, "--mode", "enforce", "--profile", profile, *options)


def ask(topology: Topology, *lines: str) -> list[str]:
    """The greeting and the replies to ``lines``, a string each."""
    with topology.enter(CLIENT), Client(topology.address(SERVER)) as client:
        said = [client.greeting, *(client.command(line) for line in lines)]
        client.command("QUIT")
    return [reply.octets.decode("latin-1").rstrip("\r\n") for reply in said]


@pytest.mark.parametrize("profile", profile_names())
def test_recog_knows_the_greeting_of_a_pix_and_no_other(topology: Topology, tmp_path: Path, profile: str) -> None:
    with sendmail(topology), enforcing(topology, tmp_path / "gateway", profile):
        [greeting] = ask(topology)
    text = greeting[4:]
    assert bool(RECOG_PIX_4.match(text)) is (profile in ("pix40", "pix42"))
    assert bool(RECOG_PIX.match(text)) is (
        profile in ("pix44", "pix51", "pix63", "fwsm2", "pix70", "asa", "asa-log", "asa-tls", "asa84")
    )


@pytest.mark.parametrize("profile", ["pix42", "pix51", "pix63", "rfc821"])
def test_recog_knows_the_replies_of_a_server_behind_a_pix(topology: Topology, tmp_path: Path, profile: str) -> None:
    with (
        sendmail(topology, 'Syntax error, command "{}" unrecognized'.join(["500 ", ""])),
        enforcing(topology, tmp_path / "gateway", profile, "bugs.data_bypass=no"),
    ):
        _, ehlo, expn, vrfy = ask(topology, "EHLO", "EXPN root", "VRFY root")
    assert RECOG_EHLO_HELP.match(ehlo), ehlo
    assert RECOG_EXPN_VRFY.match(expn), expn
    assert RECOG_EXPN_VRFY.match(vrfy), vrfy


@pytest.mark.parametrize("profile", ["pix44", "pix51", "pix70", "pix40", "ios-esmtp"])
def test_nmap_says_pix_of_starred_greetings_only(topology: Topology, tmp_path: Path, profile: str) -> None:
    if subprocess.run(["which", "nmap"], capture_output=True, check=False).returncode:
        pytest.skip("no nmap here; apt-get install nmap")
    with MailServer(topology, tmp_path / "mail"), enforcing(topology, tmp_path / "gateway", profile):
        # PIX is said of a greeting alone (nmap's NULL probe): the rarer probes would only be waited for.
        command = ["nmap", "-sV", "--version-intensity=1", "-Pn", "-n", "-p25", topology.address(SERVER)]
        scan = topology.run(CLIENT, command, capture_output=True, text=True)
    assert "25/tcp open" in scan.stdout
    assert (NMAP_PIX in scan.stdout) is profile.startswith(("pix44", "pix5", "pix7")), scan.stdout


@pytest.mark.parametrize(
    ("profile", "settings", "vulnerable"),
    [
        ("pix42", ("bugs.noop_body=no",), True),
        ("pix42", ("bugs.noop_body=no", "bugs.data_bypass=no"), False),
        ("pix44", (), True),
        ("pix51", (), False),
        ("pix63", (), False),
        ("pix63", ("bugs.data_bypass=yes",), True),
        ("asa", (), False),
        ("rfc821", (), False),
    ],
)
def test_nessus_10520_finds_cve_2000_1022_where_the_bug_is(
    topology: Topology, tmp_path: Path, profile: str, settings: tuple[str, ...], vulnerable: bool
) -> None:
    """Its steps: HELP is refused (500, or what a masked one becomes); DATA, which is refused; HELP again is not."""
    with sendmail(topology), enforcing(topology, tmp_path / "gateway", profile, *settings):
        _, first, data, second = ask(topology, "HELP", "DATA", "HELP")
    if profile == "asa":
        assert first.startswith("214"), "HELP is one of its fifteen commands: there is nothing to get past"
        return
    assert not first.startswith("214")
    assert data.startswith("503")
    assert second.startswith("214") is vulnerable, second


@pytest.mark.parametrize(("profile", "says"), [("pix40", "250 OK"), ("pix51", "500 "), ("pix63", "500 ")])
def test_ciscos_own_steps_give_what_its_note_says(topology: Topology, tmp_path: Path, profile: str, says: str) -> None:
    """ "Testing the PIX Firewall Mailguard Feature": goodmorning is refused without it, OK with 4.0's."""
    with sendmail(topology):
        greeting, plain = ask(topology, "goodmorning")
        assert plain == '500 Command unrecognized: "goodmorning"'
        assert greeting.startswith("220 mail.example.com ESMTP Sendmail")
        with enforcing(topology, tmp_path / "gateway", profile):
            masked, reply = ask(topology, "goodmorning")
    assert reply.startswith(says), reply
    assert "goodmorning" not in reply
    assert masked.startswith("220 SMTP/cmap ready____" if profile == "pix40" else "220 ****"), masked


@pytest.mark.skipif(
    not (is_real_root() and installed()), reason="needs the machine's root and Postfix: apt-get install postfix"
)
@pytest.mark.parametrize(
    ("profile", "workaround"), [("asa", True), ("pix44", True), ("rfc821", False), ("pix42", False)]
)
def test_postfix_takes_starred_greetings_for_a_pix_and_no_others(
    topology: Topology, tmp_path: Path, profile: str, workaround: bool
) -> None:
    address = topology.address(SERVER)
    server = MailServer(topology, tmp_path / "server", "--greeting", "mail.example.com ESMTP", "--no-starttls")
    with server, enforcing(topology, tmp_path / "gateway", profile):
        with Postfix(topology, CLIENT, tmp_path / "client", relay=address) as client:
            client.send("a@example.net", "b@example.com", letter(500).replace(b"\r\n", b"\n"))
            log = client.wait_for("status=sent")
        assert ("enabling PIX workarounds: disable_esmtp" in log) is workaround, log
        assert len(server.mails()) == 1
