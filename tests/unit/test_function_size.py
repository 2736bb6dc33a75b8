"""A function of the core fits a screen, and says with few parameters what it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.sources

ROOT = Path(__file__).parents[2]
LINES = 60
PARAMETERS = 7

#: What has more, and why.
MORE = {
    "cext/engine.pyx:process": "called from Python, by keyword: what the queue says of a packet",
    "cext/drivers/nfqueue_loop.pyx:__cinit__": "called from Python, by keyword: each is a setting of the queue",
}

_CYTHON = re.compile(r"^( *)(?:cdef|cpdef|def)\b(?! (?:extern|enum|struct|class)\b)[^\n=(]*?\b(\w+)\(", re.MULTILINE)
_HEADER = re.compile(r"^()static [^\n;={]*?\b(\w+)\(", re.MULTILINE)


def functions(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, lines from its head to its last, and parameters of each function that is defined in a file."""
    text = path.read_text()
    for match in (_HEADER if path.suffix == ".h" else _CYTHON).finditer(text):
        depth, behind = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[behind], 0)
            behind += 1
        arguments = re.sub(r"\([^()]*\)|\[[^\]]*\]", "", text[match.end() : behind - 1])
        count = sum(one.strip() not in ("", "self", "*", "void") for one in arguments.split(","))
        rest = text[behind:].split("\n")
        if path.suffix == ".h":
            yield match[2], text[match.start() : behind].count("\n") + _until_brace(rest), count
        elif rest[0].partition("#")[0].rstrip().endswith(":"):
            body = 0
            for number, line in enumerate(rest[1:], 1):
                if line.strip() and len(line) - len(line.lstrip()) <= len(match[1]):
                    break
                body = number if line.strip() else body
            yield match[2], text[match.start() : behind].count("\n") + 1 + body, count
        else:
            yield match[2], 1, count


def _until_brace(rest: list[str]) -> int:
    return next((number for number, line in enumerate(rest, 1) if line == "}"), 1)


def too_large(root: Path) -> dict[str, tuple[int, int]]:
    return {
        f"{path.relative_to(root)}:{name}": (lines, parameters)
        for path in sorted((root / "cext").rglob("*"))
        if path.suffix in {".pyx", ".pxd", ".h"}
        for name, lines, parameters in functions(path)
        if lines > LINES or parameters > PARAMETERS
    }


def test_functions_fit_a_screen_and_take_few_parameters() -> None:
    found = too_large(ROOT)
    assert {name: size for name, size in found.items() if name not in MORE} == {}
    assert MORE.keys() - found.keys() == set()


def test_the_functions_are_seen() -> None:
    sizes = {name: (lines, parameters) for name, lines, parameters in functions(ROOT / "cext" / "process.pyx")}
    assert sizes["core_process"][0] > 30
    assert sizes["core_process"][1] == 4
    assert len([name for path in (ROOT / "cext").rglob("*.p[xy][xd]") for name, _, _ in functions(path)]) > 500


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("cdef int long(int a) noexcept nogil:\n" + "    a += 1\n" * LINES, (LINES + 1, 1)),
        ("cdef int wide(int a, int b, int c, int d,\n              int e, int f, int g, int h)\n", (1, PARAMETERS + 1)),
        ("cdef class One:\n    def long(self):\n" + "        pass\n" * LINES, (LINES + 1, 0)),
    ],
)
def test_what_is_planted_is_found(tmp_path: Path, text: str, size: tuple[int, int]) -> None:
    (tmp_path / "cext").mkdir()
    (tmp_path / "cext" / "one.pyx").write_text(text)
    assert list(too_large(tmp_path).values()) == [size]
