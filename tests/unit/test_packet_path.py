"""No Python object on the packet path, read from the C that Cython makes of ``cext``.

The path is every function that can be reached from the core's face and from the ``with nogil``
blocks of the drivers, followed through calls, callbacks and methods. A function on it is declared
``noexcept nogil``, and its C names nothing of the interpreter: no object, no exception, no taking
of the GIL. Calls through function pointers kept in structures are not followed; there are none.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from Cython.Compiler.Main import CompilationOptions, compile

from setup import CIMPORTS

pytestmark = pytest.mark.sources

ROOT = Path(__file__).parents[2]
FACE = {"core_process", "core_expire", "core_next_deadline"}

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
DEFINITION = re.compile(r"^static [^\n;]*\b(__pyx_f_\w+)\([^\n;]*\) \{\n(.*?)^\}", re.DOTALL | re.MULTILINE)
CALL = re.compile(r"\b(__pyx_f_\w+)|__pyx_vtab\)*->(\w+)\(")
#: What belongs to the interpreter; Py_ssize_t is a number, and Cython's integer division is plain C.
INTERPRETER = re.compile(r"\b(?!Py_ssize_t\b|__Pyx_(?:div|mod)_)(?:_?Py[A-Z_]|__Pyx_|__PYX_ERR|__pyx_L\d+_error)\w*")
NOGIL_BLOCK = re.compile(r"^( *)with nogil:.*\n((?:\1 +.*\n|\s*\n)+)", re.MULTILINE)
DECLARATION = r"^ *cdef [^\n#(=]*\b{name}\((?:[^()]|\([^()]*\))*\)([^\n:#]*)"


def mangled(module: str) -> str:
    return "__pyx_f_" + "_".join(f"{len(part)}{part}" for part in module.split(".")) + "_"


def short_name(name: str, prefixes: Iterable[str]) -> str:
    """``ring_push`` of __pyx_f_11nfmailguard_4cext_6record_ring_push; of a method, the method."""
    rest = next(name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix))
    if method := re.match(r"(\d+)(?=[A-Za-z_])", rest):  # the length of the class name, and the class
        return rest[method.end() + int(method[1]) + 1 :]
    return rest


def faults_on_the_path(sources: Path, package: str, target: Path) -> tuple[set[str], list[str]]:
    """The short names of the functions on the packet path of ``sources``' .pyx, and what is wrong with them."""

    def module(path: Path) -> str:
        return ".".join((package, *path.relative_to(sources).with_suffix("").parts)).strip(".")

    files = sorted(sources.rglob("*.pyx"))
    bodies: dict[str, str] = {}
    for path in files:
        made = target / f"{module(path)}.c"
        options = CompilationOptions(language_level=3, include_path=[str(ROOT / CIMPORTS)], output_file=str(made))
        assert compile(str(path), options, module(path)).num_errors == 0
        bodies |= DEFINITION.findall(COMMENT.sub("", made.read_text()))
    text = "".join(path.read_text() for path in [*files, *sources.rglob("*.pxd")])
    # Some rooms are inline functions only. The longest first: one's prefix may begin another's.
    rooms = {module(path) for path in sources.rglob("*.p[xy][xd]")}
    prefixes = sorted(map(mangled, rooms), key=len, reverse=True)
    by_short_name: dict[str, set[str]] = {}
    for name in bodies:
        by_short_name.setdefault(short_name(name, prefixes), set()).add(name)

    blocks = [block for _, block in NOGIL_BLOCK.findall(text)]
    called = {name for block in blocks for name in re.findall(r"\b(\w+)\(", block)}
    waiting = [name for short in (FACE | called) & by_short_name.keys() for name in by_short_name[short]]
    faults = [f"with gil inside a nogil block: {block.strip()}" for block in blocks if "with gil" in block]
    path: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in path:
            continue
        path.add(name)
        short = short_name(name, prefixes)
        if name not in bodies:
            faults.append(f"{short}: its C is not here")
            continue
        faults += [f"{short}: {found}" for found in sorted(set(INTERPRETER.findall(bodies[name])))]
        for tail in re.findall(DECLARATION.format(name=short), text, re.MULTILINE):
            if tail.split() != ["noexcept", "nogil"]:
                faults.append(f"{short}: declared {tail.strip() or 'without noexcept nogil'}")
        for function, method in CALL.findall(bodies[name]):
            waiting += [function] if function else by_short_name.get(method, {f"{prefixes[0]}{method}"})
    return {short_name(name, prefixes) for name in path}, faults


def test_no_python_object_is_made_on_the_packet_path(tmp_path: Path) -> None:
    path, faults = faults_on_the_path(ROOT / "cext", "nfmailguard.cext", tmp_path)
    assert path >= FACE
    assert faults == []


CLEAN = """
cdef int step(int x) noexcept nogil:
    return x + 1

cdef int core_process(int x) noexcept nogil:
    return step(x)
"""

TAKES_THE_GIL = """
cdef int step(int x) noexcept nogil:
    with gil:
        print(x)

cdef int core_process(int x) noexcept nogil:
    return step(x)
"""

MAY_RAISE = """
cdef int step(int x) nogil:
    return x + 1

cdef int core_process(int x) noexcept nogil:
    return step(x)
"""

DIVIDES_BY_ZERO = """
cdef int core_process(int x) noexcept nogil:
    return 1 // x
"""

RETURNS_AN_OBJECT = """
cdef object core_process(int x):
    return x
"""

IN_A_DRIVER = """
cdef void answer() noexcept:
    print(1)

cdef void receive() noexcept nogil:
    with gil:
        answer()

def run():
    with nogil:
        receive()
"""

IN_A_METHOD = """
cdef class Driver:
    cdef void receive(self) noexcept nogil:
        self.answer()

    cdef void answer(self) noexcept nogil:
        with gil:
            print(1)

    def run(self):
        with nogil:
            self.receive()
"""

IN_THE_BLOCK = """
def run():
    cdef int x = 0
    with nogil:
        x += 1
        with gil:
            print(x)
"""


def planted(directory: Path, text: str) -> list[str]:
    (directory / "planted.pyx").write_text(text)
    return faults_on_the_path(directory, "", directory)[1]


def test_a_clean_path_has_no_faults(tmp_path: Path) -> None:
    assert planted(tmp_path, CLEAN) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (TAKES_THE_GIL, "step: __Pyx_PyGILState_Ensure"),
        (MAY_RAISE, "step: declared nogil"),
        (MAY_RAISE, "core_process: __Pyx_ErrOccurredWithGIL"),
        (DIVIDES_BY_ZERO, "core_process: __Pyx_"),
        (RETURNS_AN_OBJECT, "core_process: declared without noexcept nogil"),
        (RETURNS_AN_OBJECT, "core_process: Py"),
        (IN_A_DRIVER, "answer: __Pyx_"),
        (IN_A_METHOD, "answer: __Pyx_"),
        (IN_THE_BLOCK, "with gil inside a nogil block"),
    ],
)
def test_a_planted_object_is_found(tmp_path: Path, text: str, fault: str) -> None:
    faults = planted(tmp_path, text)
    assert [found for found in faults if found.startswith(fault)] != [], faults
