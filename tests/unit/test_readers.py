"""Every reader of a file, given whatever a file may be: an answer in a moment, or an error of one line."""

from __future__ import annotations

import io
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from nfmailguard import config, replay
from nfmailguard.bench import results
from nfmailguard.cext.engine import FLOW_BYTES
from nfmailguard.engine import Engine
from nfmailguard.errors import ConfigError, NfmailguardError
from nfmailguard.events.stats import last_stats
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import Limits
from nfmailguard.probe import traces
from nfmailguard.reading import at_most
from nfmailguard.reports import imported, translation
from nfmailguard.reports.console import Console
from nfmailguard.settings import Config, network
from nfmailguard.smtp import transcript

SECONDS = 60.0  # on a busy machine, under the sanitizers too; what was wrong took minutes, or for ever


def translated(path: Path) -> object:
    try:
        with path.open("rb") as file:
            text = at_most(file, 4 * transcript.MOST_TEXT, str(path)).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(error)) from error
    turns = transcript.parse(text, str(path))
    rule = config.load(None, mode="enforce", profile="asa").flow_rules()[-1]
    return translation.render(rule.policy, turns, Console(file=io.StringIO()), apply=True)


def cisco(path: Path) -> object:
    try:
        with path.open("rb") as file:
            return imported.read([(str(path), at_most(file, imported.MOST_OCTETS, str(path)))])
    except OSError as error:
        raise ConfigError(str(error)) from error


READERS: dict[str, Callable[[Path], object]] = {
    "configuration": config.load,
    "profile": lambda path: load_profile(str(path)),
    "profile in a configuration": lambda path: config.load(None, profile=str(path)),
    "cisco": cisco,
    "translate": translated,
    "diagnose": traces.read,
    "counters": last_stats,
    "bench": results.load,
    "replay": lambda path: replay.replay(config.load(), path),
}
#: They open files as click does, before we see them; a pipe is theirs to wait for.
OPENED = {"cisco", "translate"}
STATS = b'{"event_type":"stats","stats":'
MEGA = 1_000_000
TEXTS: dict[str, bytes] = {
    "empty": b"",
    "NULs": bytes(5000),
    "no UTF-8": b"\xff\xfe\x80" * 2000,
    "a BOM": b"\xef\xbb\xbf# nothing\n",
    "CRLF": b"# nothing\r\n\r\n",
    "a long line": b"x" * (20 * MEGA),
    "a long line with a verb": b"C: NOOP " + b"x" * (20 * MEGA),
    "a line of a packet": b"S: 220 x\nC: NOOP " + b"x" * 60_000 + b"\n",
    "a quarter of lines": b"C: NOOP\nS: 250 ok\n" * 50_000,
    "short lines": b"C: X\n" * 200_000,
    "one packet in many parts": b"C: X\n" + b"C| X\n" * 100_000,
    "a message": b"S: 220 x\nC: HELO x\nS: 250 x\nC: DATA\nS: 354 go\n" + b"C: " + b"y" * 65_000 + b"\n",
    "a header field": b"S: 220 x\nC: HELO x\nS: 250 x\nC: DATA\nS: 354 go\n"
    b'C: Content-Type: x; y="' + b"z" * 60_000 + b"\\c\n" + (b"C: " + b"z" * 60_000 + b"\\c\n") * 10,
    "line ends": b"C: " + b"\\n" * 30_000 + b"\nS: " + b"\\n" * 30_000 + b"\n",
    "X's": b"XXXX " * 200_000,
    "X's and refusals": b"unknown command XXXX_ " * 50_000,
    "220s": b"220 " * 250_000,
    "stars": b"*** 220-" * 120_000,
    "timeouts": b"timeout lost connection " * 40_000,
    "PIXes": b"enabling PIX workarounds " * 40_000,
    "250s": b"250-XXXX_" * 100_000,
    "a key of many parts": b"a" + b".a" * 50_000 + b" = 1\n",
    "a header of many parts": b"[a" + b".a" * 50_000 + b"]\n",
    "quoted parts": b'"a"' + b'."a"' * 30_000 + b" = 1\n",
    "brackets": b"a = " + b"[" * 100_000,
    "braces": b"a = " + b"{a = " * 30_000,
    "an integer": b"a = " + b"9" * 5000,
    "an integer of a setting": b"[queue]\nlength = " + b"9" * 4000,
    "a hexadecimal integer": b"[queue]\nlength = 0x" + b"f" * 100_000,
    "a float": b"[log]\nstats = " + b"9" * 100_000 + b".0",
    "nan": b"[log]\nstats = nan\n",
    "inf": b"[limits]\nidle = inf\n",
    "keys nobody knows": b"".join(b"k%d = 1\n" % number for number in range(50_000)),
    "a long key": b"k" * MEGA + b" = 1\n",
    "tables": b"[[rule]]\n" * 100_000,
    "addresses": b"[gateway]\naddresses = [" + b'"x",' * 200_000 + b"]\n",
    "escapes": b'a = "' + b"\\u0041" * 150_000 + b'"\n',
    "a date": b"a = 9999-99-99\n",
    "stats of nothing": STATS + b"null}\n",
    "stats that are infinite": STATS + b'{"a":1e999}}\n',
    "stats of many digits": STATS + b'{"a":' + b"9" * 5000 + b"}}\n",
    "stats that nest": STATS + b"[" * 100_000,
    "an endless event": STATS + b'{"' + b"x" * (20 * MEGA),
    "a report that nests": b'{"benchmarks":' + b"[" * 100_000,
    "gzip": b"\x1f\x8b\x08" + bytes(1000),
    "pcap": b"\xd4\xc3\xb2\xa1" + b"\xff" * 5000,
    "pcapng": b"\x0a\x0d\x0d\x0a" + b"\xff" * 5000,
    "sections": b"policy-map type inspect esmtp m\n" * 30_000,
    "matches": b"policy-map type inspect esmtp m\n" + b" match cmd verb others\n  mask\n" * 50_000,
    "words": b"policy-map type inspect esmtp m\n match cmd verb " + b"x " * 400_000,
    "digits": b"policy-map type inspect esmtp m\n match cmd line length gt " + b"9" * MEGA,
}


