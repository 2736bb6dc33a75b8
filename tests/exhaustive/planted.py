"""The bypasses that were there, planted again: search and machine have to find each of them.

Builds a copy of the tree with mutations of ``tests/mutants/mutants.toml`` in it, several at once where a
bypass needs them, and runs the exhaustive search and the machine's connections over the same ports there,
each until its first finding. Does not know what the mutations do.

    python -m tests.exhaustive.planted [NAME | MUTATION[+MUTATION]...]... [--depth 8] [--deliveries 200000]

A mutation is "RULE-NUMBER" or "RULE: WHAT" of that table. Exits 1 when one of them does not find one.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.run import Copy, copies, put
from tests.mutants.table import Mutant, mutants, sources

#: What each of them is made of, and the profile whose flows it lets past.
PLANTED = {
    "connection identity": (
        "pix63",
        (
            "refused_options: the drop",
            "rst: that others go nowhere",
            "rst: the number that was acknowledged",
            "another_connection: that numbers do not tell: the SYN",
            "another_connection: that numbers do not tell: the answer",
            "cookie: the hiding",
        ),
    ),
    "connection identity, passed flows": (
        "asa-tls",
        (
            "rst: that others go nowhere",
            "rst: the number that was acknowledged",
            "rst: that nothing passes after it",
            "cookie: the hiding",
        ),
    ),
}


@dataclass(frozen=True)
class Plant:
    """Mutations that are made together."""

    name: str
    profile: str
    parts: tuple[Mutant, ...]


def _mutant(word: str) -> Mutant:
    for mutant in mutants():
        if word in (mutant.name, f"{mutant.rule}: {mutant.what}"):
            return mutant
    raise ValueError(f"no such mutation in tests/mutants/mutants.toml: {word}")


def plants(words: list[str]) -> list[Plant]:
    """The bypasses by their names, or mutations joined with a plus under any profile."""
    found = []
    for word in words or list(PLANTED):
        profile, parts = PLANTED.get(word, ("", tuple(word.split("+"))))
        found.append(Plant(word, profile, tuple(_mutant(part.strip()) for part in parts)))
    return found


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _found(copy: Copy, *command: str) -> bool:
    """Whether the program finds something; what it says last of all, and what it found."""
    done = copy.run("-m", *command)
    for line in done.stdout.splitlines()[1:]:
        _say(f"    {line}")
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        raise RuntimeError(f"{command[0]} said {done.returncode}:\n{done.stderr[-2000:]}")
    return done.returncode == 1


def check(copy: Copy, plant: Plant, depth: int, deliveries: int) -> bool:
    """Plants one and lets both look for it."""
    before: dict[Path, bytes] = {}
    try:
        for part in plant.parts:
            place, text = part.changed(sources(copy.tree))
            before.setdefault(place, place.read_bytes())
            put(place, text.encode())
        copy.build()
        only = ("--only", plant.profile) if plant.profile else ()
        search = _found(copy, "tests.exhaustive.search", "--depth", str(depth), "--first", *only)
        profile = ("--profile", plant.profile) if plant.profile else ()
        machine = _found(copy, "tests.stream.ports", "--deliveries", str(deliveries), "--first", *profile)
    finally:
        for place, content in before.items():
            place.write_bytes(content)
        copy.restore()
    _say(f"{plant.name}: the search {'finds' if search else 'DOES NOT FIND'} it,")
    _say(f"    the machine {'finds' if machine else 'DOES NOT FIND'} it in {deliveries:,} deliveries\n")
    return search and machine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plants", nargs="*", help="bypasses by name, or mutations joined with +; all bypasses if none")
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--deliveries", type=int, default=200_000)
    options = parser.parse_args()
    chosen = plants(options.plants)
    copy = copies(1, fresh=False).get()
    missed = [plant.name for plant in chosen if not check(copy, plant, options.depth, options.deliveries)]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
