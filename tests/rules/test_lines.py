"""The dialogue: what every server has to read the same way, octet by octet (docs/streams.md)."""

from __future__ import annotations

import base64
from random import Random

import pytest

from nfmailguard.policy.model import Action, AddressPolicy, CommandPolicy, DataPolicy, Policy, UnknownCommand
from tests.rules.gateway import ACCEPT, DROP, RESET, Connection, Gateway, profile
from tests.support.wire import ACK

families = pytest.mark.parametrize("family", [4, 6])
ALL = Policy("all")  # every verb
NOOP_ONLY = Policy("noop", commands=CommandPolicy(allow=("NOOP", "NO")))


def cut(connection: Connection, *parts: bytes) -> bytes:
    """What the server reads of a client's octets that come in these segments."""
    before = len(connection.server_reads)
    for part in parts:
        connection.client(part)
    return connection.server_reads[before:]


@families
@pytest.mark.parametrize(
    ("parts", "read"),
    [
        ((b"NO", b"OP\r\n"), b"NOOP\r\n"),
        ((b"E", b"XPN root\r\n"), b"XXXX root\r\n"),
        ((b"N", b"OPE root\r\n"), b"NXXX root\r\n"),
        ((b"NO", b"E", b"X root\r\n"), b"NOXX root\r\n"),
        ((b"NOO", b"X\r\n"), b"NOOX\r\n"),
        ((b"R", b"S", b"S", b"ET\r\n"), b"RSXXX\r\n"),
        ((b"DA", b"TES\r\n"), b"DAXXX\r\n"),
    ],
)
def test_cut_verb_passes_while_an_allowed_one_is_possible(family: int, parts: tuple[bytes, ...], read: bytes) -> None:
    connection = Connection(family=family).greeted()
    assert cut(connection, *parts) == read


@families
@pytest.mark.parametrize(
    ("parts", "read"),
    [
        ((b"RSET", b"X root\r\n"), b"RSETXXXXXX\r\n"),  # to a server that knows a verb by four letters, RSET it is
        ((b"DATA", b"BASE a b\r\n"), b"DATAXXXXXXXX\r\n"),
        ((b"DATA", b"B", b"ASE", b" a b\r\n"), b"DATAXXXXXXXX\r\n"),
        ((b"DAT", b"ABASE a\r\n"), b"DATXXXXX a\r\n"),
        ((b"DAT", b" a\r\n"), b"DATXX\r\n"),  # all of a denied one has passed
    ],
)
def test_cut_verb_that_begins_with_a_whole_allowed_one_hides_the_line(
    family: int, parts: tuple[bytes, ...], read: bytes
) -> None:
    connection = Connection(family=family).greeted()
    assert cut(connection, *parts) == read
    assert connection.names == ["command.denied"]


@pytest.mark.parametrize(
    "verb", [b"EXPN", b"EHLO", b"DATABASE", b"DAT", b"RSETT", b"QUITE", b"NOOPS", b"MAIL\x00", b"RC"]
)
def test_cut_verb_anywhere_lets_no_denied_verb_be_read(verb: bytes) -> None:
    for at in range(1, len(verb) + 1):
        connection = Connection().greeted()
        got = cut(connection, verb[:at], verb[at:] + b" root\r\n")
        word = got.partition(b" ")[0]
        assert got.endswith(b"\r\n")
        assert word.upper() != verb
        if word.rstrip(b"X") in (b"DATA", b"RSET", b"QUIT", b"NOOP", b"MAIL"):
            assert b"root" not in got
        assert "command.denied" in connection.names


@families
@pytest.mark.parametrize("lead", [b" ", b"\t", b"\0", b"\x01", b"\x0b", b"\x1f", b"  ", b" \t", b"\x7f", b"\x80"])
def test_leading_octets_make_it_another_verb(family: int, lead: bytes) -> None:
    connection = Connection(family=family).greeted()
    got = cut(connection, lead + b"NOOP x\r\n")
    assert b"NOOP" not in got
    assert got == b"X" * (len(lead) + 4) + b" x\r\n"
    assert "command.denied" in connection.names
    # Nor where they come alone first.
    other = cut(connection, lead, b"NOOP x\r\n")
    assert b"NOOP" not in other


