"""Wrong configurations: each is answered with every mistake in it, where it is, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from nfmailguard import cli as command
from nfmailguard.cli import cli
from nfmailguard.config import load
from nfmailguard.errors import ConfigError

#: The text, and how the one line begins that it is answered with, behind the file's name.
WRONG = [
    ('[gateway]\nmode = "enforc"', "gateway.mode: 'enforc'; one of enforce, monitor, restore"),
    ("[gateway]\nmode = enforce", 'line 2: mode = enforce: text needs quotes: mode = "enforce"'),
    ('[gateway]\nmode = "enforce', "line 2: the text is not closed; is a quote missing?"),
    ("[gateway]\nmode = 1", 'gateway.mode: expected `str`, got `int`; text in quotes: "..."'),
    ("[gateway]\nmode = []", 'gateway.mode: expected `str`, got `array`; text in quotes: "..."'),
    ('[gateway]\nprofile = "pix64"', "profile 'pix64': unknown; one of asa"),
    ('[gateway]\nprofile = "./nowhere.toml"', "profile ./nowhere.toml: No such file or directory"),
    ("[gateway]\nprofile = 63", 'gateway.profile: expected `str`, got `int`; text in quotes: "..."'),
    ("[gateway]\nports = 0", "gateway.ports: 0; 1 to 65535"),
    ("[gateway]\nports = [65536]", "gateway.ports: 65536; 1 to 65535"),
    ('[gateway]\nports = ["smtp"]', "gateway.ports[0]: expected `int`, got `str`; a whole number, without quotes"),
    ("[gateway]\nports = []", "gateway.ports: no port, nothing to inspect"),
    ("[gateway]\nports = [-25]", "gateway.ports: -25; 1 to 65535"),
    ('[gateway]\naddresses = ["10.0.0.300"]', "gateway.addresses: '10.0.0.300' is no address or network"),
    ('[gateway]\naddresses = ["mail.example.com"]', "gateway.addresses: 'mail.example.com' is no address or network"),
    (
        '[gateway]\naddresses = ["fe80::1%eth0"]',
        "gateway.addresses: 'fe80::1%eth0' has a zone, which no packet tells; write it without, and `in`",
    ),
    ('[gateway]\naddresses = ["10.0.0.0/33"]', "gateway.addresses: '10.0.0.0/33' is no address or network"),
    ('[gateway]\nhook = "prerouting"', "gateway.hook[0]: 'prerouting'; one of forward, input, output"),
    ("[gateway]\nhook = []", "gateway.hook: none; one or more of forward, input, output"),
    ('[gateway]\ndry_run = "yes"', "gateway.dry_run: expected `bool`, got `str`; true or false, without quotes"),
    ("[gateway]\nfaithful = 2", "gateway.faithful: expected `bool`, got `int`; true or false, without quotes"),
    ('[gateway]\nmod = "enforce"', "gateway.mod: no such key; did you mean 'mode'?"),
    ('[gatway]\nmode = "enforce"', "gatway: no such key; did you mean 'gateway'?"),
    ("gateway = 1", "gateway: expected `object`, got `int`; a table of its own: [name], and its keys below"),
    ("gateway = []", "gateway: expected `object`, got `array`; a table of its own: [name], and its keys below"),
    (
        '[gateway]\nmode = "enforce"\nports = [25, 465]',
        "gateway.ports: 465 speaks TLS from the first byte on, and enforcing breaks it; leave it out, or",
    ),
    ('[gateway]\nmode = "enforce"\nmode = "monitor"', "Cannot overwrite a value (at line 3, column 17)"),
    ("[gateway", "Expected ']' at the end of a table declaration (at line 1, column 9)"),
    (
        '[[gateway]]\nmode = "enforce"',
        "gateway: expected `object`, got `array`; a table of its own: [name], and its keys below",
    ),
    ('[rule]\nmode = "enforc"', "rule 1: mode: 'enforc'; one of enforce, monitor, restore"),
    ('[[rule]]\nmode = "watch"', "rule 1: mode: 'watch'; one of enforce, monitor, restore"),
    ('[[rule]]\nfrom = "10.0.0"', "rule 1: from: '10.0.0' is no address or network"),
    ('[[rule]]\nto = ["::/129"]', "rule 1: to: '::/129' is no address or network"),
    ('[[rule]]\nprofile = "asb"', "profile 'asb': unknown; one of asa"),
    ("[[rule]]\nports = [70000]", "rule 1: ports: 70000; 1 to 65535"),
    ('[[rule]]\nsource = "10.0.0.1"', "rule 1: source: no such key; one of from, to, in, ports, mode, profile"),
    ("[[rule]]\nin = 3", 'rule 1: in: expected `str | null`, got `int`; text in quotes: "..."'),
    ("rule = 5", "rule 1: expected `object`, got `int`; a table of its own: [name], and its keys below"),
    ('[queue]\nnumbers = "a"', "queue.numbers: 'a'; a number from 0 to 65535, or a range like 0-3"),
    ('[queue]\nnumbers = "3-1"', "queue.numbers: '3-1'; a number from 0 to 65535, or a range like 0-3"),
    ('[queue]\nnumbers = "65536"', "queue.numbers: '65536'; a number from 0 to 65535, or a range like 0-3"),
    ("[queue]\nnumbers = 0", 'queue.numbers: expected `str`, got `int`; text in quotes: "..."'),
    ('[queue]\nnumbers = "0-"', "queue.numbers: '0-'; a number from 0 to 65535, or a range like 0-3"),
    ('[queue]\ndriver = "kernal"', "queue.driver: 'kernal'; one of kernel, netfilterqueue"),
    ("[queue]\nlength = 0", "queue.length: 0; 1 to 1000000 packets"),
    ("[queue]\nlength = -1", "queue.length: -1; 1 to 1000000 packets"),
    ('[queue]\nlength = "many"', "queue.length: expected `int`, got `str`; a whole number, without quotes"),
    ("[queue]\ncopy_range = 0", "queue.copy_range: 0; 128 to 65535 octets"),
    ("[queue]\ncopy_range = 70000", "queue.copy_range: 70000; 128 to 65535 octets"),
    ('[queue]\ngso = "on"', "queue.gso: expected `bool`, got `str`; true or false, without quotes"),
    ("[queue]\nreceive_buffer = -1", "queue.receive_buffer: -1; 0, or 4096 to 2147483647 octets"),
    ("[queue]\ncpus = [99999]", "queue.cpus: 99999; this process may run on"),
    ("[queue]\ncpus = [-1]", "queue.cpus: -1; this process may run on"),
    ("[queue]\nbusy_poll = -1", "queue.busy_poll: -1; 0 to 1000000 microseconds"),
    ("[queue]\nbusypoll = 10", "queue.busypoll: no such key; did you mean 'busy_poll'?"),
    ('[queue]\nconntrack = "no"', "queue.conntrack: expected `bool`, got `str`; true or false, without quotes"),
    ("[limits]\nflows = 0", "limits.flows: 0; more than 0, at most 50000000"),
    ("[limits]\nflows = 1e3", "limits.flows: expected `int`, got `float`; a whole number, without quotes"),
    ("[limits]\nflows = 60000000", "limits.flows: 60000000; more than 0, at most 50000000"),
    ("[limits]\nmemory = -1", "limits.memory: -1; more than 0, at most 4611686018427387904"),
    ('[limits]\nmemory = "256M"', "limits.memory: expected `int`, got `str`; a whole number, without quotes"),
    (
        "[limits]\nstartup = 0",
        'limits.startup: 0; to reset flows older than the start, on.midstream_at_start = "reset"',
    ),
    ("[limits]\nheld_packets = 0", "limits.held_packets: 0; more than 0, at most 2147483648"),
    ("[limits]\njunk_commands = -1", "limits.junk_commands: -1; 0 or more, at most 1000000000"),
    ("[limits]\nfindings_told = 0", "limits.findings_told: 0; more than 0, at most 1000000"),
    ("[limits]\nlog_rate = 0", "limits.log_rate: 0; more than 0, at most 4294967295"),
    ("[limits]\nidle = nan", "limits.idle: nan; more than 0, at most 1000000000"),
    ("[limits]\nflow = 3", "limits.flow: no such key; did you mean 'flows'?"),
    ('[on]\ngap = "log"', "on.gap: log; one of pass, drop, reset"),
    ('[on]\nno_listener = "reset"', "on.no_listener: reset; one of pass, drop"),
    ('[on]\nqueue_full = "mask"', "on.queue_full: mask; one of pass, drop"),
    ("[on]\nmidstream = 1", "on.midstream: 1; one of pass, drop, reset"),
    ('[on]\ngaps = "drop"', "on.gaps: no such key; did you mean 'gap'?"),
    ('on = "drop"', "on: expected `object`, got `str`; a table of its own: [name], and its keys below"),
    ("[log]\neve = 1", 'log.eve: expected `str | null`, got `int`; text in quotes: "..."'),
    ("[log]\nstats = 0", "log.stats: 0.0; more than 0 seconds, at most 1000000000"),
    ("[log]\nstats = -1", "log.stats: -1.0; more than 0 seconds, at most 1000000000"),
    ('[log]\nalerts = "yes"', "log.alerts: expected `bool`, got `str`; true or false, without quotes"),
    ('[log]\nfile = "x"', "log.file: no such key; one of eve, stats, alerts"),
    (
        '[syslog]\ntarget = "udp://"',
        "syslog.target: 'udp://'; a file, -, journald, udp://HOST[:PORT], tcp://HOST[:PORT] or unix:///PA",
    ),
    (
        '[syslog]\ntarget = "udp://h:99999"',
        "syslog.target: 'udp://h:99999'; a file, -, journald, udp://HOST[:PORT], tcp://HOST[:PORT] or uni",
    ),
    (
        '[syslog]\ntarget = "http://h"',
        "syslog.target: 'http://h'; a file, -, journald, udp://HOST[:PORT], tcp://HOST[:PORT] or unix:///",
    ),
    ('[syslog]\ntarget = "-"\nfacility = "local9"', "syslog.facility: 'local9'; one of"),
    ('[syslog]\ntarget = "-"\nformat = "rfc1"', "syslog.format: 'rfc1'; one of rfc3164, rfc5424"),
    ('[syslog]\ntarget = "-"\nstyle = "fwsm"', "syslog.style: 'fwsm'; one of auto, pix, asa"),
    ('[syslog]\nclient = "out side"', "syslog: 'out side'; an interface's name has no space and no colon"),
    ('[syslog.interfaces]\ndmz = ["10.0.0"]', "syslog.interfaces.dmz: '10.0.0' is no address or network"),
    ('[restore]\nside = "left"', "restore.side: 'left'; one of client, server, both"),
    ('[restore]\nscope = "some"', "restore.scope: 'some'; one of safe, all"),
    ('[restore]\nkeywords = ["250-SIZE"]', "restore.keywords: '250-SIZE'; write it without its code"),
    ('[restore]\nkeywords = [""]', "restore.keywords: ''; printable ASCII, 1 to 253 octets"),
    ('[restore]\nbanner = "220 x"', "restore.banner: '220 x'; write it without its code"),
    ('[[restore.server]]\naddresses = ["x"]', "restore.server 1: addresses: 'x' is no address or network"),
    ('[[restore.server]]\nbaner = "x"', "restore.server 1: baner: no such key; did you mean 'banner'?"),
    ('[policy]\nbanner.rule = "b99"', "banner.rule: 'b99'; one of none, b40, b44, b51, basa"),
    ("[policy]\nbanner.sepparator = true", "--set banner.sepparator: no such key; did you mean 'banner.separator'?"),
    ('[policy]\ncommands.letter = "Y"', "profile pix63 as set: commands.letter: 'Y'; X or x"),
    ("[policy]\ncommands.line_length = 0", "profile pix63 as set: commands.line_length: 0; a positive number, or none"),
    ("[policy]\naddress.recipients = -1", "profile pix63 as set: address.recipients: -1; a positive number, or none"),
    (
        '[policy]\nactions."no.such" = "log"',
        "profile pix63 as set: actions.no.such: no such finding; `nfmailguard profile findings` lists the",
    ),
    (
        '[policy]\nactions."command.denied" = "drop"',
        "profile pix63 as set: actions.command.denied: drop is not possible here; one of pass, log, mask,",
    ),
    ('[policy]\nactions."stream.gap" = "reset"', "profile pix63 as set: actions.stream.gap: decided by [on] gap"),
    ('[policy]\ncommands.unknown = "x"', "commands.unknown: 'x'; one of xverb, xall, noop, ok"),
    ('[policy]\nreplies.ehlo = "e9"', "replies.ehlo: 'e9'; one of none, e1"),
    ("policy = 3", "policy: expected `object`, got `int`; a table of its own: [name], and its keys below"),
    ("[policies]\nx = 1", "policies: no such key; did you mean 'policy'?"),
]


def answered(path: Path, name: str = "check") -> list[str]:
    """What the command says, without the file's name; nothing else is printed."""
    with pytest.raises(ConfigError) as raised:
        CliRunner().invoke(cli, [name, "-c", str(path)], catch_exceptions=False)
    assert raised.value.exit_code == 2
    assert all(line.startswith(f"{path}: ") for line in raised.value.lines)
    return [line.removeprefix(f"{path}: ") for line in raised.value.lines]


