"""The configuration: TOML, overrides and flags in, frozen structs out.

Promises: all errors are reported at once, one line each, with file and key; a Config returned by ``load`` can be run.
Does not touch the system.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nfmailguard.errors import ConfigError
from nfmailguard.events import targets
from nfmailguard.policy.load import built, meant, parse_value
from nfmailguard.policy.model import CONDITIONS, Mode, Policy
from nfmailguard.reading import toml_of
from nfmailguard.settings import (
    Config,
    Driver,
    Gateway,
    Hook,
    Log,
    Queue,
    RestoreServer,
    Restoring,
    Rule,
    Service,
    network,
)

_MOST_PROBLEMS = 50  # Most problems of a configuration that are listed.

__all__ = ["IMPLICIT_TLS", "Config", "Driver", "Gateway", "Hook", "Log", "Queue", "Rule", "control_path", "load"]


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
    """The configuration from ``path`` (none: the defaults), with ``key=value`` overrides and flags on top.

    Raises ConfigError with every problem, one line each.
    """
    where = str(path) if path is not None else "configuration"
    table = toml_of(path) if path is not None else {}
    flags: dict[str, dict[str, Any]] = {
        "gateway": {"mode": mode, "profile": profile},
        "queue": {"numbers": queue, "driver": driver},
    }
    flags["gateway"] |= {"dry_run": dry_run or None, "faithful": faithful or None}
    problems = _apply_overrides(table, overrides)
    for section, values in flags.items():
        given = {key: value for key, value in values.items() if value is not None}
        if given and isinstance(table.setdefault(section, {}), dict):
            table[section] |= given
    illegal = _illegal_conditions(table)
    config: Config = built(table, Config, "", problems)
    problems += [*_problems(config), *illegal]
    if problems:
        told = [f"{where}: {problem}" for problem in problems[:_MOST_PROBLEMS]]
        more = len(problems) - len(told)
        raise ConfigError(*told, *([f"{where}: and {more} more"] if more else []))
    return config


def _illegal_conditions(table: dict[str, Any]) -> list[str]:
    """Errors for actions of ``[on]`` that are illegal for their condition, which are removed from the table."""
    given = table.get("on")
    problems = []
    if not isinstance(given, dict):
        return []
    for name, action in list(given.items()):
        if name in CONDITIONS and action not in (legal := CONDITIONS[name].actions):
            del given[name]
            problems.append(f"on.{name}: {str(action)[:80]}; one of {', '.join(legal)}")
    return problems


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    """Field names as they are written in the file, with their types."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return {}
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}


#: Top-level keys of a profile or configuration that are not offered as sections for ``--set``.
_NO_SECTIONS = frozenset({"name", "title", "policy", "rule"})


