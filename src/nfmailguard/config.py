"""The configuration: TOML, overrides and flags in, frozen structs out.

Promises: everything that is wrong is said at once, a line each, with file and key;
a Config that came out of ``load`` can be run. Does not touch the system.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
import typing
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from nfmailguard.errors import ConfigError
from nfmailguard.events import targets
from nfmailguard.events.targets import Format, Interfaces
from nfmailguard.policy.load import load_profile, override, parse_value
from nfmailguard.policy.model import (
    CONDITIONS,
    Action,
    FlowRule,
    Limits,
    Mode,
    Network,
    Offer,
    On,
    PartialLines,
    Policy,
    Restore,
    RestoreScope,
    RestoreSide,
)

__all__ = ["Config", "Driver", "Gateway", "Hook", "Log", "Queue", "Rule", "load"]


class Hook(StrEnum):
    """Where packets are taken: routed through, for this host, or from it."""

    FORWARD = "forward"
    INPUT = "input"
    OUTPUT = "output"


class Driver(StrEnum):
    """What reads the queue: our own driver, or the NetfilterQueue package."""

    KERNEL = "kernel"
    NETFILTERQUEUE = "netfilterqueue"


class Gateway(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[gateway]``: what every flow gets that no ``[[rule]]`` speaks of."""

    mode: Mode = Mode.MONITOR
    profile: str = "pix63"
    ports: tuple[int, ...] = (25,)
    #: Servers' addresses or networks; empty: any.
    addresses: tuple[str, ...] = ()
    hook: tuple[Hook, ...] = (Hook.FORWARD,)
    dry_run: bool = False
    faithful: bool = False


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from", "destination": "to"}):
    """``[[rule]]``: which flows get another mode or profile; the first match wins."""

    source: tuple[str, ...] = ()
    destination: tuple[str, ...] = ()
    #: The interface the client's packets come in on.
    interface: str | None = msgspec.field(default=None, name="in")
    ports: tuple[int, ...] = ()
    mode: Mode | None = None
    profile: str | None = None


class RestoreServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[restore.server]]``: what some servers say where nothing is masked, as ``probe --learn`` writes it."""

    #: Addresses or networks; empty: any server.
    addresses: tuple[str, ...] = ()
    #: The lines of their EHLO reply behind the first, in order, without their code: ``SIZE 10240000``.
    keywords: tuple[str, ...] = ()
    #: Their greeting, without its ``220 ``; empty: a masked one stays as it came.
    banner: str = ""


class Restoring(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[restore]``: how rules in ``restore`` mode undo what the firewall of their profile did."""

    side: RestoreSide = RestoreSide.BOTH
    scope: RestoreScope = RestoreScope.SAFE
    starttls: bool = False
    #: Of any server that no ``[[restore.server]]`` names.
    keywords: tuple[str, ...] = ()
    banner: str = ""
    server: tuple[RestoreServer, ...] = ()

    def restore(self) -> Restore:
        """Raises ValueError for what is no network."""
        known = (*self.server, RestoreServer(keywords=self.keywords, banner=self.banner))
        offers = tuple(Offer(_networks(one.addresses), one.keywords, one.banner) for one in known)
        return Restore(self.side, self.scope, self.starttls, offers)


class Queue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[queue]``: the kernel's queue and how it is read. ``copy_range`` is in octets, ``length`` in packets."""

    numbers: str = "0"
    driver: Driver = Driver.KERNEL
    length: int = 4096
    copy_range: int = 0xFFFF
    gso: bool = True

    @property
    def first(self) -> int:
        return int(self.numbers.partition("-")[0])

    @property
    def last(self) -> int:
        return int(self.numbers.rpartition("-")[2])


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[log]``: where events go: a file's path, ``-`` for standard output, None for nowhere."""

    eve: str | None = None
    #: Seconds between two ``stats`` events.
    stats: float = 60.0
    #: Besides each ``mailguard`` event an ``alert``, for consumers that list only those.
    alerts: bool = False


class SyslogStyle(StrEnum):
    """Whose log lines: those of a PIX up to 6.3, of an ASA, or whichever the profile is of."""

    AUTO = "auto"
    PIX = "pix"
    ASA = "asa"


