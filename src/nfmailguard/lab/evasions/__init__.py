"""Techniques to evade an inline filter, as a table; each row's function carries out one technique live."""

from __future__ import annotations

from nfmailguard.lab.evasions.commands import COMMANDS
from nfmailguard.lab.evasions.extensions import EXTENSIONS
from nfmailguard.lab.evasions.handshake import HANDSHAKE
from nfmailguard.lab.evasions.headers import HEADERS
from nfmailguard.lab.evasions.identity import IDENTITY
from nfmailguard.lab.evasions.long_lines import LONG_LINES
from nfmailguard.lab.evasions.multipath import MULTIPATH
from nfmailguard.lab.evasions.off_path import OFF_PATH
from nfmailguard.lab.evasions.order import ORDER
from nfmailguard.lab.evasions.packets import PACKETS
from nfmailguard.lab.evasions.replies import REPLIES
from nfmailguard.lab.evasions.reuse import CONFUSION, REUSE
from nfmailguard.lab.evasions.technique import Technique
from nfmailguard.lab.evasions.text import TEXT

__all__ = ["TECHNIQUES"]

#: Every technique, in the order in which ``lab evade`` lists them.
TECHNIQUES: tuple[Technique, ...] = (
    *ORDER,
    *HEADERS,
    *HANDSHAKE,
    *IDENTITY,
    *REUSE,
    *CONFUSION,
    *PACKETS,
    *MULTIPATH,
    *OFF_PATH,
    *COMMANDS,
    *LONG_LINES,
    *EXTENSIONS,
    *TEXT,
    *REPLIES,
)