def test_there_are_enough_of_them() -> None:
    assert len({text for text, _ in WRONG}) >= 80


@pytest.mark.parametrize(("text", "line"), WRONG)
def test_a_wrong_configuration_is_answered_where_it_is_wrong(text: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text + "\n")
    (said,) = answered(path)
    assert said.startswith(line)


@pytest.mark.parametrize("name", ["run", "check", "rules"])
def test_every_command_refuses_it_before_it_touches_anything(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[gateway]\nmode = "enforc"\nports = [0]\n[queue]\nlength = 0\n')
    words = ["nfmailguard", name, *(["apply"] if name == "rules" else []), "-c", str(path)]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr("nfmailguard.ruleset.Nftables", None)  # whoever asks the kernel fails otherwise
    monkeypatch.setattr("nfmailguard.service.gateway.Gateway", None)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert [line.removeprefix(f"nfmailguard: {path}: ") for line in told.err.splitlines()] == [
        "gateway.mode: 'enforc'; one of enforce, monitor, restore",
        "queue.length: 0; 1 to 1000000 packets",
        "gateway.ports: 0; 1 to 65535",
    ]


#: Of each section one that can stand beside the others.
TOGETHER = {
    "gateway": 'mode = "enforc"',
    "queue": 'driver = "kernal"',
    "limits": "flows = 0",
    "on": 'gap = "log"',
    "log": "stats = 0",
    "syslog": 'client = "out side"',
    "restore": 'side = "left"',
    "policy": 'commands.unknown = "x"',
}


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("".join(f"[{section}]\n{line}\n" for section, line in TOGETHER.items()))
    lines = answered(path)
    places = ["gateway.mode", "queue.driver", "limits.flows", "on.gap", "log.stats", "syslog", "restore.side"]
    assert sorted(line.partition(":")[0] for line in lines) == sorted([*places, "commands.unknown"])


def test_the_same_sections_without_their_mistakes_are_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[gateway]\nmode = "enforce"\n[queue]\ndriver = "kernel"\n[limits]\nflows = 1\n[on]\ngap = "drop"\n[log]\n'
        'stats = 1\n[syslog]\nclient = "outside"\n[restore]\nside = "both"\n[policy]\ncommands.unknown = "xall"\n'
    )
    assert load(path).gateway.mode == "enforce"
