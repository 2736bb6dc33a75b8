"""The rooms, built when a test first asks for them."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from tests.fuzz.build import build_harness

__all__ = ["reordering", "rooms"]


@cache
def _built(name: str) -> Any:
    build_harness(folder="tests/core")
    return importlib.import_module(f"tests.core.{name}")


def rooms() -> Any:
    """Page buffer, free list, stream, netlink messages."""
    return _built("rooms")


def reordering() -> Any:
    """Where segments wait for their turn."""
    return _built("reordering")