def answered(reader: str, path: Path) -> None:
    began = time.monotonic()
    told: tuple[str, ...] = ("nothing",)
    try:
        READERS[reader](path)
    except NfmailguardError as error:
        told = error.lines
    assert told
    assert len(told) < 60 or reader == "cisco"
    assert all(len(line) < 2100 for line in told)
    assert time.monotonic() - began < SECONDS


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", TEXTS)
def test_whatever_a_file_says_it_is_read_or_refused_in_a_moment(tmp_path: Path, reader: str, text: str) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes(TEXTS[text])
    answered(reader, path)


@pytest.mark.parametrize("reader", READERS)
def test_octets_by_chance_are_read_or_refused(tmp_path: Path, reader: str) -> None:
    chance = random.Random(reader)
    path = tmp_path / "file.toml"
    texts = [text[:3000] for text in TEXTS.values()]
    for _ in range(150):
        octets = bytearray(b"x" + chance.choice(texts) + chance.randbytes(chance.randrange(20)))
        for _ in range(chance.randrange(8)):
            octets[chance.randrange(1, len(octets) + 1) :] = chance.choice(texts)[chance.randrange(100) :]
        path.write_bytes(octets)
        answered(reader, path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "name",
    [
        "directory",
        "fifo",
        "socket",
        "nothing",
        "/dev/zero",
        "/dev/full",
        "/dev/null",
        "/proc/self/status",
        "/proc/self/mem",
    ],
)
def test_whatever_stands_there_in_place_of_a_file(tmp_path: Path, reader: str, name: str) -> None:
    path = tmp_path / "file.toml" if not name.startswith("/") else Path(name)
    if name == "fifo" and reader in (*OPENED, "diagnose", "replay"):
        pytest.skip("a pipe is waited for, as by any command")
    if name == "directory":
        path.mkdir()
    elif name == "fifo":
        os.mkfifo(path)
    elif name == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    answered(reader, path)


