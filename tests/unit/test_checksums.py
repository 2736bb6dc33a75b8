"""Captures whose checksums are made right, as those of a script that edited them have to be."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.cli import cli
from nfmailguard.config import load
from nfmailguard.queues.checksums import corrected
from nfmailguard.replay import replay
from tests.support.captures import ETHERNET, RAW, Conversation, Frame, framed, mail, pcap, pcapng

COOKED, COOKED_2, LOOPBACK = 113, 276, 0


def edited(packet: bytes) -> bytes:
    """A packet as a careless script leaves it: every checksum wrong."""
    octets = bytearray(packet)
    at = 20 if octets[0] >> 4 == 4 else 40
    if at == 20:
        octets[10] ^= 0x55
    octets[at + 16] ^= 0xAA
    octets[at + 17] ^= 0x77
    return bytes(octets)


def heads(packet: bytes) -> dict[int, bytes]:
    kind = b"\x08\0" if packet[0] >> 4 == 4 else b"\x86\xdd"
    return {
        ETHERNET: bytes(12) + kind,
        RAW: b"",
        COOKED: bytes(14) + kind,
        COOKED_2: kind + bytes(18),
        LOOPBACK: struct.pack("<I", 2),
    }


def made_right(capture: bytes) -> bytes:
    return b"".join(corrected(io.BytesIO(capture)))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("link", [ETHERNET, RAW, COOKED, COOKED_2, LOOPBACK])
@pytest.mark.parametrize("form", [pcap, pcapng])
def test_wrong_checksums_are_made_right_and_nothing_else(form: object, link: int, family: int) -> None:
    talk = Conversation(family)
    talk.server(b"220 mail\r\n")
    talk.client(b"EHLO odd\r\n")
    packets = [packet for _, packet in talk.packets]
    honest = form([Frame(number, heads(packet)[link] + packet) for number, packet in enumerate(packets)], link)  # type: ignore[operator]
    wrong = form([Frame(number, heads(packet)[link] + edited(packet)) for number, packet in enumerate(packets)], link)  # type: ignore[operator]
    assert wrong != honest
    assert made_right(wrong) == honest
    assert made_right(honest) == honest


def test_tagged_frames_are_looked_into() -> None:
    packet = mail().packets[3][1]
    head = bytes(12) + b"\x81\0\0\x05" + b"\x08\0"
    assert made_right(pcap([Frame(0, head + edited(packet))])) == pcap([Frame(0, head + packet)])


def test_what_is_cut_stays_as_it_is() -> None:
    packet = edited(mail().packets[3][1])
    for whole in (pcap([Frame(0, packet[:-1], len(packet))], RAW), pcap([Frame(0, packet[:30])], RAW)):
        assert made_right(whole)[40 + 20 :] == whole[40 + 20 :]


def test_an_edited_capture_is_inspected(tmp_path: Path) -> None:
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcap"
    honest = list(framed(mail()))
    path.write_bytes(pcap([Frame(frame.now, edited(frame.data)) for frame in honest], RAW))
    config = load(mode="enforce", profile="pix63")
    blind = replay(config, path, out)
    assert (blind.mails, blind.remarks["bad_checksum"]) == (0, len(honest))
    seeing = replay(config, path, out, checksums=False)
    assert seeing.mails == 1
    assert "bad_checksum" not in seeing.remarks
    assert seeing.changed
    assert made_right(out.read_bytes()) == out.read_bytes(), "what is written is right"
    done = CliRunner().invoke(cli, ["replay", str(path), "--profile", "pix63"])
    assert "--checksums ignore" in " ".join(done.output.split())
    done = CliRunner().invoke(cli, ["replay", str(path), "--profile", "pix63", "--checksums", "ignore"])
    assert "1 mails" in done.output


@given(st.binary(max_size=300), st.sampled_from([b"", pcap([], RAW), pcap([]), pcapng([], RAW)]))
def test_damage_goes_through_as_it_is(octets: bytes, head: bytes) -> None:
    assert len(made_right(head + octets)) == len(head + octets)
