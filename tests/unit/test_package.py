"""What is installed: everything that runs is in the package, and nothing needs to be listed twice."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.sources

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of a built distribution, but for the compiled extensions."""
    target = tmp_path_factory.mktemp("build")
    command = "import setuptools; setuptools.setup()"
    arguments = ["-q", "egg_info", f"--egg-base={target}", "build_py", f"--build-lib={target}/lib"]
    subprocess.run([sys.executable, "-W", "ignore", "-c", command, *arguments], cwd=ROOT, check=True)
    package = target / "lib" / "nfmailguard"
    return {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "names", ["**/*.py", "cext/*.pxd", "cext/*.pyi", "cext/*.h", "policy/profiles/*.toml", "py.typed"]
)
def test_the_package_holds(installed: set[str], names: str) -> None:
    package = ROOT / "src" / "nfmailguard"
    expected = {str(path.relative_to(package)) for path in package.glob(names)}
    assert expected
    assert expected <= installed


def test_every_extension_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [extension["name"] for extension in project["tool"]["setuptools"]["ext-modules"]]
    assert sorted(declared) == sorted(f"nfmailguard.cext.{path.stem}" for path in (ROOT / "cext").glob("*.pyx"))
