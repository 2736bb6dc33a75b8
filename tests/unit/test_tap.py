"""The tap's files, octet by octet."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, PadN
from scapy.packet import Packet

from nfmailguard.errors import CaptureError
from nfmailguard.queues.tap import Tap

ACCEPT, REPLACE, DROP, EMIT = range(4)
PARTIAL = 1
NOW = 1_700_000_000_123_456_789


def records(path: Path) -> list[tuple[int, int, bytes]]:
    """(time, length, octets) of each packet."""
    data = path.read_bytes()
    assert data[:24] == struct.pack("=IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 101)
    found, at = [], 24
    while at < len(data):
        seconds, nanoseconds, captured, length = struct.unpack_from("=IIII", data, at)
        found.append((seconds * 10**9 + nanoseconds, length, data[at + 16 : at + 16 + captured]))
        at += 16 + captured
    return found


@pytest.fixture
def tap(tmp_path: Path) -> Tap:
    return Tap(str(tmp_path / "in.pcap"), str(tmp_path / "out.pcap"))


def test_what_leaves_is_written_in_the_order_of_leaving(tap: Tap, tmp_path: Path) -> None:
    writer = tap.open()
    for number, data in enumerate((b"held", b"dropped", b"replaced", b"accepted")):
        writer.incoming(data, NOW + number, number)
    writer.operation(ACCEPT, 3, None, NOW + 10)
    writer.operation(DROP, 1, None, NOW + 11)
    writer.operation(REPLACE, 2, b"REPLACED", NOW + 12)
    writer.operation(EMIT, 0, b"reset", NOW + 13)
    writer.operation(ACCEPT, 0, None, NOW + 14)
    tap.close()
    assert records(tmp_path / "in.pcap") == [
        (NOW + number, len(data), data) for number, data in enumerate((b"held", b"dropped", b"replaced", b"accepted"))
    ]
    assert records(tmp_path / "out.pcap") == [
        (NOW + 10, 8, b"accepted"),
        (NOW + 12, 8, b"REPLACED"),
        (NOW + 13, 5, b"reset"),
        (NOW + 14, 4, b"held"),
    ]
    assert tap.counters() == {"tap_incoming": 4, "tap_outgoing": 4, "tap_lost": 0}
    tap.close()


def test_an_id_is_written_once_and_a_stranger_s_is_counted(tap: Tap, tmp_path: Path) -> None:
    writer = tap.open()
    writer.incoming(b"one", NOW, 5)
    writer.incoming(b"same bucket", NOW, 5 + 4096)
    writer.operation(ACCEPT, 5, None, NOW)
    writer.operation(ACCEPT, 5, None, NOW)
    tap.close()
    assert [data for _, _, data in records(tmp_path / "out.pcap")] == [b"one"]
    assert tap.counters()["tap_lost"] == 1


def test_the_files_belong_to_their_owner_alone(tap: Tap, tmp_path: Path) -> None:
    tap.open()
    tap.close()
    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.iterdir())] == [0o600, 0o600]


def test_a_cut_packet_keeps_its_length(tap: Tap, tmp_path: Path) -> None:
    writer = tap.open()
    writer.incoming(bytes(IP() / TCP())[:30], NOW, 1, 1500, PARTIAL)
    writer.operation(ACCEPT, 1, None, NOW)
    tap.close()
    for name in ("in.pcap", "out.pcap"):
        assert records(tmp_path / name) == [(NOW, 1500, bytes(IP() / TCP())[:30])]


@pytest.mark.parametrize(
    "packet",
    [
        IP(src="10.0.0.1", dst="10.0.0.2", options=[]) / TCP(sport=25, dport=2000) / b"odd",
        IP(src="10.0.0.1", dst="10.0.0.2") / TCP(options=[("MSS", 1460)]) / (bytes(range(256)) * 200),
        IPv6(src="fd00::1", dst="fd00::2") / TCP() / b"even",
        IPv6(src="fd00::1", dst="fd00::2")
        / IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))])
        / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))])
        / TCP()
        / b"behind options",
    ],
    ids=["ipv4", "super-packet", "ipv6", "ipv6 options"],
)
def test_a_partial_checksum_is_completed(tap: Tap, tmp_path: Path, packet: Packet) -> None:
    right = bytes(packet)
    at = right.index(bytes(packet[TCP])[:16]) + 16
    segment = right[at - 16 : at] + b"\0\0" + right[at + 2 :]
    # The kernel leaves the pseudo header's sum: what the right checksum lacks of the segment's.
    words = struct.unpack(f">{(len(segment) + 1) // 2}H", segment + bytes(len(segment) % 2))
    seed = (0xFFFF - int.from_bytes(right[at : at + 2]) - sum(words)) % 0xFFFF
    writer = tap.open()
    writer.incoming(right[:at] + seed.to_bytes(2) + right[at + 2 :], NOW, 1, 0, PARTIAL)
    writer.operation(ACCEPT, 1, None, NOW)
    tap.close()
    for name in ("in.pcap", "out.pcap"):
        [(_, _, found)] = records(tmp_path / name)
        assert found.hex() == right.hex()


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        b"\x4f" + bytes(30),
        bytes(IP(frag=3) / TCP()),
        bytes(IP(proto=17) / bytes(30)),
        bytes(IPv6() / IPv6ExtHdrFragment() / TCP()),
        bytes(IPv6(nh=60) / b"\x06\xff" / bytes(30)),
        bytes(IPv6(nh=0)),
    ],
)
def test_what_is_no_whole_tcp_packet_is_left_alone(tap: Tap, tmp_path: Path, packet: bytes) -> None:
    writer = tap.open()
    writer.incoming(packet, NOW, 1, 0, PARTIAL)
    tap.close()
    assert records(tmp_path / "in.pcap") == [(NOW, len(packet), packet)]


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere" / "in.pcap")
    with pytest.raises(CaptureError, match=r"nowhere/in.pcap: cannot write the tap's capture: No such file"):
        Tap(missing).open()
    with pytest.raises(CaptureError, match="nowhere"):
        Tap(str(tmp_path / "in.pcap"), missing).open()


def test_a_full_disk_is_told_on_closing(tmp_path: Path) -> None:
    tap = Tap("/dev/full")
    writer = tap.open()
    for number in range(20):
        writer.incoming(bytes(100_000), NOW, number)
    with pytest.raises(CaptureError, match=r"/dev/full: .* incomplete, 20 packets lost: No space left"):
        tap.close()