class Syslog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[syslog]``: findings as Cisco's log lines, next to ``log.eve``."""

    #: A file, ``-``, journald, ``udp://HOST[:PORT]``, ``tcp://HOST[:PORT]``, ``unix:///PATH``; None: nowhere.
    target: str | None = None
    style: SyslogStyle = SyslogStyle.AUTO
    format: Format = Format.RFC3164
    facility: str = "local4"
    #: The name the lines carry; empty: this machine's.
    host: str = ""
    #: What the client's and the server's side are called.
    client: str = "outside"
    server: str = "inside"
    #: Networks that have names of their own: ``dmz = ["10.0.25.0/24"]``.
    interfaces: dict[str, tuple[str, ...]] = {}

    def names(self) -> Interfaces:
        """Raises ValueError for what is no network."""
        named = ((name, network) for name, texts in self.interfaces.items() for network in _networks(texts))
        return Interfaces(self.client, self.server, tuple(named))


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole configuration. ``policy`` overrides keys of every profile named in it."""

    gateway: Gateway = Gateway()
    rule: tuple[Rule, ...] = ()
    queue: Queue = Queue()
    limits: Limits = Limits()
    on: On = On()
    log: Log = Log()
    syslog: Syslog = Syslog()
    restore: Restoring = Restoring()
    policy: dict[str, Any] = {}

    def flow_rules(self) -> tuple[FlowRule, ...]:
        """The rules of an Engine; the last one is ``[gateway]`` and matches every flow. Raises ConfigError."""
        rules = [
            FlowRule(
                rule.mode or self.gateway.mode,
                self._policy(rule.profile or self.gateway.profile),
                _networks(rule.source),
                _networks(rule.destination),
                rule.interface,
                rule.ports,
                self.restore.restore(),
            )
            for rule in self.rule
        ]
        last = FlowRule(self.gateway.mode, self._policy(self.gateway.profile), restore=self.restore.restore())
        return (*rules, last)

    def ports(self) -> tuple[int, ...]:
        """Every port that is inspected, in order."""
        return tuple(sorted({*self.gateway.ports, *(port for rule in self.rule for port in rule.ports)}))

    def hooks(self) -> tuple[Hook, ...]:
        """Where packets are taken. A mail host's own traffic is seen whole only by input and output together."""
        hooks = set(self.gateway.hook)
        if hooks & {Hook.INPUT, Hook.OUTPUT}:
            hooks |= {Hook.INPUT, Hook.OUTPUT}
        return tuple(hook for hook in Hook if hook in hooks)

    def on_queue(self, condition: str) -> Action:
        """``queue_full`` or ``no_listener``: the kernel knows one action for all: enforcing anywhere counts."""
        modes = [rule.mode for rule in self.flow_rules()]
        enforcing = Mode.ENFORCE in modes and not self.gateway.dry_run
        return self.on.action(condition, Mode.ENFORCE if enforcing else Mode.MONITOR)

    def engine_limits(self) -> Limits:
        """Held packets stay under a quarter of the queue, so that they never fill it."""
        return msgspec.structs.replace(
            self.limits, held_packets=min(self.limits.held_packets, max(1, self.queue.length // 4))
        )

    def _policy(self, name: str) -> Policy:
        policy = override(load_profile(name), _flat(self.policy))
        if self.gateway.faithful:
            commands = msgspec.structs.replace(policy.commands, partial_lines=PartialLines.MASK)
            policy = msgspec.structs.replace(policy, commands=commands)
        return policy


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    # Nested tables as the keys `--set` takes.
    flat: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            flat[prefix + key] = ",".join(str(item) for item in value)
        else:
            flat[prefix + key] = (
                {True: "yes", False: "no"}.get(value, str(value)) if value in (True, False) else str(value)
            )
    return flat


def load(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    mode: str | None = None,
    profile: str | None = None,
    queue: str | None = None,
    driver: str | None = None,
    dry_run: bool = False,
    faithful: bool = False,
) -> Config:
    """The configuration of ``path`` (none: the defaults), with ``key=value`` overrides and flags on top.

    Raises ConfigError with every problem, a line each.
    """
    where = str(path) if path is not None else "configuration"
    table = _read(path) if path is not None else {}
    flags: dict[str, dict[str, Any]] = {
        "gateway": {"mode": mode, "profile": profile},
        "queue": {"numbers": queue, "driver": driver},
    }
    flags["gateway"] |= {"dry_run": dry_run or None, "faithful": faithful or None}
    problems = [*_apply_overrides(table, overrides), *_unknown(table, Config, "")]
    for section, values in flags.items():
        given = {key: value for key, value in values.items() if value is not None}
        if given and isinstance(table.setdefault(section, {}), dict):
            table[section] |= given
    config = None if problems else _convert(table, problems)
    if config is not None:
        problems += _problems(config)
    if problems or config is None:
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in problems))
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply") from error


