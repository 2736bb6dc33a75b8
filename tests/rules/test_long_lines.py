"""The dialogue: lines longer than some servers read as one (docs/streams.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

import pytest

from nfmailguard.policy.load import profile_names
from nfmailguard.policy.model import Action, CommandPolicy, EhloMask, Policy, ReplyPolicy
from nfmailguard.smtp.verbs import VERBS
from tests.rules.gateway import ACCEPT, DROP, REPLACE, RESET, Connection, Gateway, profile

families = pytest.mark.parametrize("family", [4, 6])
ALL = Policy("all")  # every verb
#: Octets at which servers are known to give a line up and read its rest as another: RFC 5321 4.5.3.1.4 and Exim once,
#: older Exim, older Postfix and sendmail without SASL, sendmail with it, Exim; and round numbers between them.
REACHES = [512, 998, 1000, 1001, 1024, 2048, 4096, 8192, 12288, 16384, 65536]
NAMES = [verb.name for verb in VERBS if verb.name[:1].isalpha()]
EXTENDED = Policy(
    "extended",
    commands=CommandPolicy(allow=("EHLO", "MAIL", "RCPT", "AUTH", "NOOP")),
    replies=ReplyPolicy(ehlo=EhloMask.E1, keywords=("SIZE",)),
)


def lines_of(stream: bytes, reach: int) -> Iterator[bytes]:
    """What a server reads that gives a line up after so many octets, one fewer, or one more."""
    for size in (reach - 1, reach, reach + 1):
        for line in stream.split(b"\r\n"):
            yield from (line[at : at + size] for at in range(0, len(line), size))


def denied_in(policy: Policy, stream: bytes, reach: int) -> list[bytes]:
    """The lines in which such a server finds a verb that the policy denies, as a word or by its first letters."""
    allowed = {verb.upper() for verb in policy.commands.allow}
    denied = [name.encode() for name in NAMES if name not in allowed]
    return [line for line in lines_of(stream, reach) for verb in denied if line.upper().startswith(verb)]


def through(policy: Policy, octets: bytes, *before: tuple[bool, bytes], size: int = 1400) -> bytes:
    """What the server reads of a client's octets that come in segments of this size."""
    connection = Connection(Gateway(policy)).greeted()
    for to_server, said in before:
        connection.say(to_server, said)
    had = len(connection.server_reads)
    for at in range(0, len(octets), size):
        connection.client(octets[at : at + size])
    return connection.server_reads[had:]


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize("verb", [b"NOOP", b"EXPN", b"W"])
def test_long_line_shows_no_profile_s_server_a_denied_verb(name: str, verb: bytes) -> None:
    policy = profile(name)
    for reach in REACHES:
        for place in (reach - 2, reach - 1, reach, reach + 1):
            for end in (b"EHLO x", b"EXPN root", b"STARTTLS"):
                said = verb + b" " + b"a" * (place - len(verb) - 1) + end + b"\r\n"
                assert denied_in(policy, through(policy, said, size=30000), reach) == []


@pytest.mark.parametrize("action", [Action.PASS, Action.LOG])
@pytest.mark.parametrize("limit", [None, 24, 5000])
def test_long_line_is_masked_whatever_the_policy_says(action: Action, limit: int | None) -> None:
    policy = Policy(
        "p", commands=CommandPolicy(allow=("NOOP",), line_length=limit), actions={"command.too_long": action}
    )
    connection = Connection(Gateway(policy)).greeted()
    connection.client(b"NOOP " + b"a" * 507 + b"EHLO x\r\n")
    assert connection.server_reads == b"NOOP " + b"a" * 507 + b"XXXXXX\r\n"
    assert connection.names.count("command.line_cut") == 1


@families
def test_long_line_of_512_octets_is_a_line(family: int) -> None:
    connection = Connection(Gateway(ALL), family).greeted()
    line = b"NOOP " + b"a" * 507 + b"\r\n"
    assert connection.client(line) == [ACCEPT]
    assert connection.names == []


@pytest.mark.parametrize("action", [Action.DROP_CONNECTION, Action.RESET])
def test_long_line_may_end_the_flow(action: Action) -> None:
    policy = Policy("p", actions={"command.line_cut": action})
    connection = Connection(Gateway(policy)).greeted()
    assert connection.client(b"NOOP " + b"a" * 508 + b"\r\n") == ([DROP] if action is Action.DROP_CONNECTION else RESET)