@families
def test_line_ends_other_than_crlf_are_none_for_any_server(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert cut(connection, b"NOOP a\nEXPN b\r\n") == b"NOOP a EXPN b\r\n"
    assert cut(connection, b"NOOP a\rEXPN b\r\n") == b"NOOP a\r\nXXX b\r\n"
    assert connection.names == ["command.bare_lf", "command.bare_cr", "command.denied"]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n", b"\n\n", b"\r\r"])
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_line_ends_are_the_same_wherever_they_are_cut(end: bytes, at: int) -> None:
    said = b"NOOP a" + end + b"EXPN b\r\n"
    whole, parts = Connection().greeted(), Connection().greeted()
    got = cut(whole, said)
    assert cut(parts, said[: 6 + at], said[6 + at :]).splitlines(keepends=True) == got.splitlines(keepends=True)
    assert got.replace(b"\r\n", b"").find(b"\r") == got.replace(b"\r\n", b"").find(b"\n") == -1
    assert b"\nEXPN" not in got
    assert whole.names == parts.names


@pytest.mark.parametrize("form", [UnknownCommand.XVERB, UnknownCommand.XALL, UnknownCommand.NOOP])
@pytest.mark.parametrize("parts", [(b"MAI", b"\r\nNOOP\r\n"), (b"EXPN", b"\r\n"), (b"NOOPS\r", b"\n"), (b"E\r\n",)])
def test_line_ends_are_never_overwritten(form: UnknownCommand, parts: tuple[bytes, ...]) -> None:
    policy = Policy("p", commands=CommandPolicy(allow=("MAIL", "NOOP"), unknown=form))
    connection = Connection(Gateway(policy)).greeted()
    said = b"".join(parts)
    got = cut(connection, *parts)
    assert [at for at, octet in enumerate(got) if octet in b"\r\n"] == [
        at for at, octet in enumerate(said) if octet in b"\r\n"
    ]


@families
def test_nul_in_an_argument_becomes_a_space(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert cut(connection, b"NOOP a\0b\0c\r\n") == b"NOOP a b c\r\n"
    assert connection.names == ["command.nul"]
    assert cut(connection, b"MAIL FROM:<a\0", b"\0b>\r\n") == b"MAIL FROM:<a  b>\r\n"


@families
def test_nul_in_a_message_becomes_a_space_and_hides_no_end_of_data(family: int) -> None:
    connection = Connection(family=family).in_text()
    got = cut(connection, b"a\r\n\0.\r\n\0.\0\r\n\r\0\n.\r\n", b".\0\r\n")
    assert b"\0" not in got
    assert b"\n.\r" not in got
    assert connection.names.count("data.nul") == 1
    assert cut(connection, b"\r\n.\r\nEXPN\r\n").endswith(b".\r\nXXXX\r\n")


@families
@pytest.mark.parametrize("nuls", [(b"\0\0\0x",), (b"\0", b"\0\0x"), (b"\0\0", b"\0x")])
def test_nul_that_ends_a_message_leaves_the_next_ones_to_the_command_behind_it(
    family: int, nuls: tuple[bytes, ...]
) -> None:
    connection = Connection(family=family).in_text()
    assert cut(connection, b"a\r\n.\r", *nuls, b"\r\n") == b"a\r\n.\r\nXXX\r\n"
    assert connection.names.count("command.nul") == 1
    assert connection.names.count("data.nul") == 1


@families
def test_nul_in_a_line_behind_auth_becomes_a_space(family: int) -> None:
    connection = Connection(Gateway(ALL), family).greeted()
    connection.client(b"AUTH LOGIN\r\n")
    connection.server(b"334 VXNlcm5hbWU6\r\n")
    assert cut(connection, b"abc\0def\r\n") == b"abc def\r\n"
    assert connection.names == ["command.nul"]


SHAPES = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r.\n", b"\r\n.\rx"]


@families
@pytest.mark.parametrize("shape", SHAPES)
def test_data_shapes_other_than_the_standard_end_are_blanked(family: int, shape: bytes) -> None:
    for at in range(len(shape) + 1):
        connection = Connection(family=family).in_text()
        got = cut(connection, b"text" + shape[:at], shape[at:] + b"EXPN root\r\n")
        assert "data.smuggling_shape" in connection.names
        # Nobody's end of data, or everybody's: what comes then is masked.
        if b"\r\n.\r\n" in got:
            assert b"EXPN" not in got.partition(b"\r\n.\r\n")[2]
        for end in SHAPES:
            if end not in (b"\r\n.\r", b"\r\n.\rx"):
                assert end not in got.replace(b"\r\n.\r\n", b"")


@families
@pytest.mark.parametrize(
    ("text", "read"),
    [
        (b"a\r\n.x\nEXPN\r\n", b"a\r\n.x EXPN\r\n"),
        (b"a\n..\nEXPN\r\n", b"a\n.. EXPN\r\n"),
        (b"a\r\n.\n\nEXPN\r\n", b"a\r\n.  EXPN\r\n"),
        (b"..\r\nEXPN\r\n", b".. \nEXPN\r\n"),
        (b"....\nEXPN\r\n", b".... EXPN\r\n"),
        (b"\n...\r\nEXPN\r\n", b"\n... \nEXPN\r\n"),
        (b"..a\r\n..\r\nEXPN\r\n", b"..a\r\n..\r\nEXPN\r\n"),
    ],
)
def test_data_shapes_of_single_servers(family: int, text: bytes, read: bytes) -> None:
    for at in range(len(text)):
        connection = Connection(family=family).in_text()
        assert cut(connection, text[:at], text[at:]) == read
        assert ("data.smuggling_shape" in connection.names) == (read != text)


@families
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_data_shapes_behind_a_long_line(family: int, at: int) -> None:
    connection = Connection(family=family).in_text()
    for _ in range(50):
        connection.client(b"a" * 1000)
    assert cut(connection, b".\r\n"[:at], b".\r\n"[at:] + b"EXPN\r\n.\r\n") == b". \nEXPN\r\n.\r\n"


@families
def test_data_shapes_in_a_long_header(family: int) -> None:
    for head, read in ((b"X: aaaa\r\n", b"x. \nEXPN\r\n"), (b"\r\nX: aa\r\n", b"x.\r\nEXPN\r\n")):
        connection = Connection(family=family).in_text()
        for _ in range(101):
            connection.client(head + b"X: aaaa\r\n" * 110)
            connection.send(False, ACK)
        assert cut(connection, b"x.\r\nEXPN\r\n") == read


@families
@pytest.mark.parametrize("text", [b"a\n.\r\n.\r\n", b"..\r\n.\r\n", b"a\r.\r\n.\r\n"])
def test_data_shapes_beside_the_clients_own_end_reset_the_flow(family: int, text: bytes) -> None:
    # Blanked, it would be none any more, and the server would wait for ever.
    for at in range(len(text)):
        connection = Connection(family=family).in_text()
        if at:
            connection.client(text[:at])
        assert connection.client(text[at:]) == RESET


@families
def test_data_shapes_of_the_standard_are_the_one_end(family: int) -> None:
    connection = Connection(family=family).in_text()
    assert cut(connection, b"a\r\n..\r\n.a\r\n.\r\nEXPN\r\n") == b"a\r\n..\r\n.a\r\n.\r\nXXXX\r\n"
    assert connection.names == ["command.denied"]
    empty = Connection(family=family).in_text()
    assert cut(empty, b".\r\nEXPN\r\n") == b".\r\nXXXX\r\n"


@families
def test_data_octets_that_have_no_place_in_a_message_are_told_once(family: int) -> None:
    connection = Connection(Gateway(Policy("p", actions={"data.nul": Action.LOG})), family).in_text()
    for text in (b"a\rb\r\n", b"a\nb\r\n", b"a\0b\r\n", b"a\rb\nc\0d\r\n"):
        assert connection.client(text) == [ACCEPT]
    assert connection.names == ["data.bare_cr", "data.bare_lf", "data.nul"]
    places = [finding.offset for finding in connection.gateway.findings]
    assert places == [6 + 2, 6 + 5 + 1, 6 + 10 + 1]
    connection.client(b".\r\n")
    connection.server(b"250 ok\r\n")
    connection.client(b"DATA\r\n")
    connection.server(b"354 go\r\n")
    connection.client(b"a\rb\r\n")
    assert connection.names[3:] == ["data.bare_cr"]


@families
def test_data_octets_of_a_line_over_the_limit_are_told(family: int) -> None:
    lengths = DataPolicy(header_line_length=20, body_line_length=10)
    policy = Policy("p", data=lengths, actions={"header.line_too_long": Action.LOG})
    for cuts in ((15,), (21,), ()):
        connection = Connection(Gateway(policy), family).in_text()
        text = b"h" * 20 + b"\r\n" + b"h" * 21 + b"\r\n\r\n" + b"b" * 10 + b"\r\n" + b"b" * 11 + b"\r\n"
        at = 0
        for end in (*cuts, len(text)):
            connection.client(text[at:end])
            at = end
        assert connection.names == ["header.line_too_long", "data.line_too_long"]
        assert [finding.offset for finding in connection.gateway.findings] == [6 + 22 + 20, 6 + 22 + 25 + 12 + 10]


@families
def test_long_line_is_masked_behind_its_limit(family: int) -> None:
    policy = Policy(
        "p", commands=CommandPolicy(allow=("NOOP", "MAIL"), line_length=20), actions={"command.too_long": Action.MASK}
    )
    connection = Connection(Gateway(policy), family).greeted()
    assert cut(connection, b"NOOP " + b"a" * 15 + b"\r\n") == b"NOOP " + b"a" * 15 + b"\r\n"
    assert connection.names == []
    assert cut(connection, b"NOOP " + b"a" * 15 + b"EXPN root\r\n") == b"NOOP " + b"a" * 15 + b"X" * 9 + b"\r\n"
    assert cut(connection, b"NOOP " + b"a" * 12, b"aaaEXPN ", b"root\r\n") == b"NOOP " + b"a" * 15 + b"X" * 9 + b"\r\n"
    assert connection.names == ["command.too_long"] * 2


@pytest.mark.parametrize(("action", "kinds"), [(Action.DROP_CONNECTION, [DROP]), (Action.RESET, RESET)])
def test_long_line_ends_the_flow_where_the_policy_says_so(action: Action, kinds: list[int]) -> None:
    policy = Policy("p", commands=CommandPolicy(line_length=20), actions={"command.too_long": action})
    connection = Connection(Gateway(policy)).greeted()
    assert connection.client(b"NOOP " + b"a" * 15 + b"EXPN root\r\n") == kinds


PASSWORD = base64.b64encode(b"\0user\0correct horse")
DENYING = Policy("denying", commands=CommandPolicy(allow=("EHLO", "NOOP", "MAIL"), line_length=60))


def shown(gateway: Gateway) -> bytes:
    """Everything that any record shows, of the enforcing engine's and the watching one's."""
    return b"".join(record[18] + b"\n" + record[19] + b"\n" for record in gateway.records + gateway.watched)


@families
@pytest.mark.parametrize("policy", [ALL, DENYING], ids=["allowed", "denied"])
@pytest.mark.parametrize(
    "dialogue",
    [
        [b"AUTH PLAIN " + PASSWORD + b"\r\n", b"535 no\r\n"],
        [b"auth plain  " + PASSWORD + b"\r\n", b"500 no auth plain " + PASSWORD + b"\r\n"],
        [b"AUTH PLAIN\r\n", b"334 \r\n", PASSWORD + b"\r\n", b"235 ok\r\n"],
        [
            b"AUTH LOGIN\r\n",
            b"334 VXNlcm5hbWU6\r\n",
            PASSWORD[:8] + b"\r\n",
            b"334 x\r\n",
            PASSWORD + b"\r\n",
            b"535 no\r\n",
        ],
        [b"AUTH PLAIN\r\n", b"500 no\r\n", PASSWORD + b"\r\n", b"500 " + PASSWORD + b"\r\n"],
        [b"XXXX PLAIN " + PASSWORD + b"\r\n", b"500 no\r\n"],
        [b"XXXX LOGIN\r\n", b"500 no\r\n", PASSWORD + b"\r\n", b"500 no\r\n"],
        [b"AUTHX PLAIN " + PASSWORD + b"\r\n", b"500 no\r\n"],
        [b"\tAUTH PLAIN " + PASSWORD + b"\r\n", b"500 no\r\n"],
        [b"AUTH PLAIN " + PASSWORD * 4 + b"\r\n", b"500 no\r\n"],
    ],
)
def test_secrets_are_in_no_record(family: int, policy: Policy, dialogue: list[bytes]) -> None:
    connection = Connection(Gateway(policy), family).greeted()
    for number, octets in enumerate(dialogue):
        if number % 2 and octets.startswith(b"334") and policy is DENYING:
            connection.server(b"500 what?\r\n")
        else:
            connection.say(number % 2 == 0, octets)
    connection.client(b"NOOP\r\n")
    told = shown(connection.gateway).upper()
    assert PASSWORD[:8].upper() not in told
    assert PASSWORD[-8:].upper() not in told
    assert b"NOOP" in told


def test_secrets_show_the_mechanism() -> None:
    connection = Connection(Gateway(ALL)).greeted()
    connection.client(b"AUTH PLAIN " + PASSWORD + b"\r\n")
    assert b"AUTH PLAIN" in shown(connection.gateway)


def name_of(policy: object) -> str:
    return policy.name if isinstance(policy, Policy) else str(policy)


def in_no_record(policy: Policy, family: int, *dialogue: tuple[bool, bytes]) -> bytes:
    """What the records show of a dialogue, upper case, and that what is secret in it is not there."""
    connection = Connection(Gateway(policy), family).greeted()
    for to_server, octets in dialogue:
        connection.say(to_server, octets)
    told = shown(connection.gateway).upper()
    assert b"HUNTER" not in told
    assert PASSWORD[:8].upper() not in told
    assert PASSWORD[-8:].upper() not in told
    return told


ECHO = b"500 5.5.1 Command unrecognized: "
AUTHENTICATION = {
    "as it is": b"AUTH PLAIN " + PASSWORD,
    "in another case": b"aUtH lOgIn " + PASSWORD,
    "with a mechanism nobody knows": b"AUTH X-OURS " + PASSWORD,
    "without one": b"AUTH " + PASSWORD,
    "with one that is none": b"AUTH PLAIN" + PASSWORD,
    "masked upstream": b"XXXX PLAIN " + PASSWORD,
    "masked upstream as NOOP": b"NOOP PLAIN " + PASSWORD,
    "Exchange's": b"X-EXPS LOGIN " + PASSWORD,
    "in IMAP": b"a1 AUTHENTICATE PLAIN " + PASSWORD,
    "masked upstream, two spaces": b"XXXX  PLAIN " + PASSWORD,
    "with a NUL and two spaces": b"A\0UTH  GSSAPI " + PASSWORD,
    "with tabs": b"X-EXPS\tLOGIN\t" + PASSWORD,
    "IMAP's own": b"a1 LOGIN bob hunter2",
    "POP3's": b"PASS hunter2",
    "POP3's, together": b"PASShunter2",
    "POP3's digest": b"APOP bob hunter2hunter2",
    "FTP's": b"USER hunter2",
    "HTTP's": b"Authorization: Basic " + PASSWORD,
    "HTTP's to a proxy": b"Proxy-Authorization: Basic " + PASSWORD,
    "HTTP's cookie": b"Cookie: session=hunter2",
    "in a URL": b"GET http://bob:hunter2@host/ HTTP/1.1",
    "in a form": b"user=bob&password=hunter2",
    "XCLIENT's": b"XCLIENT LOGIN=hunter2",
    "a sender's": b"MAIL FROM:<> AUTH=hunter2@x",
    "a sender's, without a space": b"MAIL FROM:<a@b>AUTH=hunter2@x",
    "a token": b"BURL imap://bob;urlauth=submit+x:internal:hunter2@host LAST",
    "a word of its own": PASSWORD,
    "a short one": b"hunter2+/A=",
    "glued to its verb": b"AUTHhunter2",
    "behind a dot": b".hunter2",
}


@families
@pytest.mark.parametrize("policy", [ALL, DENYING, "pix40", "pix63", "asa", "xall"], ids=name_of)
@pytest.mark.parametrize("kind", AUTHENTICATION)
def test_secrets_are_in_no_record_whatever_they_are_called(family: int, policy: Policy | str, kind: str) -> None:
    said = AUTHENTICATION[kind]
    if policy == "xall":
        policy = Policy("xall", commands=CommandPolicy(allow=("EHLO",), unknown=UnknownCommand.XALL))
    known = profile(policy) if isinstance(policy, str) else policy
    told = in_no_record(known, family, (True, said + b"\r\n"), (False, b"500 what?\r\n"), (True, b"NOOP\r\n"))
    assert b"NOOP" in told or known is not ALL


ANSWERS = {
    "a refusal": (ECHO + b'"%s"\r\n',),
    "several lines": (b"250-you said %s\r\n250 %s\r\n",),
    "several lines, the last without": (b"250-a\r\n250-%s\r\n250 ok\r\n",),
    "a refusal of several": (b"500-%s\r\n500 %s\r\n",),
    "no reply": (b"%s\r\n",),
    "one nobody asked for": (b"500 no\r\n", b"500 %s\r\n", b"250-a\r\n250 %s\r\n"),
    "one to another message text": (b"354 %s\r\n",),
    "a challenge": (b"334 %s\r\n",),
}


@families
@pytest.mark.parametrize("policy", [ALL, DENYING, "pix40", "pix63", "asa", "ios-esmtp"], ids=name_of)
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(
    "kind",
    [
        *("as it is", "masked upstream", "POP3's", "HTTP's", "IMAP's own"),
        *("masked upstream, two spaces", "with a NUL and two spaces", "with tabs"),
    ],
)
@pytest.mark.parametrize("begin", [b"", b"EHLO a\r\n", b"NOOP\r\nEHLO a\r\n"])
def test_secrets_are_in_no_record_of_a_reply_that_repeats_them(
    family: int, policy: Policy | str, answer: str, kind: str, begin: bytes
) -> None:
    said = AUTHENTICATION[kind]
    replies = [(False, reply.replace(b"%s", said)) for reply in ANSWERS[answer]]
    first = [(True, begin), (False, b"250 mx\r\n" * begin.count(b"\n"))] if begin else []
    later = [(True, b"NOOP\r\n"), (False, b"250-a\r\n250 you said " + said + b"\r\n"), (True, b"EHLO b\r\n")]
    offer = [(False, b"250-mx\r\n250-" + said + b"\r\n250 x\r\n")]
    known = profile(policy) if isinstance(policy, str) else policy
    in_no_record(known, family, *first, (True, said + b"\r\n"), *replies, *later, *offer, *later[:2])


@families
@pytest.mark.parametrize("policy", [ALL, DENYING, "ios-esmtp"], ids=name_of)
@pytest.mark.parametrize("begin", [b"AUTH PLAIN ", b"X-EXPS LOGIN ", b"PASS ", b"Authorization: Basic "])
def test_secrets_are_in_no_record_of_a_reply_before_the_line_has_ended(
    family: int, policy: Policy | str, begin: bytes
) -> None:
    known = profile(policy) if isinstance(policy, str) else policy
    said = begin + PASSWORD * 100  # to some servers two lines
    in_no_record(known, family, (True, said), (False, ECHO + said[:400] + b"\r\n"), (True, b"\r\n"))


GLUED = {
    "EHLO": b"EHLO x",
    "MAIL": b"MAIL FROM:<a@b>",
    "VRFY": b"VRFY root",
    "a line that is long": b"EHLO " + b"x" * 240,
    "one behind a verb": b"NOOP\nEHLO",
}


@families
@pytest.mark.parametrize("policy", [ALL, DENYING, "pix63", "asa", "ios-esmtp"], ids=name_of)
@pytest.mark.parametrize("first", GLUED)
@pytest.mark.parametrize("glue", [b"\n", b"\0", b"\n\n", b"\n \0"])
@pytest.mark.parametrize("kind", ["as it is", "POP3's", "masked upstream"])
@pytest.mark.parametrize("cut", [False, True])
def test_secrets_are_in_no_record_of_a_line_they_were_glued_to(
    family: int, policy: Policy | str, first: str, glue: bytes, kind: str, cut: bool
) -> None:
    known = profile(policy) if isinstance(policy, str) else policy
    line = GLUED[first] + glue + AUTHENTICATION[kind] + b"\r\n"
    pieces = [line[:20], line[20:]] if cut else [line]
    answer = (
        False,
        b"250-mx you said " + line.replace(b"\n", b" ").strip() + b"\r\n250 " + AUTHENTICATION[kind] + b"\r\n",
    )
    in_no_record(known, family, *((True, piece) for piece in pieces), answer, answer, (True, b"NOOP\r\n"))


# Of what stands behind a bare CR the first byte becomes a LF, where lines are changed: PASS is no PASS any more.
@families
@pytest.mark.parametrize("policy", [ALL, DENYING, "pix63", "asa", "ios-esmtp"], ids=name_of)
@pytest.mark.parametrize("first", GLUED)
@pytest.mark.parametrize("glue", [b"\r", b"\r\r"])
@pytest.mark.parametrize("cut", [False, True])
def test_secrets_are_in_no_record_of_a_line_they_were_glued_to_by_a_cr(
    family: int, policy: Policy | str, first: str, glue: bytes, cut: bool
) -> None:
    for kind in ("as it is", "masked upstream"):
        test_secrets_are_in_no_record_of_a_line_they_were_glued_to(family, policy, first, glue, kind, cut)


def test_secrets_are_in_no_record_of_a_url_up_to_its_last_at() -> None:
    for said in (b"imap://al:hunter@hunter2@host/", b"imap://al:x/hunter2@host", b"http://a@hunter2@host"):
        assert b"HOST" in in_no_record(ALL, 4, (True, b"VRFY " + said + b"\r\n"))


def test_secrets_are_in_no_record_of_a_short_verb_with_tabs() -> None:
    told = in_no_record(DENYING, 4, (True, b"X-EXPS\tLOGIN\thu\r\n"))
    assert b"LOGIN" not in told
    assert b"X-EXPS" in told


def test_secrets_leave_the_reply_to_a_message_to_be_seen() -> None:
    dialogue = [
        (True, b"AUTH PLAIN " + PASSWORD + b"\r\n"),
        (False, b"235 ok\r\n"),
        (True, b"MAIL FROM:<a@b> AUTH=hunter@x SIZE=10\r\nRCPT TO:<c@d>\r\nDATA\r\n"),
        (False, b"250 ok\r\n250 ok\r\n354 go\r\n"),
        (True, b"text\r\n.\r\n"),
        (False, b"250 queued as 4711\r\n"),
    ]
    told = in_no_record(ALL, 4, *dialogue)
    assert b"QUEUED AS 4711" in told
    assert b"MAIL FROM:<A@B>" in told
    assert b"SIZE=10" in told


def test_secrets_are_not_what_other_commands_say() -> None:
    told = in_no_record(DENYING, 4, (True, b"EHLO me.example\r\nEXPN root\r\nXYZZY me\r\nVRFY <a@b>\r\n"))
    for text in (b"EHLO ME.EXAMPLE", b"EXPN ROOT", b"XYZZY", b"VRFY <A@B>"):
        assert text in told


SEVEN = Policy("seven", commands=ALL.commands, data=DataPolicy(seven_bits=True), address=AddressPolicy(characters="|"))


@families
@pytest.mark.parametrize(
    "end", [b"\r\n\xae\r\n", b"\x8d\x8a\xae\x8d\x8a", b"\r\n.\x8d\x8a", b"\x8a\xae\x8a", b"\r\x8a.\r\n"]
)
@pytest.mark.parametrize("early", [False, True])
def test_seven_bits_are_all_that_a_server_gets(family: int, end: bytes, early: bool) -> None:
    policy = Policy("seven", commands=CommandPolicy(allow=("DATA",)), data=DataPolicy(seven_bits=True))
    connection = Connection(Gateway(policy), family).in_text()
    text = b"Subject: \xd1\x8a\r\n\r\nhello" + end + b"EXPN root\r\n"
    at = connection.mark
    if early:
        connection.send(True, payload=text[9:], at=at + 9)
        connection.send(True, payload=text[:9], at=at)
    else:
        connection.client(text)
    read = connection.server_reads
    assert max(read) < 128
    assert b"\nEXPN" not in read
    assert early or {"data.smuggling_shape", "command.denied"} & set(connection.names)


@families
def test_seven_bits_of_addresses_and_lines_are_what_is_decided(family: int) -> None:
    connection = Connection(Gateway(SEVEN), family).greeted()
    connection.client(b"EHLO a\r\n")
    connection.server(b"250-mx\r\n250 CHUNKING\r\n")
    connection.client(b"MAIL FROM:<\xfcprog>\r\nRCPT TO:<a>\r\n")
    connection.server(b"250 ok\r\n250 ok\r\n")
    assert connection.server_reads.endswith(b"MAIL FROM:< prog>\r\nRCPT TO:<a>\r\n")
    connection.client(b"BDAT 3\r\nNOOP\x8a\r\n")
    assert connection.server_reads.endswith(b"XXXX 3\r\nNOOP \r\n")
    connection.server(b"500 no\r\n250 ok\r\n")
    connection.client(b"STARTTLS\r\n")
    connection.server(b"220 go\r\n")
    connection.client(b"\x16\x83\x81")
    assert connection.server_reads.endswith(b"\x16\x83\x81")


def test_seven_bits_are_not_the_default() -> None:
    connection = Connection(Gateway(Policy("eight"))).in_text()
    assert connection.client("э.\r\n".encode()) == [ACCEPT]


def declared(family: int, *lines: bytes, answers: tuple[bytes, ...] = (), policy: Policy | str = "pix63") -> Connection:
    """In the text of a mail that these lines have begun; ``answers``: to those that are not accepted."""
    connection = Connection(Gateway(policy), family).greeted()
    for place, line in enumerate(lines):
        for piece in line.split(b"/"):
            connection.client(piece)
        connection.server(answers[place] if place < len(answers) else b"250 ok\r\n")
    connection.client(b"DATA\r\n")
    connection.server(b"354 go on\r\n")
    return connection


SEVEN_BIT_MAIL = b"MAIL FROM:<a@b> BODY=7BIT\r\n"
#: Ends of data to a server that clears eighth bits, and what they become.
IN_SEVEN = [
    (b"\r\n\xae\r\n", b"\r\n\xae \n"),
    (b"\x8d\x8a\xae\x8d\x8a", b"\x8d\x8a\xae \x8a"),
    (b"\r\n.\x8d\x8a", b"\r\n. \x8a"),
    (b"\x8a\xae\x8a", b"\x8a\xae "),
    (b"\r\x8a.\r\n", b"\r\x8a. \n"),
    (b"\x8a.\r\n.\r", b"\x8a. \n. "),
    (b"\r\xae\n", b"\r\xae "),
]


@families
@pytest.mark.parametrize(("end", "becomes"), IN_SEVEN)
@pytest.mark.parametrize("cut", range(5))
@pytest.mark.parametrize("policy", ["pix63", "asa"])
def test_declared_seven_leaves_no_end_of_data_in_seven_bits(
    family: int, end: bytes, becomes: bytes, cut: int, policy: str
) -> None:
    connection = declared(family, b"HELO a\r\n", SEVEN_BIT_MAIL, b"RCPT TO:<c@d>\r\n", policy=policy)
    before = len(connection.server_reads)
    for piece in (b"Subject: x\r\n\r\nhello" + end[:cut], end[cut:], b"EXPN root\r\n"):
        if piece:
            connection.client(piece)
    assert connection.server_reads[before:] == b"Subject: x\r\n\r\nhello" + becomes + b"EXPN root\r\n"
    assert "data.smuggling_shape" in connection.names
    connection.client(b".\r\nEXPN root\r\n")
    assert connection.server_reads.endswith(b"\r\n.\r\nXXXX root\r\n")


@families
@pytest.mark.parametrize("early", [b"\xae\r\n", b".\x8d\x8a"])
def test_declared_seven_looks_at_the_beginning_of_a_message(family: int, early: bytes) -> None:
    connection = declared(family, SEVEN_BIT_MAIL)
    connection.client(early)
    assert connection.server_reads.endswith(early[:1] + b" " + early[2:])


@pytest.mark.parametrize(
    "mail",
    [
        b"MAIL FROM:<a@b> SIZE=10 body=7bit AUTH=<>\r\n",
        b"MAIL FROM:<a@b>\tBODY=7BIT\r\n",
        b"MAIL FROM:<a@b>\0BODY=7BIT\r\n",
        b"MAIL FROM:<a@b>\nBODY=7BIT\r\n",
        b"MAIL FROM:<a@b>" + b" " * 300 + b"BODY=7BIT\r\n",
        b"MAIL FROM:<a@b> BODY=7B/IT\r\n",
        b"MAIL FROM:<a@b> BODY=/7BIT\r/\n",
        b"MAI/L FROM:<a@b> BODY==7BIT\r\n",
    ],
)
@pytest.mark.parametrize("policy", ["pix63", "asa", ALL])
def test_declared_seven_is_found_wherever_it_stands(mail: bytes, policy: Policy | str) -> None:
    connection = declared(4, mail, policy=policy)
    connection.client(b"hello\r\n\xae\r\n")
    assert connection.server_reads.endswith(b"hello\r\n\xae \n")


def test_declared_seven_lasts_for_a_mail() -> None:
    text = b"hello\r\n\xae\r\n"
    for second in (b"RSET\r\n", b"HELO b\r\n"):
        connection = declared(4, SEVEN_BIT_MAIL, second, b"MAIL FROM:<a@b>\r\n")
        connection.client(text)
        assert connection.server_reads.endswith(text)
    connection = declared(4, SEVEN_BIT_MAIL)
    connection.client(b"hello\r\n.\r\n")
    connection.server(b"250 ok\r\n")
    connection.client(b"MAIL FROM:<a@b> BODY=8BITMIME\r\n")
    connection.server(b"250 ok\r\n")
    connection.client(b"DATA\r\n")
    connection.server(b"354 go on\r\n")
    connection.client(text)
    assert connection.server_reads.endswith(text)


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        ((SEVEN_BIT_MAIL, b"MAIL FROM:<a@b> BODY=8BITMIME\r\n"), (b"250 ok\r\n", b"503 one is enough\r\n")),
        ((SEVEN_BIT_MAIL, b"RSET\r\n"), (b"250 ok\r\n", b"500 no\r\n")),
        ((b"RSET\r\n" + SEVEN_BIT_MAIL,), (b"250 ok\r\n250 ok\r\n",)),
    ],
)
def test_declared_seven_holds_until_the_server_says_otherwise(
    lines: tuple[bytes, ...], answers: tuple[bytes, ...]
) -> None:
    connection = declared(4, *lines, answers=answers)
    connection.client(b"hello\r\n\xae\r\n")
    assert connection.server_reads.endswith(b"hello\r\n\xae \n")


