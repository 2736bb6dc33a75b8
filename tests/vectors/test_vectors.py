"""Every vector through the core, as real packets, and through the reference model."""

from __future__ import annotations

import re

import pytest

from nfmailguard.policy.load import load_profile
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.turns import Turn
from tests.support.dialogue import Dialogue, Finding
from tests.vectors.cases import Case, cases

CASES = cases()
WHOLE = [case for case in CASES if not case.core_only]
CUT = [case for case in WHOLE if not case.by_packet]
LINE_BYTES_SHOWN = 254  # of a line, as much as the core keeps

families = pytest.mark.parametrize("family", [4, 6])


def through_core(case: Case, packets: list[tuple[bool, bytes]], family: int) -> tuple[bytes, list[Finding], Dialogue]:
    """What the vector's packets came to, and what was found in them."""
    dialogue = Dialogue.under(case.policy, family=family, restore=case.restore)
    for to_server, data in case.before:
        dialogue.say(to_server, data)
    start, known = len(dialogue.received[case.to_server]), len(dialogue.findings)
    for to_server, data in packets:
        dialogue.say(to_server, data)
    return bytes(dialogue.received[case.to_server][start:]), dialogue.findings[known:], dialogue


def through_reference(case: Case) -> tuple[bytes, list[str], str | None]:
    turns = [Turn(*turn) for turn in (*case.before, *case.packets)]
    known = translate(case.policy, turns[: len(case.before)], restore=case.restore)
    result = translate(case.policy, turns, restore=case.restore)
    out = b"".join(turn.data for turn in result.turns[len(case.before) :])
    ended = None if result.ended is None else str(result.ended)
    return out, [finding.name for finding in result.findings[len(known.findings) :]], ended


@pytest.mark.parametrize("case", CASES, ids=str)
@families
def test_the_core_gives_the_vector_byte_for_byte(case: Case, family: int) -> None:
    out, findings, dialogue = through_core(case, list(case.packets), family)
    assert out == case.out, case.source
    if case.findings is not None:
        assert [finding.name for finding in findings] == list(case.findings)
    if case.ends:
        assert findings[-1].action == case.ends
        delivered = {side: bytes(octets) for side, octets in dialogue.received.items()}
        dialogue.client(b"NOOP\r\n")
        dialogue.server(b"250 ok\r\n")
        assert delivered == dialogue.received, "a dropped connection delivers nothing more, either way"
        assert dialogue.engine.counters()["flows_dropped"] == 1


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_the_reference_gives_the_vector_byte_for_byte(case: Case) -> None:
    out, findings, ended = through_reference(case)
    assert out == case.out, case.source
    if case.findings is not None:
        assert findings == list(case.findings)
    assert ended == case.ends


@pytest.mark.parametrize("case", CUT, ids=str)
def test_cut_at_every_byte_the_decisions_are_the_same(case: Case) -> None:
    _, whole, _ = through_core(case, list(case.packets), 4)
    octets = b"".join(data for _, data in case.packets)
    for cut in range(1, len(octets)):
        packets = [(case.to_server, octets[:cut]), (case.to_server, octets[cut:])]
        out, findings, _ = through_core(case, packets, 4)
        assert [(f.name, f.action, f.offset, f.state) for f in findings] == [
            (f.name, f.action, f.offset, f.state) for f in whole
        ], cut
        if not case.ends:
            assert len(out) == len(octets)
            assert_nothing_denied_is_readable(case, out, octets)
        if is_greeting(case):
            assert out == case.out, cut


@pytest.mark.parametrize("case", CUT, ids=str)
def test_octet_by_octet_the_decisions_are_the_same(case: Case) -> None:
    _, whole, _ = through_core(case, list(case.packets), 4)
    octets = b"".join(data for _, data in case.packets)
    out, findings, _ = through_core(case, [(case.to_server, octets[i : i + 1]) for i in range(len(octets))], 4)
    assert [(f.name, f.action, f.offset) for f in findings] == [(f.name, f.action, f.offset) for f in whole]
    if not case.ends:
        assert_nothing_denied_is_readable(case, out, octets)
    if is_greeting(case):
        assert out == case.out


