"""An image's parts from outside: its header, its checksum, and where each field of the core's structures is."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.rules.siphash import siphash_2_4

ROOT = Path(__file__).parents[2]
#: magic, format, layout, length, checksum.
HEADER = struct.Struct("=8sQQQQ")
_MASK = 2**64 - 1


def mended(image: bytes | bytearray) -> bytearray:
    """With the checksum and the length that what it says has."""
    _, form, layout, _, _ = HEADER.unpack_from(image)
    key = struct.pack("=QQ", layout, len(image) ^ form << 48 & _MASK)
    made = bytearray(image)
    struct.pack_into("=QQ", made, 24, len(image), siphash_2_4(key, bytes(image[HEADER.size :])))
    return made


_SIZES = {"uint8_t": 1, "uint16_t": 2, "uint32_t": 4, "uint64_t": 8, "bint": 4}
_NUMBERS = {"MAGIC_BYTES": 8}
#: Structures, where they are declared.
_WHERE = {
    "Flow": "flow/table", "Stream": "tcp/stream", "PageBuffer": "memory/pagebuffer", "Identity": "record",
    "Session": "smtp/session", "Dialogue": "smtp/dialogue", "Exchange": "smtp/outstanding",
    "CommandLine": "smtp/command_line", "Argument": "smtp/command_line", "ReplyLine": "smtp/reply_line",
    "Text": "smtp/text", "TextLines": "smtp/text_lines", "Parts": "smtp/size", "Mime": "smtp/mime",
    "Account": "memory/account", "Tally": "policy/tally", "CoreState": "handover/parts",
    "FlowParts": "handover/parts", "HeldPart": "handover/parts",
    "DialogueParts": "handover/parts", "LinePart": "handover/parts", "EditPart": "handover/parts",
    "BufferedPart": "handover/parts", "Counters": "core", "FlowlessFindings": "core",
}  # fmt: skip


@cache
def fields(name: str) -> tuple[dict[str, tuple[int, int]], int, int]:
    """Offset and size of every field by its dotted name, the size of all, its alignment: as C has them."""
    text = (ROOT / "cext" / f"{_WHERE[name]}.pxd").read_text()
    block = re.search(rf"^cdef struct {name}:(.*?)^(?=\S)", text + "\nend", re.MULTILINE | re.DOTALL)
    assert block, name
    found: dict[str, tuple[int, int]] = {}
    at, widest = 0, 1
    for line in block[1].splitlines():
        declared = re.match(r"    (\w+) (\*?)(\w+)(?:\[(\w+)\])?", re.sub(r"#.*", "", line))
        if not declared:
            continue
        kind, pointer, field, count = declared.groups()
        inner: dict[str, tuple[int, int]] = {}
        if pointer:
            size = aligned = 8
        elif kind in _SIZES:
            size = aligned = _SIZES[kind]
        else:
            inner, size, aligned = fields(kind)
        at += -at % aligned
        widest = max(widest, aligned)
        for place in range(int(_NUMBERS.get(count, count)) if count else 1):
            label = f"{field}[{place}]" if count else field
            if not pointer:
                found |= {f"{label}.{sub}": (at + offset, length) for sub, (offset, length) in inner.items()}
                if not inner:
                    found[label] = (at, size)
            at += size
    return found, at + -at % widest, widest


class Walk:
    """What is where in an image, as cext/handover/parts.pxd says it: ``places`` are (structure, offset) in order."""

    def __init__(self, image: bytes | bytearray, drops: int) -> None:
        self.image = image
        self.at = HEADER.size
        self.places: list[tuple[str, int]] = []
        core = self.part("CoreState")
        self.part("Counters")
        # Counts of findings, of drops, of findings about packets of no flow, of lost records.
        self.at += 64 * 8 + drops * 8 + 64 * 16 + 8 * 8
        self.at += sum(core["notes_lines"] * 64 for half in range(2) if core[f"notes_noted[{half}]"])
        for _ in range(core["flow_count"]):
            self.flow()
        for _ in range(core["listed_count"]):
            self.part("Identity")
        for _ in range(core["held_count"]):
            self.skip("HeldPart", "size")

    def part(self, name: str) -> dict[str, int]:
        """A structure's values."""
        places, size, _ = fields(name)
        at = self.at
        self.places.append((name, at))
        self.at += size
        return {
            field: int.from_bytes(self.image[at + offset : at + offset + length], "little")
            for field, (offset, length) in places.items()
        }

    def skip(self, name: str, size: str) -> None:
        """A structure, and the bytes behind it whose number it says."""
        length = self.part(name)[size]
        self.at += length

    def flow(self) -> None:
        flow, parts = self.part("Flow"), self.part("FlowParts")
        if parts["tally"]:
            self.at += 64 * 4
        if parts["dialogue"]:
            dialogue, more = self.part("Dialogue"), self.part("DialogueParts")
            for _ in range(more["command"] + more["reply"]):
                self.skip("LinePart", "length")
            self.at += dialogue["exchange.count"] if more["more"] else 0
        for stream in range(2):
            self.at += flow[f"stream[{stream}].unacked.length"]
            for _ in range(parts[f"edits[{stream}]"]):
                self.skip("EditPart", "length")
            for _ in range(parts[f"buffered[{stream}]"]):
                self.skip("BufferedPart", "length")

    def of(self, name: str) -> Iterator[int]:
        """Where such structures begin."""
        return (at for structure, at in self.places if structure == name)
