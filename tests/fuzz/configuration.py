"""Target ``config``: octets as a configuration file, as a profile, and as overrides.

The first octet says which, modulo 3: 0 a configuration, whose lines that begin with ``--set ``
are overrides and not of the file; 1 a profile; 2 overrides, each a line of an octet that names
the key (see ``KEYS``) and the value. A ConfigError is what a wrong one gets; a good one must give
engines and rules. Does not know how files are found.
"""

from __future__ import annotations

import contextlib
import functools
import os
import typing
from pathlib import Path

import msgspec

from nfmailguard import config, settings
from nfmailguard.engine import Engine
from nfmailguard.errors import ConfigError
from nfmailguard.policy import load
from nfmailguard.policy.model import FINDINGS, FlowRule, Mode, Policy

__all__ = ["AWKWARD", "KEYS", "parse"]

#: Values that some key may not survive.
AWKWARD = (
    "", " ", ",", "none", "yes", "-1", "0", "1", "1.5", "65536", "99999999999", "9" * 30, "9" * 5000,
    "inf", "-inf", "nan", "1e9", "1e300", "1e-300", "1_0", "0x10",
    "\u00b2", "\u0663", "\u00e9", "\0", "\x7f", "a,b", "*", "reset", "enforce",
    "10.0.0.0/8", "::/129", "/dev/null", "/", "0-3", "3-0", "-", "x" * 300,
)  # fmt: skip


def _remember() -> None:
    # The same answers every time, and most of the time of an execution: what structs and profiles are. A profile
    # that is a file may change, and other tests run in this process.
    for module, name in ((msgspec.structs, "fields"), (typing, "get_type_hints")):
        setattr(module, name, functools.cache(getattr(module, name)))
    load_profile, remembered = settings.load_profile, functools.cache(settings.load_profile)
    settings.load_profile = lambda name: load_profile(name) if "/" in name else remembered(name)  # type: ignore[attr-defined]


_remember()
fields = msgspec.structs.fields


def _keys() -> list[str]:
    sections = [(field.encode_name, field.type) for kind in (config.Config, Policy) for field in fields(kind)]
    structs = [(name, kind) for name, kind in sections if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    keys = [f"{name}.{field.encode_name}" for name, kind in structs for field in fields(kind)]
    return [*keys, *(f"actions.{spec.name}" for spec in FINDINGS)]


#: Every key an override may name.
KEYS = _keys()


class _Texts:
    """A file in memory, where the loader wants a path."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("fuzz.toml")
        self.path = f"/proc/self/fd/{self.fd}"

    def write(self, text: bytes) -> None:
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, text, 0)


_FILE = _Texts()


def _profile(text: bytes) -> None:
    _FILE.write(text)
    policy = load.load_profile(_FILE.path)
    Engine([FlowRule(Mode.ENFORCE, policy)])


def _configuration(text: bytes) -> None:
    lines = text.split(b"\n")
    overrides = [line[6:].decode(errors="replace") for line in lines if line.startswith(b"--set ")]
    _FILE.write(b"\n".join(line for line in lines if not line.startswith(b"--set ")))
    _use(config.load(Path(_FILE.path), overrides))


def _overrides(text: bytes) -> None:
    lines = [line for line in text.split(b"\n") if line]
    _use(config.load(None, [f"{KEYS[line[0] % len(KEYS)]}={line[1:].decode(errors='replace')}" for line in lines]))


def _use(read: config.Config) -> None:
    read.hooks()
    read.on_queue("queue_full")
    # Whatever limits it names, a table for many flows takes longer to make than to try; and an
    # interface that is not there is no fault of the configuration's.
    limits = msgspec.structs.replace(read.engine_limits(), flows=64)
    rules = tuple(msgspec.structs.replace(rule, interface=None) for rule in read.flow_rules())
    Engine(rules, ports=read.ports(), limits=limits, on=read.on, dry_run=read.gateway.dry_run)


def parse(data: bytes) -> None:
    """One input; whatever it raises is a fault."""
    with contextlib.suppress(ConfigError):
        (_configuration, _profile, _overrides)[data[0] % 3 if data else 0](data[1:])