def is_greeting(case: Case) -> bool:
    """Whether each of the vector's octets is masked by what stands before it, so wherever a packet ends."""
    return not case.to_server and not case.before


@families
def test_72_a_space_after_a_zero_survives_wherever_it_stands(family: int) -> None:
    policy = load_profile("pix63")
    for place in (LINE_BYTES_SHOWN - 3, LINE_BYTES_SHOWN - 2, LINE_BYTES_SHOWN - 1, LINE_BYTES_SHOWN, 600):
        text = b"m" * place + b"0 \r 0"
        for cut in (0, place + 4, place + 5, place + 6):
            dialogue = Dialogue.under(policy, family=family)
            for part in (b"220 " + text)[:cut], (b"220 " + text)[cut:] + b"\r\n":
                dialogue.server(part)
            assert dialogue.received_by_client == b"220 " + b"*" * place + b"0 **0\r\n", (place, cut)


def assert_nothing_denied_is_readable(case: Case, out: bytes, octets: bytes) -> None:
    """No denied verb or keyword, whole, where one would be read."""
    if case.restore:
        return  # it denies nothing
    allowed = {verb.encode() for verb in case.policy.commands.allow}
    if case.to_server and case.read_as_commands:
        for line in out.split(b"\r\n"):
            verb = line.split(b" ")[0].upper()
            assert verb in allowed or b"X" in verb or not verb, (octets, out)
            assert verb in allowed or verb not in NO_MASK
    if not case.to_server and case.policy.replies.keywords:
        for came, left in zip(octets.split(b"\r\n")[1:], out.split(b"\r\n")[1:], strict=True):
            keyword = re.match(rb"250[- ]([^ =]+)", came)
            if keyword and keyword[1].upper().decode() not in case.policy.replies.keywords:
                assert not left[4:].upper().startswith(keyword[1].upper()), (came, left)


NO_MASK = (b"EXPN", b"ONEX")  # verbs with an X of their own


# Other people's opinions of our output (fact sheet, section 4 and vectors 59 to 62).

NMAP = re.compile(rb"^220 [\*\d\ ]{2,300}\r\n")  # nmap-service-probes: Cisco PIX sanitized smtpd
RECOG = re.compile(rb"^[\*20 ]{1,1000}$")  # Rapid7 recog, smtp_banners.xml
RECOG_CMAP = re.compile(rb"^SMTP/cmap ready_+$")


def banner(number: int) -> bytes:
    case = next(case for case in CASES if case.number == number)
    return through_core(case, list(case.packets), 4)[0]


def postfix_sees_a_pix(greeting: bytes) -> bool:
    """smtp_proto.c: the whole greeting, code included, consists of ``20 *`` and white space."""
    return not greeting.replace(b"\r\n", b"\n").strip(b"20 *\t\n")


@pytest.mark.parametrize("number", [1, 3, 5, 6, 7])
def test_59_nmap_takes_our_banner_for_a_pix(number: int) -> None:
    assert NMAP.match(banner(number))


def test_60_without_separator_nmap_does_not_and_postfix_does() -> None:
    assert not NMAP.match(banner(4))
    assert postfix_sees_a_pix(banner(4))


def test_61_a_kept_dash_hides_the_box_from_postfix() -> None:
    assert not postfix_sees_a_pix(banner(12))
    assert postfix_sees_a_pix(banner(11))


@pytest.mark.parametrize("number", [1, 3, 5, 7])
def test_62_recog_takes_our_banner_for_a_pix(number: int) -> None:
    assert RECOG.match(banner(number)[4:].rstrip(b"\r\n"))


def test_63_recog_takes_our_padded_banner_for_an_early_pix() -> None:
    assert RECOG_CMAP.match(banner(9)[4:].rstrip(b"\r\n"))


def test_64_a_short_banner_has_not_the_ten_stars_powermta_wants() -> None:
    assert banner(10).count(b"*") < 10 <= banner(7).count(b"*")
