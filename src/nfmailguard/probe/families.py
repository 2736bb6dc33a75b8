"""Which product a profile emulates, and the configuration lines that turn its mail inspection off, or let TLS through.

Promises: every profile has a family; one that is not known here has the name of an unknown kind of firewall. Sources:
the guides of each product (docs/sources.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["FAMILIES", "OWN_MAP", "UNKNOWN", "Family", "families_of", "family_of"]

_INSPECT = ("policy-map global_policy", " class inspection_default")


@dataclass(frozen=True)
class Family:
    """A product family. ``off``: lines that turn the inspection off; ``instead``: lines that keep it and let TLS
    through.
    """

    label: str
    product: str
    off: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    document: str = ""


_ALLOW_TLS = (
    "policy-map type inspect esmtp mail",
    " parameters",
    "  allow-tls",
    *_INSPECT,
    "  no inspect esmtp",
    "  inspect esmtp mail",
)
_ASA_GUIDE = "Cisco ASA Firewall CLI Configuration Guide, Inspection of Basic Internet Protocols, SMTP and ESMTP"
_ASA = Family("Cisco PIX or ASA ESMTP inspection", "ASA", (*_INSPECT, "  no inspect esmtp"), _ALLOW_TLS, _ASA_GUIDE)
#: Kinds of firewall by the beginning of a profile's name; the longest beginning is first.
FAMILIES: tuple[tuple[str, Family], ...] = (
    ("pix70", Family(_ASA.label, "ASA", _ASA.off, (), _ASA_GUIDE)),  # PIX 7.0 has no allow-tls yet.
    ("asa", _ASA),
    (
        "pix",
        Family(
            "Cisco PIX Mailguard",
            "PIX up to 6.3",
            ("no fixup protocol smtp 25",),
            (),
            "Cisco document 4733, Testing the PIX Firewall Mailguard Feature",
        ),
    ),
    (
        "fwsm",
        Family(
            "Cisco FWSM SMTP inspection",
            "FWSM",
            ("no fixup protocol smtp 25",),
            (),
            "Catalyst 6500 FWSM Configuration Guide, Application Inspection",
        ),
    ),
    (
        "ios",
        Family(
            "Cisco IOS firewall",
            "IOS",
            ("no ip inspect name NAME smtp", "no ip inspect name NAME esmtp", "ip inspect name NAME tcp"),
            (),
            "Cisco document 69309, SMTP and ESMTP inspection of the IOS firewall",
        ),
    ),
    ("rfc821", Family("a filter of RFC 821's seven commands", "any")),
)
UNKNOWN = Family("a Mailguard-like box of an unknown kind", "")
#: An ASA whose inspection map masks the greeting and nothing else.
OWN_MAP = Family(
    "Cisco ASA `inspect esmtp` with a map of its own",
    "ASA",
    ("policy-map type inspect esmtp NAME", " parameters", "  no mask-banner"),
    (),
    _ASA_GUIDE,
)


def family_of(name: str) -> Family:
    """The family of a profile, by the beginning of its name."""
    return next((family for prefix, family in FAMILIES if name.startswith(prefix)), UNKNOWN)


def families_of(names: Iterable[str]) -> list[Family]:
    """The families of several profiles, each once."""
    found: dict[str, Family] = {}
    for name in names:
        family = family_of(name)
        if family is not UNKNOWN and not (family.label in found and found[family.label].instead):
            found[family.label] = family
    return list(found.values())
