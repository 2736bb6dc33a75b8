"""Builds the sdist, the wheel from nothing but the sdist, installs it into a new environment, and tries it.

    python -m tests.packaging.smoke [--keep FOLDER]

What is tried runs from the root directory, so that nothing of this checkout is found: every module is imported,
the commands that need no privilege say what they should, a capture is replayed and comes out as it does here,
byte for byte. Needs the package index for what the wheel depends on. Exits 1 at the first fault.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tests.support.captures import RAW, framed, mail, pcap

ROOT = Path(__file__).parents[2]
#: Imports every module that is there, but for what only the extras of pyproject.toml install; says where the
#: package lies, and which extensions it has.
IMPORTS = """
import importlib, json, pathlib, pkgutil, sys, nfmailguard
names = [module.name for module in pkgutil.walk_packages(nfmailguard.__path__, "nfmailguard.")]
for name in names:
    try:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] not in ("aiosmtpd", "scapy", "matplotlib", "prometheus_client"):
            raise
built = [name for name in names if getattr(sys.modules.get(name), "__file__", "").endswith(".so")]
print(json.dumps([str(pathlib.Path(nfmailguard.__file__).parent), sorted(built)]))
"""


class SmokeError(Exception):
    """What does not work."""


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _run(*command: str | Path, folder: Path | str = "/") -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SmokeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}"[-4000:])
    return done.stdout


def _expect(right: bool, what: str) -> None:
    if not right:
        raise SmokeError(what)


def packed(scratch: Path) -> tuple[Path, Path]:
    """The sdist of this checkout, and the wheel of the sdist."""
    backend = "from setuptools import build_meta; import sys; print(build_meta.build_sdist(sys.argv[1]))"
    name = _run(sys.executable, "-W", "ignore", "-c", backend, scratch, folder=ROOT).split()[-1]
    with tarfile.open(scratch / name) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
        archive.extractall(scratch / "source", filter="data")
    sources = {
        str(path.relative_to(ROOT)) for kind in ("pyx", "pxd", "h") for path in (ROOT / "cext").rglob(f"*.{kind}")
    }
    _expect(sources <= names, f"not in the sdist: {', '.join(sorted(sources - names))}")
    (source,) = (scratch / "source").iterdir()
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps")
    _run(*pip, "--no-build-isolation", "-w", scratch, source)
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        stray = [name for name in archive.namelist() if name.endswith((".pyx", ".c")) or name.startswith("tests")]
    _expect(not stray, f"in the wheel without a reason: {', '.join(stray)}")
    return scratch / name, wheel


def installed(wheel: Path, scratch: Path) -> Path:
    """The folder of programs of a new environment with the wheel in it."""
    _run(sys.executable, "-m", "venv", scratch / "venv")
    programs = scratch / "venv" / "bin"
    _run(programs / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel)
    return programs


def tried(programs: Path, scratch: Path) -> None:
    """Raises SmokeError for what does not work."""
    program = programs / "nfmailguard"
    where, built = json.loads(_run(programs / "python", "-I", "-c", IMPORTS))
    sources = [path.relative_to(ROOT).with_suffix("").parts for path in (ROOT / "cext").rglob("*.pyx")]
    expected = sorted(".".join(("nfmailguard", *parts)) for parts in sources)
    _expect(Path(where).is_relative_to(scratch), f"the package is imported from {where}")
    _expect(built == expected, f"extensions differ: {sorted(set(built) ^ set(expected))}")
    _expect(_run(program, "--version").startswith("nfmailguard"), "--version says nothing")
    _expect("pix63" in _run(program, "profile", "list"), "no profiles in the package")
    _run(program, "check", "--profile", "asa", "--mode", "monitor")

    capture = scratch / "in.pcap"
    capture.write_bytes(pcap(framed(mail()), RAW))
    left: list[bytes] = []
    for number, command in enumerate(([program], [sys.executable, "-m", "nfmailguard"])):
        out = scratch / f"out-{number}.pcap"
        told = _run(*command, "replay", capture, out, "--mode", "enforce", "--profile", "pix63", "--json")
        found = {one["finding"] for one in json.loads(told)["findings"]}
        _expect(found == {"command.denied", "banner.masked"}, f"replayed otherwise: {told}")
        left.append(out.read_bytes())
    _expect(left[0] == left[1], "the capture leaves otherwise than here")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave sdist and wheel there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nfmailguard-") as folder:
        scratch = Path(folder).resolve()
        try:
            sdist, wheel = packed(scratch)
            _say(f"built {sdist.name} and of it {wheel.name}")
            tried(installed(wheel, scratch), scratch)
        except SmokeError as fault:
            _say(f"smoke test: {fault}")
            return 1
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for path in (sdist, wheel):
                (options.keep / path.name).write_bytes(path.read_bytes())
    _say("installed outside the checkout it works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
