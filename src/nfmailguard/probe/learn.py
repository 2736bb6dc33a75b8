"""Learns what a server sends where nothing is masked, as a ``[[restore.server]]`` of a configuration.

Promises: a server is asked twice, a moment apart; what changes in between, or contains the client's address, is not
learned, and this is reported. Does not judge the path: anything already masked is an error.
"""

from __future__ import annotations

import json
import time
from typing import NamedTuple

from nfmailguard.plain import printable
from nfmailguard.probe.features import observe
from nfmailguard.probe.talk import NAME, Answer, ProbeError, Session, addresses_of, converse

__all__ = ["Learned", "learned"]

#: Seconds between two connections: more than one, so that a time of day in the greeting differs.
_PAUSE = 1.1


class Learned(NamedTuple):
    """The result. ``text``: TOML; ``left_out``: what is not in it, and why, one line each; also
    comments in the text.
    """

    text: str
    left_out: tuple[str, ...]


def learned(host: str, port: int = 25, timeout: float = 30.0) -> Learned:
    """Learns from the host's answers; ProbeError if they are masked already."""
    addresses = addresses_of(host, port)
    talk = converse(addresses[0], port, timeout)
    seen = observe(talk, None)
    ehlo = talk.answers.get("EHLO")
    if seen.positive or ehlo is None or seen.keywords is None:
        what = ", ".join(seen.positive) or "EHLO is refused"
        raise ProbeError(f"{host} port {port}: {what}; ask it from where nothing is masked")
    greeting, again = _again(addresses[0], port, timeout)
    left_out = []
    if len(addresses) > 1:
        left_out.append(f"asked is {addresses[0]} alone; {', '.join(addresses[1:])} may say something else")
    banner, why = _banner(talk.greeting, greeting, talk.source)
    if why:
        left_out.append(f"banner: {why}; a masked greeting stays as it comes")
    keywords = [text for text in ehlo.texts[1:] if text in again.texts[1:]]
    changing = [text for text in ehlo.texts[1:] if text not in keywords]
    if changing:
        left_out.append(
            f"keywords: {', '.join(changing)}: not said again a second later; where lines are missing, masked ones stay"
        )
    return Learned(_written(addresses, banner, keywords, left_out), tuple(map(printable, left_out)))


def _again(address: str, port: int, timeout: float) -> tuple[Answer, Answer]:
    time.sleep(_PAUSE)
    with Session(address, port, timeout) as session:
        if session.greeting.code != 220:
            return session.greeting, Answer(())
        ehlo = session.ask(f"EHLO {NAME}")
        session.ask("QUIT")
        return session.greeting, ehlo


def _banner(first: Answer, second: Answer, source: str) -> tuple[str, str]:
    """The greeting's last line, which is the one that is masked and restored; or why it cannot be learned."""
    text = first.texts[-1]
    if second.texts[-1:] != (text,):
        return "", f"it changes from one connection to the next ({text!r}, then {''.join(second.texts[-1:])!r})"
    if source and source in text:
        return "", f"it names who asks ({source})"
    return text, ""


def _written(addresses: list[str], banner: str, keywords: list[str], left_out: list[str]) -> str:
    def string(text: str) -> str:
        return json.dumps(printable(text))

    lines = ["[[restore.server]]", *(f"# left out: {printable(line)}" for line in left_out)]
    lines.append(f"addresses = [{', '.join(map(string, addresses))}]")
    if banner:
        lines.append(f"banner = {string(banner)}")
    return "\n".join([*lines, "keywords = [", *(f"  {string(text)}," for text in keywords), "]"]) + "\n"
