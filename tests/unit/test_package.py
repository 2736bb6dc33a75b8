"""What is installed: everything that runs is in the package, and nothing needs to be listed twice."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from setup import extensions

pytestmark = pytest.mark.sources

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of a built distribution, but for the compiled extensions."""
    target = tmp_path_factory.mktemp("build")
    arguments = ["-q", "egg_info", f"--egg-base={target}", "build_py", f"--build-lib={target}/lib"]
    subprocess.run([sys.executable, "-W", "ignore", "setup.py", *arguments], cwd=ROOT, check=True)
    package = target / "lib" / "nfmailguard"
    return {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "names", ["**/*.py", "cext/**/*.pyi", "policy/profiles/*.toml", "lab/topologies/*.toml", "py.typed"]
)
def test_the_package_holds(installed: set[str], names: str) -> None:
    package = ROOT / "src" / "nfmailguard"
    expected = {str(path.relative_to(package)) for path in package.glob(names)}
    assert expected
    assert expected <= installed


def test_every_source_of_the_core_is_an_extension() -> None:
    names = [extension.name for extension in extensions(ROOT)]
    assert len(names) == len(list((ROOT / "cext").rglob("*.pyx"))) > 30
    assert {"nfmailguard.cext.engine", "nfmailguard.cext.drivers.nfqueue_loop"} <= set(names)


def test_a_library_of_no_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cext").mkdir()
    with pytest.raises(ValueError, match="capture, nfqueue_loop"):
        extensions(tmp_path)


def test_every_stub_tells_of_a_module() -> None:
    stubs = {path.relative_to(ROOT / "src/nfmailguard/cext") for path in ROOT.glob("src/nfmailguard/cext/**/*.pyi")}
    assert stubs
    assert [stub for stub in stubs if not (ROOT / "cext" / stub).with_suffix(".pyx").exists()] == []


def test_every_file_has_one_path() -> None:
    """No link, outside what is built, through which one file would be two."""
    left_out = {".git", ".venv", "build", "node_modules"}
    met: Counter[tuple[int, int]] = Counter()
    for folder, names, files in os.walk(ROOT, followlinks=True):
        names[:] = [name for name in names if name not in left_out and not name.startswith(".venv")]
        assert [name for name in names if Path(folder, name).is_symlink()] == []
        met.update((status.st_dev, status.st_ino) for status in (Path(folder, name).stat() for name in files))
    assert max(met.values()) == 1


FOLDERS = {
    "__init__.pxd": "",
    "low/__init__.pxd": "",
    "low/add.h": "static inline int nm_add(int a, int b) { return a + b; }\n",
    "low/one.pxd": """
cdef extern from "add.h":
    int nm_add(int a, int b) nogil

cdef int twice(int x) noexcept nogil
""",
    "low/one.pyx": """
cdef int twice(int x) noexcept nogil:
    return nm_add(x, x)
""",
    "four.pyx": """
from nfmailguard.cext.low cimport one

def four_times(int x):
    return one.twice(one.twice(x))
""",
}


def test_folders_of_the_core_are_packages(tmp_path: Path) -> None:
    """A module in a folder, its header and its .pxd are found, built in place, and built again when one changes."""
    package = tmp_path / "src" / "nfmailguard"
    (package / "cext").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cext" / "__init__.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    text = (ROOT / "setup.py").read_text()
    (tmp_path / "setup.py").write_text(re.sub(r"(?m)^LIBRARIES = .*", 'LIBRARIES = {"one": ["m"]}', text))
    for name, content in FOLDERS.items():
        (tmp_path / "cext" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cext" / name).write_text(content)

    def built() -> str:
        command = [sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace"]
        subprocess.run(command, cwd=tmp_path, check=True, env=os.environ | {"CFLAGS": "-O0"})
        run = "from nfmailguard.cext import four; print(four.four_times(3)); import nfmailguard.cext.low.one"
        environment = {"PYTHONPATH": str(tmp_path / "src")}
        return subprocess.check_output([sys.executable, "-c", run], env=environment, text=True).strip()

    assert built() == "12"
    header = tmp_path / "cext" / "low" / "add.h"
    header.write_text(header.read_text().replace("a + b", "a + b + 1"))
    os.utime(header, (header.stat().st_mtime + 5,) * 2)  # a clock that ticks in seconds
    assert built() == "15"
