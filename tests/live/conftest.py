"""What every live test leaves behind in its event log is held against docs/eve.schema.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from nfmailguard.events.schema import schema

_VALIDATORS = {kind: Draft202012Validator(event) for kind, event in schema()["$defs"].items()}


def _kinds(log: Path) -> Iterator[dict[str, Any]]:
    """Of the events that have the same fields the first one, and every health event."""
    seen = set()
    for line in log.read_bytes().splitlines():
        event = json.loads(line)
        kind = event["event_type"]
        shape = (kind, *sorted(event), *sorted(event[kind]))
        if kind == "health" or shape not in seen:
            seen.add(shape)
            yield event


@pytest.fixture(autouse=True)
def events_are_valid(tmp_path: Path) -> Iterator[None]:
    yield
    for log in tmp_path.rglob("eve.*"):
        if log.is_file() and not log.is_symlink():
            for event in _kinds(log):
                faults = [error.message for error in _VALIDATORS[event["event_type"]].iter_errors(event)]
                assert faults == [], f"{log.name}: {event}"