def _apply_overrides(table: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    problems = []
    for text in overrides:
        key, equals, value = text.partition("=")
        section, _, name = key.strip().partition(".")
        fields = _fields(_fields(Config).get(section))
        if not equals or not name:
            problems.append(f"--set {text}: write section.key=value")
        elif section not in {*_fields(Config), *_fields(Policy)}:
            known = dict.fromkeys(one for one in (*_fields(Config), *_fields(Policy)) if one not in _NO_SECTIONS)
            problems.append(f"--set {key}: no such section{meant(section, known)}")
        elif section in ("policy", "rule") or section not in _fields(Config):
            table.setdefault("policy", {})[key.strip().removeprefix("policy.")] = value.strip()
        elif name not in fields:
            problems.append(f"--set {key}: no such key{meant(name, fields)}")
        elif section == "on" and value.strip().lower() != "none":
            table.setdefault(section, {})[name] = value.strip()
        else:
            try:
                table.setdefault(section, {})[name] = parse_value(value.strip(), fields[name], f"--set {key}")
            except ConfigError as error:
                problems.append(str(error))
    return problems


def _problems(config: Config) -> list[str]:
    """Problems that the types cannot express."""
    checks = (
        _port_problems,
        _queue_problems,
        _address_problems,
        _limit_problems,
        _policy_problems,
        _restore_problems,
        _log_problems,
    )
    return [problem for check in checks for problem in check(config)]


#: Ports on which TLS begins with the first byte: submissions (RFC 8314 3.3), and the ports for reading mail of the same
#: kind.
IMPLICIT_TLS = (465, 993, 995)


def _port_problems(config: Config) -> list[str]:
    """Ports without SMTP that cannot be enforced: the first bytes of TLS would be blanked."""
    return [
        f"gateway.ports: {port} speaks TLS from the first byte on, and enforcing breaks it; leave it out, or watch it:"
        f' [[rule]] ports = [{port}], mode = "monitor"'
        for port in config.ports()
        if port in IMPLICIT_TLS and not config.gateway.dry_run and _enforced(config, port)
    ]


def _enforced(config: Config, port: int) -> bool:
    for rule in config.rule:
        if not rule.ports or port in rule.ports:
            if (rule.mode or config.gateway.mode) is Mode.ENFORCE:
                return True
            if not (rule.source or rule.destination or rule.interface):
                return False  # Every flow to that port matches this rule, so later rules do not matter.
    return config.gateway.mode is Mode.ENFORCE


def _queue_problems(config: Config) -> list[str]:
    queue, problems = config.queue, []
    first, dash, last = queue.numbers.partition("-")
    numbers = [first, last] if dash else [first]
    # str.isdigit() also accepts characters that int() refuses, hence the regular expression.
    known = all(re.fullmatch("[0-9]{1,5}", number) and int(number) <= 0xFFFF for number in numbers)
    if not known or int(numbers[0]) > int(numbers[-1]):
        problems.append(f"queue.numbers: {queue.numbers!r}; a number from 0 to 65535, or a range like 0-3")
    if not 1 <= queue.length <= 1_000_000:
        problems.append(f"queue.length: {queue.length}; 1 to 1000000 packets")
    if not 128 <= queue.copy_range <= 0xFFFF:
        problems.append(f"queue.copy_range: {queue.copy_range}; 128 to 65535 octets")
    if not (queue.receive_buffer == 0 or 4096 <= queue.receive_buffer < 2**31):
        problems.append(f"queue.receive_buffer: {queue.receive_buffer}; 0, or 4096 to 2147483647 octets")
    if not 0 <= queue.busy_poll <= 1_000_000:
        problems.append(f"queue.busy_poll: {queue.busy_poll}; 0 to 1000000 microseconds")
    here = os.sched_getaffinity(0)
    problems += [f"queue.cpus: {cpu}; this process may run on {_spans(here)}" for cpu in queue.cpus if cpu not in here]
    return problems


def _spans(numbers: Iterable[int]) -> str:
    """Numbers as ranges, such as ``0-3,6``, as taskset writes them."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][-1] == number - 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    return ",".join("-".join(map(str, span)) for span in spans)


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
                network(text)
            except ValueError as error:
                problems.append(f"{where}: {error}")
    places = [("gateway.ports", config.gateway.ports)]
    places += [(f"rule {place}: ports", rule.ports) for place, rule in enumerate(config.rule, 1)]
    problems += [f"{where}: {port}; 1 to 65535" for where, ports in places for port in ports if not 1 <= port <= 65535]
    if not config.gateway.ports:
        problems.append("gateway.ports: no port, nothing to inspect")
    if not config.gateway.hook:
        problems.append(f"gateway.hook: none; one or more of {', '.join(Hook)}")
    return problems


#: Largest value of each key of [limits], as the core's integers can hold it; for times at most about thirty years.
_MOST: Mapping[str, float] = {
    "flows": 50_000_000,
    "flows_per_source": 50_000_000,
    "memory": 2**62,
    "pending_segments": 65_535,
    "held_packets": 2**31,
    "held_per_flow": 65_535,
    "held_per_source": 2**31,
    "outstanding_commands": 60_000,
    "junk_commands": 1_000_000_000,
    "findings_told": 1_000_000,
    "event_memory": 2**32 - 1,
    "log_rate": 2**32 - 1,
}
_MOST_SECONDS = 1_000_000_000
#: Keys of [limits] that may be 0: then no server uses SYN cookies, or there is no limit for junk commands.
_NONE = ("cookies", "junk_commands")


def _limit_problems(config: Config) -> list[str]:
    problems = []
    for name, value in msgspec.structs.asdict(config.limits).items():
        most = _MOST.get(name, _MOST_SECONDS)
        least = "0 or more" if name in _NONE else "more than 0"
        if value == 0 and name == "startup":
            problems.append('limits.startup: 0; to reset flows older than the start, on.midstream_at_start = "reset"')
        # The comparison is also false for nan, which is thus refused.
        elif value is not None and not (0 < value <= most or (value == 0 and name in _NONE)):
            problems.append(f"limits.{name}: {value}; {least}, at most {most}")
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


#: Most bytes of a line, and most lines, of a server's EHLO reply and greeting that the core can restore.
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


#: A Unix socket's path has at most 107 bytes (unix(7)); a few are needed for the temporary name it has until it
#: listens.
_LONGEST_SOCKET = 96


def control_path(path: Path | None) -> str:
    """``service.control`` of a file (None: the default) whose other settings may be wrong. Raises ConfigError."""
    service = toml_of(path).get("service", {}) if path is not None else {}
    control = service.get("control") if isinstance(service, dict) else None
    return control if isinstance(control, str) else Service().control


def _log_problems(config: Config) -> list[str]:
    ours = config.syslog
    problem = targets.problem(ours.target, ours.facility, ours.host) if ours.target is not None else None
    problems = [f"syslog.{problem}"] if problem else []
    names = (ours.client, ours.server, *ours.interfaces)
    odd = [name for name in names if not re.fullmatch(r"[!-9;-~]{1,48}", name)]
    problems += [f"syslog: {name!r}; an interface's name has no space and no colon" for name in odd]
    control = config.service.control
    if control and not (control.startswith("/") and 1 < len(os.fsencode(control)) <= _LONGEST_SOCKET):
        problems.append(
            f"service.control: {control!r}; an absolute path of at most {_LONGEST_SOCKET} octets, or nothing"
        )
    return problems