@families
@pytest.mark.parametrize("name", ["ios-esmtp", "pix70"])
def test_long_line_of_an_extension_s_parameters_is_a_line(family: int, name: str) -> None:
    for said in (
        b"RCPT TO:<%s@b.example> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;%s@b.example\r\n"
        % (b"a" * 64, b"+3D" * 160),
        b"MAIL FROM:<bounce-%s@b.example> SIZE=12345678 BODY=8BITMIME RET=HDRS ENVID=%s AUTH=%s\r\n"
        % (b"v" * 200, b"e" * 100, b"+2B" * 160),
    ):
        assert len(said) > 600
        connection = Connection(Gateway(name), family).greeted()
        assert connection.client(said) == [ACCEPT]
        assert connection.server_reads == said
        assert connection.names == []


@pytest.mark.parametrize("name", ["ios-esmtp", "pix70"])
@pytest.mark.parametrize("verb", [b"RCPT TO:<a@b> ", b"MAIL FROM:<a@b> "])
def test_long_line_of_an_extension_s_parameters_has_an_end(name: str, verb: bytes) -> None:
    for reach in (2048, 4096, 16384):
        for place in range(reach - 3, reach + 4):
            said = verb + b"X=" + b"a" * (place - len(verb) - 2) + b"EXPN x STARTTLS\r\n"
            assert denied_in(profile(name), through(profile(name), said), reach) == []


@pytest.mark.parametrize("name", ["ios-smtp", "fwsm2", "pix40", "pix63"])
def test_long_line_has_no_parameters_where_there_is_no_ehlo(name: str) -> None:
    said = b"RCPT TO:<a@b> X=" + b"a" * 496 + b"EHLO x\r\n"
    assert b"EHLO" not in through(profile(name), said)


@pytest.mark.parametrize("policy", [ALL, EXTENDED], ids=["all", "extended"])
def test_long_line_is_the_same_wherever_it_is_cut(policy: Policy) -> None:
    for said in (b"NOOP " + b"a" * 600 + b"\r\n", b"RCPT TO:" + b"a" * 2100 + b" \r\n", b"X" * 600 + b" b\r\n"):
        whole = through(policy, said, size=5000)
        assert whole != said
        for size in (1, 7, 511, 512, 513):
            assert through(policy, said, size=size) == whole


TOKEN = b"YIIZzwYJKoZIhvcSAQICAQBu" * 512  # 12288 octets, as GSSAPI with a large ticket has them


@families
@pytest.mark.parametrize("size", [600, 2046, 2048, 4000, 12286])
def test_long_secret_of_an_honest_client_passes(family: int, size: int) -> None:
    token = TOKEN[: size - 2] + b"=="
    for before, said in (
        ([(True, b"AUTH GSSAPI\r\n"), (False, b"334 \r\n")], token + b"\r\n"),
        ([], b"AUTH XOAUTH2 " + token[13:] + b"\r\n"),
    ):
        connection = Connection(Gateway(EXTENDED), family).greeted()
        for to_server, octets in before:
            connection.say(to_server, octets)
        assert connection.client(said) == [ACCEPT]
        assert connection.server_reads.endswith(said)
        assert connection.names == []


BEHIND_AUTH = ((True, b"AUTH LOGIN\r\n"), (False, b"334 VXNlcm5hbWU6\r\n"))


@pytest.mark.parametrize("reach", [2048, 4096, 12288, 16384])
@pytest.mark.parametrize("end", [b"EHLO x", b"EXPN root", b"NOOP x EXPN", b"starttls x"])
def test_long_secret_has_no_words_behind_the_first_512_octets(reach: int, end: bytes) -> None:
    for place in range(reach - 3, reach + 4):
        line = b"a" * place + end + b"\r\n"
        assert denied_in(EXTENDED, through(EXTENDED, line, *BEHIND_AUTH)[600:], reach) == []
        line = b"AUTH PLAIN " + line[11:]
        assert all(
            b" " not in rest[:12]
            for rest in lines_of(through(EXTENDED, line)[:-2], reach)
            if not rest.startswith(b"AUTH")
        )


