"""Makes an input that breaks a rule as small as it gets, and shows what happens in it.

    python -m tests.fuzz.shrink TARGET FILE [OUT]

Works on the ordinary build: what only a sanitizer sees is libFuzzer's to shrink
(``build/fuzz/TARGET -minimize_crash=1``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.build import build_harness
from tests.fuzz.targets import TARGETS

__all__ = ["shrink"]


def shrink(data: bytes, broken: Callable[[bytes], bool]) -> bytes:
    """``data`` with whatever is not needed for ``broken`` taken out, octet by octet."""
    before = b""
    while data != before:
        before = data
        size = max(1, len(data) // 2)
        while size:
            at = 0
            while at < len(data):
                shorter = data[:at] + data[at + size :]
                if broken(shorter):
                    data = shorter
                else:
                    at += size
            size //= 2
        for at in range(len(data)):
            for value in (0, 1, data[at] & 15):
                simpler = data[:at] + bytes([value]) + data[at + 1 :]
                if value < data[at] and broken(simpler):
                    data = simpler
                    break
    return data


def main(name: str, file: str, out: str = "") -> None:
    build_harness()
    replay, _ = TARGETS[name].ready(False)
    data = Path(file).read_bytes()
    message = replay(data)
    if message is None:
        sys.exit(f"{file}: breaks nothing in the ordinary build")
    rule = message.partition(" (")[0]
    data = shrink(data, lambda tried: (replay(tried) or "").startswith(rule))
    if out:
        Path(out).write_bytes(data)
    sys.stdout.write(f"{data.hex()}\n")
    sys.stdout.flush()
    if name in ("packets", "streams"):
        from tests.fuzz.harness import gate

        gate.show(True)
    sys.stdout.write(f"{replay(data)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
