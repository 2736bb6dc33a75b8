"""Target ``cisco``: octets as a configuration of a PIX or ASA.

What is no text gets a ConfigError; of all else every policy can be used, written as a profile,
and written back as a configuration that gives the same policy, but for a name or title that no
terminal can show. Does not know files.
"""

from __future__ import annotations

import msgspec

from nfmailguard.errors import ConfigError
from nfmailguard.policy.cisco.read import read
from nfmailguard.policy.cisco.write import write
from nfmailguard.policy.dump import render
from nfmailguard.policy.load import override

__all__ = ["parse"]


def parse(data: bytes) -> None:
    """One input; whatever it raises is a fault."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = read(text)
    except ConfigError:
        return
    assert len({line.number for line in found.lines}) == len(found.lines), "a line told of twice"
    for one in found.maps:
        assert override(one.policy, {}) == one.policy
        render(one.policy, one.sources, [text])
        written = write(one.policy)
        assert written.lost == (), written.lost
        again = msgspec.structs.replace(read(written.text).policies[0], name=one.policy.name, title=one.policy.title)
        assert again == one.policy