def test_a_pipe_is_read_as_a_file(tmp_path: Path) -> None:
    for text, code in ((b'[gateway]\nmode = "enforce"\n', 0), (b"x = 1\n", 2)):
        done = subprocess.run(
            ["sh", "-c", f"{sys.executable} -m nfmailguard check -c /dev/stdin"],
            input=text,
            check=False,
            capture_output=True,
        )
        assert done.returncode == code, done.stderr
    log = b"postfix/smtp[1]: enabling PIX workarounds: disable_esmtp for mx[192.0.2.1]:25\n"
    done = subprocess.run(
        ["sh", "-c", f"cat | {sys.executable} -m nfmailguard diagnose /dev/stdin"],
        input=log,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 1, done.stderr


def test_lines_are_counted_whatever_their_length(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(b"x" * 20_000 + b"\npostfix: 220 *****\n")
    (trace,) = traces.read(path).traces
    assert trace.first == "line 2"


def numbers() -> list[tuple[str, type]]:
    """Every setting that is a number."""
    found = []
    for section in msgspec.structs.fields(Config):
        if isinstance(section.type, type) and issubclass(section.type, msgspec.Struct):
            found += [
                (f"{section.encode_name}.{field.encode_name}", field.type)
                for field in msgspec.structs.fields(section.type)
                if field.type in (int, float, tuple[int, ...])
            ]
    return found


@pytest.mark.parametrize(("key", "kind"), numbers())
@pytest.mark.parametrize(
    "value", ["-1", "-9223372036854775808", "4294967296", "9223372036854775807", "nan", "inf", "-inf", "1e400"]
)
def test_a_number_out_of_range_is_refused_with_its_key(tmp_path: Path, key: str, kind: type, value: str) -> None:
    section, _, name = key.partition(".")
    path = tmp_path / "nfmailguard.toml"
    path.write_text(f"[{section}]\n{name} = {value}\n")
    if key != "limits.memory" or value != "4294967296":
        with pytest.raises(ConfigError, match=rf"\b({key}|{name})\b"):
            config.load(path)
        return
    read = config.load(path)
    limits = msgspec.structs.replace(read.engine_limits(), flows=64)
    Engine(read.flow_rules(), ports=read.ports(), limits=limits, on=read.on)


def test_all_numbers_are_tried() -> None:
    known = [key for key, _ in numbers()]
    assert {"queue.length", "queue.cpus", "gateway.ports", "log.stats", "limits.flows", "limits.idle"} <= set(known)
    assert (
        len([key for key in known if key.startswith("limits.")]) == len(Limits.__struct_fields__) - 1
    )  # flows_per_source may be left out
    assert FLOW_BYTES > 0


@pytest.mark.parametrize("value", ["1", "0", "-1", "2147483648", "9223372036854775807"])
def test_a_policys_numbers_are_numbers(tmp_path: Path, value: str) -> None:
    path = tmp_path / "nfmailguard.toml"
    path.write_text(f"[policy.commands]\nline_length = {value}\n")
    if value == "1":
        assert config.load(path).flow_rules()[-1].policy.commands.line_length == 1
    else:
        with pytest.raises(ConfigError, match=rf"commands.line_length: {value}; a positive number"):
            config.load(path)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("::ffff:10.9.0.0/112", "10.9.0.0/16"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("::ffff:0:0/95", "::fffe:0:0/95"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("10.0.0.1/8", "10.0.0.0/8"),
    ],
)
def test_mapped_networks_are_ipv4s(text: str, meant: str) -> None:
    assert str(network(text)) == meant


PLACES = {
    "gateway.addresses": '[gateway]\naddresses = ["{}"]\n',
    "rule 1: from": '[[rule]]\nfrom = "{}"\n',
    "rule 1: to": '[[rule]]\nto = ["{}"]\n',
    "syslog.interfaces.dmz": '[syslog.interfaces]\ndmz = ["{}"]\n',
    "restore.server 1: addresses": '[[restore.server]]\naddresses = ["{}"]\n',
}


@pytest.mark.parametrize("place", PLACES)
def test_wherever_a_network_is_named(tmp_path: Path, place: str) -> None:
    path = tmp_path / "nfmailguard.toml"
    for text in ("fe80::1%eth0", "fe80::%1/64"):
        path.write_text(PLACES[place].format(text))
        with pytest.raises(ConfigError, match=rf"{place}: '{text}' has a zone"):
            config.load(path)
    path.write_text(PLACES[place].format("::ffff:10.9.0.0/112"))
    read = config.load(path)
    mapped = network("10.9.0.0/16")
    from nfmailguard.service import preflight

    first = read.flow_rules()[0]
    found = [
        *preflight.ruleset(read).addresses,
        *first.source,
        *first.destination,
        *(one for _, one in read.syslog.names().networks),
        *(one for offer in first.restore.offers for one in offer.servers),
    ]
    assert found == [mapped]
