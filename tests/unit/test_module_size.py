"""A room is read in one sitting: no module of the core is longer than 400 lines, none of the product than 500."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.sources

ROOT = Path(__file__).parents[2]
ALARM = 500
OF_THE_CORE = 400

#: What is longer, and why.
LONGER = {
    "cext/drivers/nfqueue_loop.pyx": "one class, which Cython wants in one file: the thread that reads the queue",
}


def lengths() -> dict[str, int]:
    sources = [
        path
        for folder, names in (("src", "*.py"), ("cext", "*.pyx"), ("cext", "*.pxd"), ("cext", "*.h"))
        for path in (ROOT / folder).rglob(names)
    ]
    return {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}


def test_no_module_is_longer_than_the_alarm() -> None:
    found = lengths()
    assert len(found) > 10
    assert {path: length for path, length in found.items() if length > ALARM} == {}


def test_no_module_of_the_core_is_longer_than_a_sitting() -> None:
    found = {path for path, length in lengths().items() if path.startswith("cext/") and length > OF_THE_CORE}
    assert found == LONGER.keys()