def test_declared_seven_leaves_other_octets_and_other_mails_alone() -> None:
    for mail in (SEVEN_BIT_MAIL, b"MAIL FROM:<a@b> BODY=8BITMIME\r\n"):
        connection = declared(4, mail)
        text = "э\r\nя.\r\n".encode() + b"\x8d\x8a\xae."
        assert connection.client(text) == [ACCEPT]
    connection = declared(4, b"MAIL FROM:<a@b>\r\n")
    assert connection.client("э.\r\n".encode() + b"\r\n\xae\r\n") == [ACCEPT]


def test_declared_seven_of_commands() -> None:
    connection = declared(4, SEVEN_BIT_MAIL)
    connection.client(b"hello\r\n.\r\n")
    connection.server(b"250 ok\r\n")
    connection.client(b"MAIL FROM:<a@b> BODY=7BIT\r\n")
    connection.server(b"250 ok\r\n")
    assert cut(connection, b"RCPT TO:<\xfcprogram>\r\n") == b"RCPT TO:< program>\r\n"
    assert cut(connection, b"\xceOOP\r\n\xc5XPN\r\n") == b"NOOP\r\nXXXX\r\n"


def test_declared_seven_of_commands_in_the_packets_of_the_mail() -> None:
    more = b"RCPT TO:<\xfcprogram>\r\n"
    for at in range(len(SEVEN_BIT_MAIL)):
        connection = Connection(Gateway("pix63"), 4).greeted()
        got = cut(connection, SEVEN_BIT_MAIL[:at], SEVEN_BIT_MAIL[at:] + more)
        assert got == SEVEN_BIT_MAIL + b"RCPT TO:< program>\r\n"