@families
@pytest.mark.parametrize("verb", [b"STARTTLS", b"expn", b"DATA", b"TURN"])
@pytest.mark.parametrize("size", [700, 20000])
def test_long_secret_that_ends_in_a_verb_resets(family: int, verb: bytes, size: int) -> None:
    for before, begin in ((BEHIND_AUTH, b""), ((), b"AUTH PLAIN ")):
        connection = Connection(Gateway(EXTENDED), family).greeted()
        for to_server, octets in before:
            connection.say(to_server, octets)
        line = begin + b"A" * (2100 - len(begin)) + verb
        kinds = [connection.client(part) for part in (line[:size], line[size:], b"\r\n") if part]
        assert all(kind == [ACCEPT] for kind in kinds[:-1])
        assert kinds[-1] == RESET
        assert not connection.server_reads.endswith(verb + b"\r\n")
        assert connection.names == ["command.line_cut"]


@families
@pytest.mark.parametrize("verb", [b"EXPN", b"starttls", b"TURN"])
@pytest.mark.parametrize("behind", [b" root", b"AAAA", b"="])
@pytest.mark.parametrize("size", [7, 20000])
def test_long_secret_has_no_verb_s_letters_where_servers_cut(
    family: int, verb: bytes, behind: bytes, size: int
) -> None:
    for place in (511, 1000, 1024, 2047, 2048, 4096, 6144, 8192):
        for before, begin in ((BEHIND_AUTH, b""), ((), b"AUTH PLAIN ")):
            connection = Connection(Gateway(EXTENDED), family).greeted()
            for to_server, octets in before:
                connection.say(to_server, octets)
            line = begin + b"A" * (place - len(begin)) + verb + behind + b"\r\n"
            kinds = [connection.client(line[at : at + size]) for at in range(0, len(line), size)]
            assert RESET in kinds
            assert verb[:4] not in connection.server_reads
            assert connection.names == ["command.line_cut"]


def dialogue_of(policy: Policy, said: bytes, before: tuple[tuple[bool, bytes], ...], size: int) -> list[object]:
    """What enforce and monitor find in segments of that size, and what the server reads where the flow goes on."""
    connection = Connection(Gateway(policy)).greeted()
    for to_server, octets in before:
        connection.say(to_server, octets)
    for at in range(0, len(said), size):
        if connection.client(said[at : at + size]) == RESET:
            return [connection.names, None]
    gateway = connection.gateway
    counts = [engine.core_counters()[1] for engine in (gateway.engine, gateway.watching)]
    return [connection.names, connection.server_reads, gateway.watched_names, *counts]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("policy", [ALL, EXTENDED], ids=["all", "extended"])
def test_long_secret_is_the_same_wherever_it_is_cut(policy: Policy, seed: int) -> None:
    random = Random(seed)
    pieces = [b"EXPN", b"TURN", b"starttls", b"E", b"A" * 37, b"QUFB" * 90, b" ", b"=", b"*", b"\0", b"\n", b"-\0\n"]
    weights = [1, 1, 1, 2, 12, 12, *[seed % 3 / 4] * 4, *[seed % 4 / 4] * 2]
    said = b"".join(random.choices(pieces, weights, k=80)) + b"\r\n"
    for before, begin in ((BEHIND_AUTH, b""), ((), b"AUTH PLAIN ")):
        one = dialogue_of(policy, begin + said, before, 1)
        for size in (3, 200, 513, 5000):
            assert dialogue_of(policy, begin + said, before, size) == one


@pytest.mark.parametrize("place", [513, 700, 1500, 12000])
def test_long_secret_with_a_word_behind_a_verb_s_letters_resets(place: int) -> None:
    connection = Connection(Gateway(EXTENDED)).greeted()
    for to_server, octets in BEHIND_AUTH:
        connection.say(to_server, octets)
    assert connection.client(b"A" * place + b"EXPN root\r\n") == RESET


def test_long_secret_may_have_a_verb_s_letters_where_nobody_cuts() -> None:
    connection = Connection(Gateway(EXTENDED)).greeted()
    assert connection.client(b"AUTH PLAIN " + b"A" * 1500 + b"EXPNAAAA\r\n") == [ACCEPT]


