"""Which tests may run beside each other in a parallel run (`pytest -n 2`), and in which order they are handed out.

Promises: what shares a network, a server or a run of a command stays in one worker, in its order. Does not know pytest
without xdist, which needs none of this.
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

__all__ = ["Together"]


class Together(LoadScopeScheduling):
    """A live module stays together; of the others each function does, with all its parameters."""

    def __init__(self, config: Any, log: Any = None) -> None:
        config.option.loadscopereorder = False  # as they are collected: the live ones, which take longest, come first
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        module, _, rest = nodeid.partition("::")
        if module.startswith("tests/live/"):
            return module
        return f"{module}::{rest.partition('[')[0]}"