def test_declared_seven_with_an_eighth_bit() -> None:
    connection = declared(4, SEVEN_BIT_MAIL, b"RSET\r\n", b"MAIL FROM:<a@b> BODY=\xb7BIT\r\n")
    connection.client(b"hello\r\n\xae\r\n")
    assert connection.server_reads.endswith(b"hello\r\n\xae \n")


def watched_of(name: str, said: bytes, size: int) -> list[object]:
    """What monitor makes of it in segments of that size, without what findings show: that is of the segment."""
    connection = Connection(Gateway(name)).greeted()
    had = len(connection.gateway.watched)
    for at in range(0, len(said), size):
        connection.client(said[at : at + size])
    gateway = connection.gateway
    records = [record[2:-2] if record[0] == 1 else record[2:] for record in gateway.watched[had:]]
    return [*records, gateway.watching.core_counters()[1]]


@pytest.mark.parametrize("name", ["pix63", "asa", "pix40"])
@pytest.mark.parametrize("seed", range(12))
def test_line_ends_watched_are_the_same_wherever_they_are_cut(name: str, seed: int) -> None:
    random = Random(seed)
    pieces = [b"\r", b"\r\n", b"X", b"NOOP", b"HELO", b"AUTH LOGIN", b" ", b"MAIL FROM:<a|>", b"RCPT TO:", b"<"]
    pieces += [b"\0", b"\n", b"x" * 300, b"BDAT 1"]
    said = b"".join(random.choices(pieces, [18, 4, 4, *[1] * 11], k=300)) + b"x\r\n"
    one = watched_of(name, said, 1)
    for size in (2, 7, 200, len(said)):
        assert watched_of(name, said, size) == one