def test_long_secret_that_ends_in_a_verb_within_512_octets_is_one_line_to_all() -> None:
    connection = Connection(Gateway(EXTENDED)).greeted()
    assert connection.client(b"AUTH PLAIN " + b"A" * 497 + b"EXPN\r\n") == [ACCEPT]


@families
@pytest.mark.parametrize("limit", [600, 12286])
def test_long_secret_is_masked_behind_its_limit(family: int, limit: int) -> None:
    commands = CommandPolicy(allow=("AUTH",), secret_length=limit)
    for before, begin in ((BEHIND_AUTH, b""), ((), b"AUTH PLAIN ")):
        connection = Connection(Gateway(Policy("p", commands=commands)), family).greeted()
        for to_server, octets in before:
            connection.say(to_server, octets)
        connection.client(begin + b"A" * (limit - len(begin)) + b"STARTTLS\r\n")
        assert connection.server_reads.endswith(b"A" + b"X" * 8 + b"\r\n")
        assert connection.names == ["command.line_cut"]


@families
@pytest.mark.parametrize("parts", [1, 3, 700])
def test_long_reply_to_ehlo_is_masked_behind_512_octets(family: int, parts: int) -> None:
    connection = Connection(Gateway(EXTENDED), family).greeted()
    connection.client(b"EHLO a\r\n")
    reply = b"250-mx\r\n250-SIZE " + b"1" * 503 + b"250-STARTTLS\r\n250 SIZE " + b"2" * 503 + b"\r\n"
    for at in range(0, len(reply), parts):
        connection.server(reply[at : at + parts])
    assert connection.client_reads.endswith(b"1" * 503 + b"X" * 12 + b"\r\n250 SIZE " + b"2" * 503 + b"\r\n")
    assert connection.names == ["reply.keyword_masked"]


@pytest.mark.parametrize(
    ("parts", "read"),
    [
        ((b"EXPN root\r\n",), b""),
        ((b"EX", b"PN", b"\r\n"), b"EXPN"),
        ((b"starttls\r", b"\n"), b"starttls\r"),
        ((b"vrfy\0x\r\n",), b""),
        ((b"v", b"rfy", b" ", b"x\r\n"), b"vrfy"),
        ((b"HELP\n",), b""),
        ((b"EXPN", b"\rx\r\n"), b"EXPN"),
    ],
)
def test_auth_command_never_stands_alone_in_a_line_behind_auth(parts: tuple[bytes, ...], read: bytes) -> None:
    connection = Connection(Gateway(EXTENDED)).greeted()
    connection.client(b"AUTH LOGIN\r\n")
    connection.server(b"334 \r\n")
    before = len(connection.server_reads)
    kinds = [connection.client(part) for part in parts]
    assert connection.server_reads[before:] == read
    assert RESET in kinds
    assert connection.names[-1] == "command.line_cut"


@pytest.mark.parametrize("line", [b"EXPNroot", b"*", b"NOOP", b"a EXPN", b"", b"aEXPN", b"EXP", b"STARTTLSx", b"EXPN="])
def test_auth_command_is_no_other_line(line: bytes) -> None:
    for at in range(len(line) + 1):
        connection = Connection(Gateway(EXTENDED)).greeted()
        connection.client(b"AUTH LOGIN\r\n")
        connection.server(b"334 \r\n")
        for part in (line[:at], line[at:] + b"\r\n"):
            if part:
                connection.client(part)
        assert connection.server_reads.endswith(b"\r\n" + line + b"\r\n")
        assert connection.names == []


def test_long_reply_to_another_command_stays_as_it_is() -> None:
    connection = Connection(Gateway(EXTENDED)).greeted()
    connection.client(b"NOOP\r\n")
    assert connection.server(b"250-" + b"a" * 700 + b"250-STARTTLS\r\n250 ok\r\n") == [ACCEPT]


@families
def test_data_shapes_are_none_where_only_a_long_line_is_cut(family: int) -> None:
    connection = Connection(Gateway("pix63"), family).in_text()
    for size in REACHES[:8]:
        text = b"a" * (size - 1) + b".\r\nEHLO x\r\n"
        assert connection.client(text) in ([ACCEPT], [ACCEPT])
    assert re.search(rb"a\.\r\nEHLO x\r\n", connection.server_reads)
    assert connection.client(b".\r\nEXPN\r\n") == [REPLACE]
