"""Configurations of PIX and ASA boxes for the tests: those on file, and others from a grammar."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

FOLDER = Path(__file__).parents[1] / "fixtures" / "cisco"
ASA = (FOLDER / "asa-running.cfg").read_text()
PIX = (FOLDER / "pix-running.cfg").read_text()

#: The default map as the ASA firewall CLI guide prints it (S-ASA13).
DEFAULT_MAP = """\
policy-map type inspect esmtp _default_esmtp_map
 description Default ESMTP policy-map
 parameters
  mask-banner
  no mail-relay
  no special-character
  no allow-tls
 match cmd line length gt 512
  drop-connection log
 match cmd RCPT count gt 100
  drop-connection log
 match body line length gt 998
  log
 match header line length gt 998
  drop-connection log
 match sender-address length gt 320
  drop-connection log
 match MIME filename length gt 255
  drop-connection log
 match ehlo-reply-parameter others
  mask
"""

VERBS = ["auth", "data", "ehlo", "etrn", "helo", "HELP", "mail", "noop", "vrfy", "starttls", "unknown", "expn"]
KEYWORDS = ["8bitmime", "auth", "binaryname", "checkpoint", "dsn", "ecode", "etrn", "others", "size", "vrfy", "tls"]
SUBJECTS = [
    "cmd line length", "cmd RCPT count", "body line length", "body length", "header line length", "header length",
    "header to-fields count", "sender-address length", "mime filename length", "invalid-recipients count",
]  # fmt: skip
NUMBERS = st.sampled_from([1, 100, 255, 320, 512, 998, 4096, 2**31 - 1])
ACTIONS = [
    "log", "mask", "mask log", "drop-connection", "drop-connection log", "reset log", "reset", "drop log",
    "drop send-protocol-error", "drop-connection send-protocol-error log", "rate-limit 7",
]  # fmt: skip
PARAMETERS = [
    "mask-banner", "no mask-banner", "no mail-relay", "mail-relay example.com action log", "allow-tls", "no allow-tls",
    "allow-tls action log", "special-character action log", "special-character action drop-connection log",
    "no special-character",
]  # fmt: skip


@st.composite
def match(draw: st.DrawFn) -> str:
    negated = draw(st.sampled_from(["", "", "not "]))
    kind = draw(st.integers(0, 3))
    if kind == 0:
        verbs = draw(st.lists(st.sampled_from(VERBS), min_size=1, max_size=5))
        return f"match {negated}cmd verb {' '.join(verbs)}"
    if kind == 1:
        keywords = draw(st.lists(st.sampled_from(KEYWORDS), min_size=1, max_size=5))
        return f"match {negated}ehlo-reply-parameter {' '.join(keywords)}"
    subject = draw(st.sampled_from(SUBJECTS))
    return f"match {negated}{subject} gt {draw(NUMBERS)}"


@st.composite
def esmtp_map(draw: st.DrawFn, name: str = "m") -> str:
    """A map whose every line is well formed, though perhaps nothing we can do."""
    lines = [f"policy-map type inspect esmtp {name}"]
    if draw(st.booleans()):
        lines.append(f" description {draw(st.text(st.characters(categories=['L', 'N', 'P', 'S']), min_size=1))}")
    if draw(st.booleans()):
        lines += [" parameters", *(f"  {line}" for line in draw(st.lists(st.sampled_from(PARAMETERS), max_size=4)))]
    for line in draw(st.lists(match(), max_size=6)):
        lines += [f" {line}", f"  {draw(st.sampled_from(ACTIONS))}"]
    return "\n".join(lines) + "\n"


_WORDS = """
    policy-map type inspect esmtp smtp http m n class-map match-any match-all regex class match not cmd verb line
    length gt RCPT count 512 0 99999999999 ehlo-reply-parameter others auth size mask log drop-connection drop reset
    send-protocol-error rate-limit 5 parameters mask-banner no allow-tls action special-character mail-relay
    example.com mime filetype encoding sender-address header body invalid-recipients to-fields description exit fixup
    protocol 25 25-30 30-25 mailhost 192.0.2.1 ip name timeout in interface access-list permit tcp any eq range
    inspection_default default-inspection-traffic port service-policy global PIX ASA FWSM Version 6.3(5) 4.1 ! :
    fw(config-pmap)# fw(config)# logging message 108004 unknown starttls extended remark \N{SUPERSCRIPT TWO} \ud800
"""


@st.composite
def nonsense(draw: st.DrawFn) -> str:
    """Lines of the words such texts are made of, in any order and at any depth."""
    words = st.lists(st.sampled_from(_WORDS.split()), min_size=1, max_size=7).map(" ".join)
    lines = draw(st.lists(st.tuples(st.integers(0, 2), words), max_size=25))
    head = draw(
        st.sampled_from(["", "policy-map type inspect esmtp m\n", "class-map type inspect esmtp match-any m\n"])
    )
    return head + "\n".join(" " * depth + line for depth, line in lines)
