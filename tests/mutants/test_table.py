"""How a mutation finds its place: by function and fragment, however the text is spaced, wrapped and filed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.table import Mutant, sources

pytestmark = pytest.mark.sources

CORE = '''\
cdef enum:
    LIMIT = 3      # bytes


cdef void declared(Flow *flow) noexcept nogil


cdef bint first(
        Flow *flow, bint other) noexcept nogil:
    """Of two."""
    if flow.open and not flow.closed:
        take(flow)

    return True


cdef class Box:
    def look(self):
        return self.open
'''
OTHER = """\
cdef inline bint first(Flow *flow) noexcept nogil:
    return flow.count == 0


cdef void second(Flow *flow) noexcept nogil:
    # what is taken
    take(flow, (flow.open
                and flow.counted))
    for one in flow.parts:
        give(one)
        give(one)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = {
        "cext/box.pyx": CORE,
        "cext/deep/other.pxd": OTHER,
        "cext/box.h": "static inline int nm_add(int a, int b) {\n    return a + b;\n}\n",
        "src/nfmailguard/face.py": "def first() -> int:\n    return 3\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def mutant(find: str, put: str, function: str = "", module: str = "") -> Mutant:
    return Mutant("rule", 1, "something", find, put, function, module)


@pytest.mark.parametrize(
    ("one", "file", "now"),
    [
        (mutant("flow.count == 0", "False", "first", "other"), "cext/deep/other.pxd", "    return False\n"),
        (mutant("not flow.closed", "flow.closed", "first", "box"), "cext/box.pyx", "if flow.open and flow.closed:"),
        (mutant("flow.open and flow.counted", "0", "second"), "cext/deep/other.pxd", "    take(flow, (0))\n"),
        (
            mutant("take( flow,(flow.open", "take(flow, (not flow.open", "second"),
            "cext/deep/other.pxd",
            "(not flow.open\n",
        ),
        (mutant("take(flow)", "", "first", "box"), "cext/box.pyx", "not flow.closed:\n\n    return True"),
        (
            mutant("return True", "flow.end = 1\nreturn False", "first", "box"),
            "cext/box.pyx",
            "    flow.end = 1\n    return",
        ),
        (mutant("self.open", "None", "Box.look"), "cext/box.pyx", "        return None\n"),
        (mutant("a + b", "a - b", "nm_add"), "cext/box.h", "    return a - b;\n"),
        (mutant("LIMIT = 3", "LIMIT = 2", "", "cext.box"), "cext/box.pyx", "    LIMIT = 2      # bytes"),
        (mutant("3", "4", "first", "nfmailguard.face"), "src/nfmailguard/face.py", "    return 4\n"),
    ],
)
def test_it_finds_its_place(tree: Path, one: Mutant, file: str, now: str) -> None:
    path, text = one.changed(sources(tree))
    assert path == tree / file
    assert now in text
    assert now not in path.read_text()


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (mutant("take(flow)", "pass", "third"), "0 functions are named third"),
        (mutant("take(flow)", "pass", "declared"), "0 functions"),
        (mutant("flow.open", "0", "first"), "2 functions"),
        (mutant("flow.count", "0", "second"), "found 0 times"),  # flow.counted is another word
        (mutant("give(one)", "pass", "second"), "found 2 times"),
        (mutant("return True", "return  True  # as it was", "first", "box"), "changes nothing"),
        (mutant("self.open", "None", "first", "box"), "found 0 times"),  # it is another function's
        (mutant("4", "5", "first", "nfmailguard.cext.box"), "found 0 times"),
    ],
)
def test_it_says_what_it_does_not_find(tree: Path, one: Mutant, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        one.changed(sources(tree))
