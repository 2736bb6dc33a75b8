"""The capture driver: what it reads, what it writes, and what it says when it cannot."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.engine import Engine
from nfmailguard.errors import CaptureError
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode
from nfmailguard.queues import QueueDriver
from nfmailguard.queues.capture import CaptureFile
from nfmailguard.queues.tap import Tap
from tests.support.captures import (
    ETHERNET,
    NANOSECONDS,
    RAW,
    START,
    Conversation,
    Frame,
    framed,
    frames,
    link_type,
    mail,
    pcap,
    pcapng,
)
from tests.support.wire import RST, parse

#: Other people's captures, where somebody has put some.
REAL = Path(os.environ.get("NFMAILGUARD_CAPTURES") or Path(__file__).parents[3] / "shared" / "captures")
CLIENT_MAC, SERVER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
TO_SERVER, TO_CLIENT = SERVER_MAC + CLIENT_MAC + b"\x08\x00", CLIENT_MAC + SERVER_MAC + b"\x08\x00"
SECOND = 1_000_000_000


def engine(mode: Mode = Mode.ENFORCE, profile: str = "pix63", **options: object) -> Engine:
    options.setdefault("limits", Limits(cookies=0))  # short streams' ACKs are cookies by chance
    return Engine([FlowRule(mode, load_profile(profile))], **options)  # type: ignore[arg-type]


class Replayed:
    """A replay of ``data``; ``error`` is what the run ended with."""

    def __init__(self, folder: Path, data: bytes, by: Engine | None = None, name: str = "in.pcap") -> None:
        (folder / name).write_bytes(data)
        capture = CaptureFile(by, folder / name, folder / "out.pcap", accept_all=by is None)
        self.error: CaptureError | None = None
        capture.open()
        try:
            capture.run()
        except CaptureError as error:
            self.error = error
        capture.close()
        self.counters = capture.counters()
        self.output = (folder / "out.pcap").read_bytes()
        self.frames = frames(self.output)
        c = self.counters
        assert c["packets"] == c["not_ip"] + c["accepted"] + c["replaced"] + c["dropped"] + c["held"]
        assert c["held"] == 0
        assert c["internal_errors"] == 0


def test_it_is_a_queue_driver(tmp_path: Path) -> None:
    driver: QueueDriver = CaptureFile(engine(), tmp_path / "in.pcap")
    driver.stop()
    driver.close()
    driver.close()
    assert driver.counters()["packets"] == 0


# What is accepted


@pytest.mark.parametrize("magic", [0xA1B2C3D4, NANOSECONDS], ids=["microseconds", "nanoseconds"])
@pytest.mark.parametrize("mode", [None, Mode.MONITOR], ids=["accept-all", "monitor"])
def test_what_is_accepted_is_written_to_the_octet_and_the_time(tmp_path: Path, mode: Mode | None, magic: int) -> None:
    given = pcap(framed(mail(), TO_SERVER, TO_CLIENT), magic=magic)
    assert Replayed(tmp_path, given, engine(mode) if mode else None).output == given


def test_nanoseconds_stay(tmp_path: Path) -> None:
    given = [Frame(START + 123_456_789, TO_SERVER + bytes(46))]
    assert [f.now for f in Replayed(tmp_path, pcap(given, magic=NANOSECONDS)).frames] == [START + 123_456_789]


def test_the_other_octet_order_is_read(tmp_path: Path) -> None:
    given = framed(mail(), TO_SERVER, TO_CLIENT)
    assert Replayed(tmp_path, pcap(given, order=">"), engine(Mode.MONITOR)).output == pcap(given)


def test_pcapng_becomes_pcap_with_the_same_packets_and_nanoseconds(tmp_path: Path) -> None:
    given = [Frame(frame.now + 7, frame.data) for frame in framed(mail(), TO_SERVER, TO_CLIENT)]
    assert Replayed(tmp_path, pcapng(given), engine(Mode.MONITOR)).output == pcap(given, magic=NANOSECONDS)


@pytest.mark.parametrize("data", [b"", b"\0" * 13, TO_SERVER[:12] + b"\x08\x06" + bytes(28), TO_SERVER + b"\x65junk"])
def test_what_is_no_ip_packet_passes_untouched(tmp_path: Path, data: bytes) -> None:
    given = pcap([Frame(START, data)])
    replayed = Replayed(tmp_path, given, engine())
    assert replayed.output == given
    assert replayed.counters["not_ip"] == 1


def test_a_link_type_not_understood_passes_untouched(tmp_path: Path) -> None:
    given = pcap(framed(mail(), TO_SERVER, TO_CLIENT), 105)
    replayed = Replayed(tmp_path, given, engine())
    assert replayed.output == given
    assert replayed.counters["not_ip"] == len(replayed.frames)


def test_times_that_go_back_stay_while_the_clock_does_not(tmp_path: Path) -> None:
    given = framed(mail(), TO_SERVER, TO_CLIENT)
    given = [Frame(frame.now - (number % 2) * SECOND, frame.data) for number, frame in enumerate(given)]
    replayed = Replayed(tmp_path, pcap(given), engine(Mode.MONITOR))
    assert replayed.output == pcap(given)
    assert replayed.counters["clock_back"] == len(given) // 2


@pytest.mark.parametrize("profile", ["pix51", "pix63", "asa"])
@pytest.mark.parametrize("mode", [Mode.MONITOR, Mode.ENFORCE])
@pytest.mark.parametrize(
    "path", sorted(REAL.glob("*.pcap*")) or [None], ids=lambda path: path.name if path else "no captures"
)
def test_real_captures(tmp_path: Path, path: Path | None, mode: Mode, profile: str) -> None:
    if path is None:
        pytest.skip(f"no captures in {REAL} (NFMAILGUARD_CAPTURES names another folder)")
    data = path.read_bytes()
    plain = gzip.decompress(data) if path.suffix == ".gz" else data
    replayed = Replayed(tmp_path, data, engine(mode, profile), path.name)
    assert replayed.error is None
    if mode is Mode.MONITOR and path.suffix != ".pcapng":
        assert replayed.output == plain
    by_libpcap = Replayed(tmp_path, data, None, path.name)
    if mode is Mode.MONITOR:
        assert replayed.output == by_libpcap.output
    if path.suffix != ".pcapng":
        assert by_libpcap.output == plain
    came = {frame.data for frame in by_libpcap.frames}
    for frame in replayed.frames:
        if frame.data not in came:
            parse(packet_of(frame.data, link_type(replayed.output)))


def packet_of(data: bytes, link: int) -> bytes:
    """The IP packet of a frame, without what stands behind it."""
    packet = data[{ETHERNET: 14, RAW: 0, 0: 4}[link] :]
    length = int.from_bytes(packet[2:4]) if packet[0] >> 4 == 4 else 40 + int.from_bytes(packet[4:6])
    return packet[:length]


# What is changed

LINKS = {
    "ethernet": (ETHERNET, TO_SERVER, TO_CLIENT),
    "vlan": (
        ETHERNET,
        TO_SERVER[:12] + b"\x81\x00\x20\x05" + TO_SERVER[12:],
        TO_CLIENT[:12] + b"\x81\x00\x20\x05" + TO_CLIENT[12:],
    ),
    "qinq": (
        ETHERNET,
        TO_SERVER[:12] + b"\x88\xa8\x00\x05\x81\x00\x00\x06" + TO_SERVER[12:],
        TO_CLIENT[:12] + b"\x88\xa8\x00\x05\x81\x00\x00\x06" + TO_CLIENT[12:],
    ),
    "raw": (RAW, b"", b""),
    "ipv4": (228, b"", b""),
    "null": (0, b"\2\0\0\0", b"\2\0\0\0"),
    "null, other order": (0, b"\0\0\0\2", b"\0\0\0\2"),
    "loop": (108, b"\0\0\0\2", b"\0\0\0\2"),
    "sll": (
        113,
        b"\0\0\0\1\0\6" + CLIENT_MAC + b"\0\0\x08\0",
        b"\0\4\0\1\0\6" + SERVER_MAC + b"\0\0\x08\0",
    ),
    "sll2": (
        276,
        b"\x08\0\0\0\0\0\0\3\0\1\0\6" + CLIENT_MAC + b"\0\0",
        b"\x08\0\0\0\0\0\0\4\0\1\4\6" + SERVER_MAC + b"\0\0",
    ),
}
#: Of SLL only the sender's address is there, and ours is not known; the interface is the last frame's.
EMITTED_HEADERS = {"sll": b"\0\4\0\1" + bytes(10) + b"\x08\0", "sll2": b"\x08\0\0\0\0\0\0\4\0\1\4" + bytes(9)}


@pytest.mark.parametrize("name", LINKS)
def test_a_changed_packet_keeps_its_link_header_and_what_stands_behind_it(tmp_path: Path, name: str) -> None:
    link, to_server, to_client = LINKS[name]
    talk = mail()
    given = framed(talk, to_server, to_client, b"behind")
    replayed = Replayed(tmp_path, pcap(given, link), engine())
    assert link_type(replayed.output) == link
    assert replayed.counters["replaced"] == 2
    assert [frame.now for frame in replayed.frames] == [frame.now for frame in given]
    changed = []
    for came, left, (direction, packet) in zip(given, replayed.frames, talk.packets, strict=True):
        header = to_server if direction else to_client
        assert len(left.data) == len(came.data) == left.length
        assert left.data[: len(header)] == header
        assert left.data.endswith(b"behind")
        segment = parse(left.data[len(header) : -6])
        if left.data != came.data:
            changed.append((parse(packet).payload, segment.payload))
    assert changed == [(b"220 mx.example ESMTP\r\n", b"220 " + b"*" * 16 + b"\r\n"), (b"EHLO a\r\n", b"XXXX a\r\n")]


@pytest.mark.parametrize("name", LINKS)
def test_a_reset_goes_both_ways_behind_right_link_headers(tmp_path: Path, name: str) -> None:
    link, to_server, to_client = LINKS[name]
    talk = Conversation()
    talk.server(b"220 mx\r\n")
    talk.client(b"HELO a\r\n")
    talk.server(b"354 nobody asked\r\n")
    replayed = Replayed(tmp_path, pcap(framed(talk, to_server, to_client), link), engine())
    assert replayed.counters["emitted"] == 2
    assert replayed.counters["dropped"] == 1
    ours = EMITTED_HEADERS.get(name)
    expected = (ours, ours) if ours else (to_server, to_client)
    for frame, header, end in zip(replayed.frames[-2:], expected, (True, False), strict=True):
        assert frame.data[: len(header)] == header
        segment = parse(frame.data[len(header) :])
        assert segment.flags & RST
        assert segment.destination == talk.ends[not end]
        assert frame.now == START + 5_000_000


@pytest.mark.parametrize(
    ("link", "header"),
    [
        (ETHERNET, TO_SERVER[:12] + b"\x86\xdd"),
        (229, b""),
        (RAW, b""),
        (0, b"\x0a\0\0\0"),
        (0, b"\x1e\0\0\0"),
        (108, b"\0\0\0\x18"),
    ],
)
def test_ipv6(tmp_path: Path, link: int, header: bytes) -> None:
    replayed = Replayed(tmp_path, pcap(framed(mail(6), header, header), link), engine())
    assert replayed.counters["replaced"] == 2
    for frame in replayed.frames:
        parse(frame.data[len(header) :])


def test_a_checksum_left_to_the_network_card_is_no_damage(tmp_path: Path) -> None:
    talk = mail()
    for number, (direction, packet) in enumerate(talk.packets):
        pseudo = packet[12:20] + b"\0\6" + (len(packet) - 20).to_bytes(2)
        total = sum(int.from_bytes(pseudo[at : at + 2]) for at in range(0, 12, 2))
        partial = (total & 0xFFFF) + (total >> 16)
        talk.packets[number] = direction, packet[:36] + partial.to_bytes(2) + packet[38:]
    by = engine()
    replayed = Replayed(tmp_path, pcap(framed(talk), RAW), by)
    assert replayed.counters["checksum_partial"] == len(talk.packets)
    assert replayed.counters["replaced"] == 2
    assert by.counters()["bad_checksum"] == 0


def test_a_frame_cut_by_the_snap_length_is_told_to_the_core(tmp_path: Path) -> None:
    given = [
        Frame(frame.now, frame.data[:60], len(frame.data)) if len(frame.data) > 60 else frame
        for frame in framed(mail(), TO_SERVER, TO_CLIENT)
    ]
    by = engine(Mode.MONITOR)
    replayed = Replayed(tmp_path, pcap(given), by)
    assert replayed.output == pcap(given)
    assert replayed.counters["truncated"] == by.counters()["truncated"] > 0


# What is held


def held_command() -> tuple[Conversation, list[Frame]]:
    """A command whose second half comes first."""
    talk = Conversation()
    talk.server(b"220 mx\r\n")
    talk.client(b"HELO a\r\n")
    talk.server(b"250 mx\r\n")
    talk.client(b"VRFY ")
    talk.client(b"b\r\n")
    talk.packets[-2:] = talk.packets[:-3:-1]
    return talk, framed(talk, TO_SERVER, TO_CLIENT, b"behind")


def test_a_held_packet_leaves_when_the_gap_is_filled_with_the_time_of_leaving(tmp_path: Path) -> None:
    _, given = held_command()
    replayed = Replayed(tmp_path, pcap(given), engine())
    first, second = replayed.frames[-2:]
    assert parse(first.data[14:-6]).payload == b"XXXX "
    assert parse(second.data[14:-6]).payload == b"b\r\n"
    assert second.data.endswith(b"behind")
    assert first.now == second.now == given[-1].now


def test_a_packet_held_too_long_is_dropped_at_its_deadline(tmp_path: Path) -> None:
    _, given = held_command()
    given = [*given[:-1], Frame(given[-1].now + 31 * SECOND, TO_SERVER[:12] + b"\x08\x06" + bytes(28))]
    by = engine(limits=Limits(held=30.0))
    replayed = Replayed(tmp_path, pcap(given), by)
    assert by.counters()["held_expired"] == 1
    assert replayed.counters["dropped"] == 1
    assert replayed.frames[-1].data == given[-1].data


def test_what_is_held_at_the_end_is_answered(tmp_path: Path) -> None:
    _, given = held_command()
    replayed = Replayed(tmp_path, pcap(given[:-1]), engine())
    assert replayed.counters["dropped"] == 1
    assert len(replayed.frames) == len(given) - 2


def test_replaying_what_a_tap_saw_gives_what_it_saw_leave(tmp_path: Path) -> None:
    talk, _ = held_command()
    talk.server(b"354 nobody asked\r\n")  # resets
    live, tap = engine(), Tap(str(tmp_path / "in.pcap"), str(tmp_path / "left.pcap"))
    writer = tap.open()
    for number, (_, packet) in enumerate(talk.packets):
        now = START + number * 1_000_001
        writer.incoming(packet, now, number)
        for kind, id, data, _ in live.process(packet, now, number):
            writer.operation(kind, id, data, now)
    tap.close()
    replayed = Replayed(tmp_path, (tmp_path / "in.pcap").read_bytes(), engine())
    assert replayed.counters["emitted"] == 2
    assert replayed.output == (tmp_path / "left.pcap").read_bytes()


# Records


def test_no_record_is_lost_when_somebody_takes_them(tmp_path: Path) -> None:
    talk = Conversation()
    talk.server(b"220 mx\r\n")
    for _ in range(300):
        talk.client(b"VRFY b\r\n" * 150)
        for _ in range(150):
            talk.server(b"252 no\r\n")
    (tmp_path / "in.pcap").write_bytes(pcap(framed(talk), RAW))
    by = engine(limits=Limits(cookies=0, junk_commands=0))
    taken: list[tuple[object, ...]] = []
    capture = CaptureFile(by, tmp_path / "in.pcap", drain=lambda: taken.extend(by.drain(1 << 20)))
    capture.open()
    capture.run()
    capture.close()
    assert by.counters()["records_lost"] == 0
    assert by.counters()["finding.command.denied"] == 300 * 150
    # Of the findings the first are told, then each time their number has doubled, and how many at the end.
    denied = [record[17][1] for record in taken if record[0] in (1, 6) and record[12] == 1]
    assert denied == [*range(1, 17), *(16 << doubled for doubled in range(1, 12)), 300 * 150]
    assert sum(record[0] == 2 for record in taken) == 300 * 150


# Bad input


@pytest.mark.parametrize("cut", [1, 10, 20])
def test_a_capture_cut_short_is_used_as_far_as_it_goes(tmp_path: Path, cut: int) -> None:
    whole = framed(mail(), TO_SERVER, TO_CLIENT)
    replayed = Replayed(tmp_path, pcap(whole)[:-cut], engine(Mode.MONITOR))
    assert replayed.output == pcap(whole[:-1])
    assert f"in.pcap: ends badly behind packet {len(whole) - 1}, all before it was replayed: trunc" in str(
        replayed.error
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "truncated"), (b"hello, this is text and no capture", "unknown file format"), (b"\x1f\x8bjunk", "damaged")],
)
def test_what_is_no_capture_is_refused_and_nothing_made(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "in.pcap").write_bytes(data)
    capture = CaptureFile(engine(), tmp_path / "in.pcap", tmp_path / "out.pcap")
    with pytest.raises(CaptureError, match=f"in.pcap: no capture that can be read: .*{words}") as raised:
        capture.open()
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2
    assert not (tmp_path / "out.pcap").exists()


@pytest.mark.parametrize(("name", "words"), [("nowhere.pcap", "No such file"), ("", "Is a directory")])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(CaptureError, match=f"cannot read: {words}"):
        CaptureFile(engine(), tmp_path / name).open()


def test_gzip_is_read_whatever_its_name(tmp_path: Path) -> None:
    given = pcap(framed(mail(), TO_SERVER, TO_CLIENT))
    assert Replayed(tmp_path, gzip.compress(given), engine(Mode.MONITOR)).output == given


def test_damaged_gzip_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = [Frame(START + number, os.urandom(1000)) for number in range(100)]
    replayed = Replayed(tmp_path, gzip.compress(pcap(whole))[:50_000])
    assert 40 < len(replayed.frames) < 60
    assert [frame.data for frame in replayed.frames] == [frame.data for frame in whole[: len(replayed.frames)]]
    assert "the compressed data is damaged" in str(replayed.error)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    given = pcap(framed(mail(), TO_SERVER, TO_CLIENT))
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[given])
    writer.start()
    capture = CaptureFile(engine(Mode.MONITOR), tmp_path / "pipe", tmp_path / "out.pcap")
    capture.open()
    capture.run()
    capture.close()
    writer.join()
    assert (tmp_path / "out.pcap").read_bytes() == given


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_the_input_is_never_written_to(tmp_path: Path, link: object) -> None:
    given = pcap(framed(mail(), TO_SERVER, TO_CLIENT))
    (tmp_path / "in.pcap").write_bytes(given)
    link(tmp_path / "in.pcap", tmp_path / "other")  # type: ignore[operator]
    for name in ("in.pcap", "other"):
        with pytest.raises(CaptureError, match=f"{name}: is the input; write to another file"):
            CaptureFile(engine(), tmp_path / "in.pcap", tmp_path / name).open()
    assert (tmp_path / "in.pcap").read_bytes() == given


def test_an_output_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_bytes(pcap([]))
    with pytest.raises(CaptureError, match=r"nowhere/out.pcap: cannot write: No such file"):
        CaptureFile(engine(), tmp_path / "in.pcap", tmp_path / "nowhere" / "out.pcap").open()


@pytest.mark.parametrize("repeat", [1, 1000], ids=["at the end", "on the way"])
def test_a_full_disk_is_told(tmp_path: Path, repeat: int) -> None:
    (tmp_path / "in.pcap").write_bytes(pcap([Frame(START, bytes(1000))] * repeat))
    capture = CaptureFile(engine(), tmp_path / "in.pcap", "/dev/full")
    capture.open()
    with pytest.raises(CaptureError, match=r"/dev/full: the output is incomplete: No space left"):
        capture.run()
    capture.close()


def test_an_existing_output_is_replaced_and_a_new_one_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    given = pcap([Frame(START, bytes(60))])
    assert Replayed(tmp_path, given).output == given
    assert (tmp_path / "out.pcap").stat().st_mode & 0o777 == 0o600
    (tmp_path / "out.pcap").write_bytes(bytes(100_000))
    assert Replayed(tmp_path, given).output == given


def test_stop_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_bytes(pcap([Frame(START, bytes(60))] * 100_000))
    capture = CaptureFile(engine(), tmp_path / "in.pcap", drain=lambda: capture.stop())  # noqa: PLW0108 - made here
    capture.open()
    capture.run()
    capture.close()
    assert 0 < capture.counters()["packets"] < 100_000


@given(st.data())
def test_damage_never_raises_anything_but_capture_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    link = data.draw(st.sampled_from([0, 1, 101, 108, 113, 228, 229, 276]))
    given = bytearray(pcap(framed(mail(), TO_SERVER, TO_CLIENT), link))
    for _ in range(data.draw(st.integers(1, 20))):
        at = data.draw(st.integers(24, len(given) - 1))
        given[at] = data.draw(st.integers(0, 255))
    Replayed(folder, bytes(given), engine(data.draw(st.sampled_from([Mode.ENFORCE, Mode.MONITOR]))))
    shutil.rmtree(folder)


def test_tcpdump_reads_the_output(tmp_path: Path) -> None:
    tcpdump = shutil.which("tcpdump")
    if tcpdump is None:
        pytest.skip("tcpdump is not installed")
    replayed = Replayed(tmp_path, pcap(framed(mail(), TO_SERVER, TO_CLIENT)), engine())
    shown = subprocess.run(
        [tcpdump, "-nvv", "-r", tmp_path / "out.pcap"], capture_output=True, text=True, check=True
    ).stdout
    assert shown.count("(correct)") == len(replayed.frames)
    assert "incorrect" not in shown
    assert "220 ****************" in shown


@pytest.mark.parametrize("first", [25, 1 << 16])
def test_room_is_looked_for_however_a_packed_capture_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    given = pcap([]) + bytes(1 << 20)
    asked = []

    def usage(path: str) -> shutil._ntuple_diskusage:
        asked.append(path)
        return shutil._ntuple_diskusage(1 << 30, 0, (1 << 30) if len(asked) < 4 else 0)

    monkeypatch.setattr("nfmailguard.queues.capture._LOOK", 1 << 17)
    monkeypatch.setattr("nfmailguard.queues.capture.shutil.disk_usage", usage)
    with pytest.raises(CaptureError, match="no room to unpack it"):
        Replayed(tmp_path, gzip.compress(given[:first]) + gzip.compress(given[first:]))
    assert len(asked) == 4
