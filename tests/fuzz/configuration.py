"""Target ``config``: octets as a configuration file with overrides, and as a profile.

The first octet chooses: bit 0 a profile, else a configuration, whose lines that begin with
``--set `` are overrides and not of the file. A ConfigError is what a wrong one gets; a good one
must give engines and rules. Does not know how files are found.
"""

from __future__ import annotations

import os
from pathlib import Path

from nfmailguard import config
from nfmailguard.engine import Engine
from nfmailguard.errors import ConfigError
from nfmailguard.policy import load
from nfmailguard.policy.model import FlowRule, Mode

__all__ = ["parse"]

_MOST_FLOWS = 1 << 16  # an engine's table of more takes longer to make than to try


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
    read = config.load(Path(_FILE.path), overrides)
    rules = read.flow_rules()
    read.hooks()
    read.on_queue("queue_full")
    limits = read.engine_limits()
    interfaces = any(rule.interface for rule in rules)
    if limits.flows <= _MOST_FLOWS and not interfaces:
        Engine(rules, ports=read.ports(), limits=limits, on=read.on, dry_run=read.gateway.dry_run)


def parse(data: bytes) -> None:
    """One input; whatever it raises is a fault."""
    try:
        if data[:1] and data[0] & 1:
            _profile(data[1:])
        else:
            _configuration(data[1:])
    except ConfigError:
        pass