@pytest.mark.parametrize("name", ["pix63", "pix40"])
def test_reply_ends_are_found_wherever_a_reply_to_ehlo_that_nobody_masks_is_cut(name: str) -> None:
    lines = [b"250-a", b"250-XXXXA", b"250-XB", b"250-CHUNKING", b"250-SIZE 1", b"250 OK", b"500-no", b"500 x"]
    lines += [b"250", b"x"]
    for seed in range(25):
        said = b"\r\n".join(Random(seed).choices(lines, [4, 1, 1, 1, 1, 3, 1, 1, 1, 1], k=30)) + b"\r\n"
        seen = []
        for size in (1, 9, len(said)):
            connection = Connection(Gateway(name)).greeted()
            for _ in range(12):
                connection.client(b"EHLO a\r\n")
            for at in range(0, len(said), size):
                connection.server(said[at : at + size])
            engines = connection.gateway.engine, connection.gateway.watching
            seen.append((connection.client_reads, connection.names, [one.core_counters()[1] for one in engines]))
        assert seen[0] == seen[1] == seen[2]


@families
@pytest.mark.parametrize("before", [b"", b"foo"])
@pytest.mark.parametrize("refused", [False, True])
def test_declared_seven_of_a_text_behind_data_in_its_packet(family: int, before: bytes, refused: bool) -> None:
    connection = Connection(family=family).greeted()
    mail = SEVEN_BIT_MAIL + b"RCPT TO:<c@d>\r\nDATA\r\n"
    connection.client(mail + before + b"\x8d\x8a\xae\x8d\x8aEXPN root\x8d")
    shown = b"X" * len(before) + b"\r\nX\r\nXXXX root\r"
    assert connection.server_reads == mail + shown
    connection.server(b"250 ok\r\n250 ok\r\n" + (b"503 no\r\n" if refused else b"354 go on\r\n"))
    connection.client(b"\x8a\xae\r\nEXPN root\r\n")
    rest = b"\nX\r\nXXXX root\r\n" if refused else b""  # 354_needs_data: it is reset
    assert connection.server_reads[len(mail + shown) :] == rest