def _fields(kind: Any) -> dict[str, Any]:
    """Field names as they stand in the file, with their types."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return {}
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}


def _apply_overrides(table: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    problems = []
    for text in overrides:
        key, equals, value = text.partition("=")
        section, _, name = key.strip().partition(".")
        fields = _fields(_fields(Config).get(section))
        if not equals or not name:
            problems.append(f"--set {text}: write section.key=value")
        elif section in ("policy", "rule") or section not in _fields(Config):
            table.setdefault("policy", {})[key.strip().removeprefix("policy.")] = value.strip()
        elif name not in fields:
            problems.append(f"--set {key}: no such key{_meant(name, fields)}")
        else:
            try:
                table.setdefault(section, {})[name] = parse_value(value.strip(), fields[name], f"--set {key}")
            except ConfigError as error:
                problems.append(str(error))
    return problems


def _meant(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; one of {', '.join(known)}"


def _unknown(table: Mapping[str, Any], kind: Any, prefix: str) -> list[str]:
    """Keys no struct has, with what was probably meant."""
    fields = _fields(kind)
    problems = []
    for key, value in table.items():
        if key not in fields:
            problems.append(f"{prefix}{key}: no such key{_meant(key, fields)}")
        elif isinstance(value, dict) and _fields(fields[key]):
            problems += _unknown(value, fields[key], f"{prefix}{key}.")
        elif isinstance(value, list) and _fields(item := next(iter(typing.get_args(fields[key])), None)):
            for number, part in enumerate(value, start=1):
                if isinstance(part, dict):
                    problems += _unknown(part, item, f"{prefix}{key} {number}: ")
    return problems


def _lists(value: Any, kind: Any) -> Any:
    """One thing where a list may stand is a list of one."""
    if typing.get_origin(kind) is tuple:
        values = value if isinstance(value, list | tuple) else [value]
        return [_lists(item, typing.get_args(kind)[0]) for item in values]
    fields = _fields(kind)
    if fields and isinstance(value, dict):
        return {key: _lists(item, fields[key]) if key in fields else item for key, item in value.items()}
    return value


def _convert(table: dict[str, Any], problems: list[str]) -> Config | None:
    # msgspec stops at the first mistake, so each section is tried by itself.
    sections: dict[str, Any] = {}
    for section, kind in _fields(Config).items():
        if section not in table:
            continue
        try:
            sections[section] = msgspec.convert(_lists(table[section], kind), kind)
        except msgspec.ValidationError as error:
            message, _, at = str(error).partition(" - at `$")
            problems.append(f"{section}{at.rstrip('`')}: {message[0].lower()}{message[1:]}")
    return None if problems else Config(**sections)


def _problems(config: Config) -> list[str]:
    """What the types cannot say."""
    checks = (_queue_problems, _address_problems, _limit_problems, _policy_problems, _restore_problems, _log_problems)
    return [problem for check in checks for problem in check(config)]


def _queue_problems(config: Config) -> list[str]:
    queue, problems = config.queue, []
    first, dash, last = queue.numbers.partition("-")
    numbers = [first, last] if dash else [first]
    # isdigit() also takes what int() does not.
    known = all(re.fullmatch("[0-9]{1,5}", number) and int(number) <= 0xFFFF for number in numbers)
    if not known or int(numbers[0]) > int(numbers[-1]):
        problems.append(f"queue.numbers: {queue.numbers!r}; a number from 0 to 65535, or a range like 0-3")
    if not 1 <= queue.length <= 1_000_000:
        problems.append(f"queue.length: {queue.length}; 1 to 1000000 packets")
    if not 128 <= queue.copy_range <= 0xFFFF:
        problems.append(f"queue.copy_range: {queue.copy_range}; 128 to 65535 octets")
    return problems


def _address_problems(config: Config) -> list[str]:
    problems = []
    for where, texts in [
        ("gateway.addresses", config.gateway.addresses),
        *((f"rule {n}: from", rule.source) for n, rule in enumerate(config.rule, start=1)),
        *((f"rule {n}: to", rule.destination) for n, rule in enumerate(config.rule, start=1)),
        *((f"syslog.interfaces.{name}", texts) for name, texts in config.syslog.interfaces.items()),
        *((f"restore.server {n}: addresses", one.addresses) for n, one in enumerate(config.restore.server, start=1)),
    ]:
        for text in texts:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError:
                problems.append(f"{where}: {text!r} is no address or network")
    problems += [f"ports: {port}; 1 to 65535" for port in config.ports() if not 1 <= port <= 65535]
    if not config.gateway.ports:
        problems.append("gateway.ports: no port, nothing to inspect")
    if not config.gateway.hook:
        problems.append(f"gateway.hook: none; one or more of {', '.join(Hook)}")
    return problems


#: The largest value of each of [limits]; what the core counts in, and no time beyond thirty years.
_MOST: Mapping[str, float] = {
    "flows": 50_000_000,
    "memory": 2**62,
    "pending_segments": 65_535,
    "held_packets": 2**31,
    "held_per_flow": 65_535,
    "held_per_source": 2**31,
    "outstanding_commands": 60_000,
}
_MOST_SECONDS = 1_000_000_000


def _limit_problems(config: Config) -> list[str]:
    problems = []
    for name, value in msgspec.structs.asdict(config.limits).items():
        most = _MOST.get(name, _MOST_SECONDS)
        if not 0 < value <= most:  # so that nan is refused, too
            problems.append(f"limits.{name}: {value}; more than 0, at most {most}")
    for name, action in msgspec.structs.asdict(config.on).items():
        legal = CONDITIONS[name].actions
        if action is not None and action not in legal:
            problems.append(f"on.{name}: {action}; one of {', '.join(legal)}")
    if not 0 < config.log.stats <= _MOST_SECONDS:
        problems.append(f"log.stats: {config.log.stats}; more than 0 seconds, at most {_MOST_SECONDS}")
    return problems


def _policy_problems(config: Config) -> list[str]:
    problems = []
    names = {config.gateway.profile, *(rule.profile for rule in config.rule if rule.profile)}
    for name in sorted(names):
        try:
            config._policy(name)
        except ConfigError as error:
            problems.append(str(error))
    if len(config.rule) >= 64:
        problems.append(f"rule: {len(config.rule)} of them; at most 63")
    return problems


#: As many octets and lines as the core keeps of a server's words.
_LONGEST_LINE, _MOST_LINES = 253, 64


def _restore_problems(config: Config) -> list[str]:
    problems: list[str] = []
    known: list[tuple[str, Restoring | RestoreServer]] = [
        ("restore", config.restore),
        *((f"restore.server {n}", server) for n, server in enumerate(config.restore.server, start=1)),
    ]
    for where, one in known:
        if len(one.keywords) > _MOST_LINES:
            problems.append(f"{where}.keywords: {len(one.keywords)} of them; at most {_MOST_LINES}")
        for key, text in [*(("keywords", keyword) for keyword in one.keywords), ("banner", one.banner)]:
            if not re.fullmatch(f"[ -~]{{0,{_LONGEST_LINE}}}", text) or (key == "keywords" and not text.strip()):
                problems.append(f"{where}.{key}: {text!r}; printable ASCII, 1 to {_LONGEST_LINE} octets")
            elif re.match("[0-9]{3}[ -]", text):
                problems.append(f"{where}.{key}: {text!r}; write it without its code")
    return problems


def _log_problems(config: Config) -> list[str]:
    ours = config.syslog
    problem = targets.problem(ours.target, ours.facility, ours.host) if ours.target is not None else None
    problems = [f"syslog.{problem}"] if problem else []
    names = (ours.client, ours.server, *ours.interfaces)
    odd = [name for name in names if not re.fullmatch(r"[!-9;-~]{1,48}", name)]
    return [*problems, *(f"syslog: {name!r}; an interface's name has no space and no colon" for name in odd)]
