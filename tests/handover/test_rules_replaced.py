"""Every rule's test with an engine that is handed over in the middle of it, beside one that never is."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from tests.support.twins import Twins, often_at_first

#: What the rules' tests use an Engine in.
USERS = ("tests.support.dialogue", "tests.rules.gateway")
MODULES = ("chunks", "connections", "headers", "identity", "packets", "streams", "waiting")

for _module in MODULES:
    _found: dict[str, Any] = vars(import_module(f"tests.rules.test_{_module}"))
    globals().update({f"{name}_in_{_module}": one for name, one in _found.items() if name.startswith("test_")})


@pytest.fixture(autouse=True)
def replaced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in USERS:
        monkeypatch.setattr(f"{module}.Engine", Twins)
    monkeypatch.setattr(Twins, "when", staticmethod(often_at_first()))
    before = Twins.handed_over
    yield
    assert Twins.handed_over >= before
