"""What a gateway in restore mode applies: nothing of the firewall's profile, except to recognise its damage.

Promises: values only, for the core and for the reference model alike. The rules are those of docs/sources.md,
"Restoration". Does not know dialogues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from nfmailguard.policy.findings import FINDINGS, Action
from nfmailguard.policy.model import (
    AddressPolicy,
    BannerPolicy,
    BannerRule,
    BugPolicy,
    CommandPolicy,
    DataPolicy,
    EhloMask,
    Offer,
    Policy,
    ReplyPolicy,
    Restore,
    RestoreScope,
    RestoreSide,
    UnknownCommand,
)

__all__ = ["HIDDEN", "Candidate", "Recovery", "recovery"]

#: EHLO keywords of extensions that cannot work through a firewall that masks EHLO: it masks STARTTLS, AUTH and what
#: follows them, and reads a BDAT chunk's bytes as commands. They are hidden from the reply to a restored EHLO.
HIDDEN = ("AUTH", "BINARYMIME", "CHUNKING", "STARTTLS")
#: Keywords not restored in scope `safe`: those above, and PIPELINING, as batches of commands would have to be tested
#: through that firewall first.
_HARMFUL = (*HIDDEN, "PIPELINING")


@dataclass(frozen=True)
class Candidate:
    """A line of an EHLO reply that the firewall masks; ``restored``: whether the scope allows restoring it."""

    text: bytes
    restored: bool


@dataclass(frozen=True)
class Recovery:
    """One ``restore`` rule, ready to be applied.

    ``policy`` is what is applied to the dialogue in addition. ``commands`` and ``replies``: whether these are restored
    at all; ``noop``: the firewall turns denied commands into NOOP; ``digits``: its banners keep every 2 and 0;
    ``spaces``: and the space after a 0.
    """

    policy: Policy
    commands: bool
    replies: bool
    authentication: bool
    starttls: bool
    noop: bool
    digits: bool
    spaces: bool
    hides: bool
    offers: tuple[Offer, ...]
    keyword_end: str
    passed: frozenset[str]
    scope: RestoreScope

    @property
    def keeps_end(self) -> bool:
        """Whether an end of data is kept in one segment: a sender that sees a restored greeting does not take care of
        it itself.
        """
        return self.replies and any(offer.banner for offer in self.offers)

    def candidates(self, offer: Offer) -> list[Candidate]:
        """The lines of ``offer`` that the firewall masks, in order (rule E1)."""
        return [
            Candidate(line.encode("latin-1"), self._restored(word))
            for line in offer.keywords
            if (word := self._word(line)) not in self.passed
        ]

    def _word(self, line: str) -> str:
        for end in self.keyword_end:
            line = line.split(end, 1)[0]
        return line.upper()

    def _restored(self, word: str) -> bool:
        word = word.split("=", 1)[0]
        if word == "STARTTLS":
            return self.starttls
        return self.scope is RestoreScope.ALL or word not in _HARMFUL

    def banner(self, offer: Offer, masked: bytes) -> bytes | None:
        """What a masked greeting's text is restored to: the configured text, cut or padded; None: the mask does not fit
        it.
        """
        if not offer.banner:
            return None
        text = offer.banner.encode("latin-1")[: len(masked)].ljust(len(masked))
        return None if self.digits and self._contradicts(text, masked, len(offer.banner)) else text

    def _contradicts(self, text: bytes, masked: bytes, configured: int) -> bool:
        """Whether rule B51 would have made another greeting of ``text``; padding is not compared."""
        for place, (ours, theirs) in enumerate(zip(text, masked, strict=True)):
            zero_space = ours == ord(" ") and text[place - 1 : place] == b"0"
            kept = zero_space and self.spaces and 0 < place < configured
            if ours != theirs and (ours in b"20" or theirs in b"20" or theirs == ord(" ") or kept):
                return True
            if theirs == ord(" ") and not zero_space:
                return True
        return False


def recovery(policy: Policy, restore: Restore) -> Recovery:
    """How damage done by ``policy`` elsewhere on the path is undone according to ``restore``."""
    commands = restore.side is not RestoreSide.CLIENT
    hides = commands and restore.scope is RestoreScope.SAFE
    hidden = ReplyPolicy(ehlo=EhloMask.E1, keywords=HIDDEN, keyword_end=" =\r") if hides else ReplyPolicy()
    return Recovery(
        policy=msgspec.structs.replace(
            policy,
            banner=BannerPolicy(),
            commands=CommandPolicy(),
            replies=hidden,
            address=AddressPolicy(),
            data=DataPolicy(),
            bugs=BugPolicy(),
            actions=_told(policy),
        ),
        commands=commands,
        replies=restore.side is not RestoreSide.SERVER,
        authentication=restore.scope is RestoreScope.ALL,
        starttls=restore.starttls,
        noop=policy.commands.unknown is UnknownCommand.NOOP,
        digits=policy.banner.rule is BannerRule.B51,
        spaces=policy.banner.separator,
        hides=hides,
        offers=restore.offers,
        keyword_end=policy.replies.keyword_end,
        passed=frozenset(keyword.upper() for keyword in policy.replies.keywords),
        scope=restore.scope,
    )


def _told(policy: Policy) -> dict[str, Action]:
    # In restore mode, findings about the dialogue are only logged, except that a keyword to be hidden is masked.
    # Findings about streams and packets keep their actions.
    actions = {
        spec.name: Action.LOG
        for spec in FINDINGS[1:]
        if Action.LOG in spec.actions
        and not spec.name.startswith(("stream.", "packet."))
        and policy.action(spec.name) is not Action.PASS
    }
    return actions | {"reply.keyword_masked": Action.MASK}


def offer_for(offers: Sequence[Offer], server: bytes) -> Offer | None:
    """The first offer for a server's address, packed; None: there is none."""
    for offer in offers:
        if not offer.servers or any(
            len(server) == len(network.network_address.packed)
            and int.from_bytes(server) & int(network.netmask) == int(network.network_address)
            for network in offer.servers
        ):
            return offer
    return None
