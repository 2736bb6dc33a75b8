"""A room is read in one sitting: no module of the product is longer than 500 lines."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.sources

ROOT = Path(__file__).parents[2]
ALARM = 500


def test_no_module_is_longer_than_the_alarm() -> None:
    sources = [
        path
        for folder, names in (("src", "*.py"), ("cext", "*.pyx"), ("cext", "*.pxd"), ("cext", "*.h"))
        for path in (ROOT / folder).rglob(names)
    ]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    assert len(lengths) > 10
    assert {path: length for path, length in lengths.items() if length > ALARM} == {}
