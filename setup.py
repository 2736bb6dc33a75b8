"""The extensions: every .pyx below cext/ is one. All else is in pyproject.toml.

cext/<folder>/<name>.pyx becomes nfmailguard.cext.<folder>.<name>. What is built in place goes to
src/nfmailguard/cext, the package, beside the stubs of what Python uses; cext/ holds sources only.
"""

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
OPTIMISATION = "-O3"
#: What a module is linked with.
LIBRARIES = {"nfqueue_loop": ["mnl"], "queue_socket": ["mnl"], "capture": ["pcap"]}
#: What a module is compiled with besides: sums of octets are those Python makes, with each product rounded.
FLAGS = {"allowance": ["-ffp-contract=off"]}
#: What a module is compiled with: setup.py's digest of the core's structures.
MODULE_OF_LAYOUT = ("cext", "handover", "layout")
#: Where the compiler looks for `cimport nfmailguard.cext.NAME`: Cython finds a .pxd only in a folder that is
#: called as its package is, and cext/ is not below one. Made by every build; no tool but Cython looks there.
CIMPORTS = Path("build", "include")


def make_cimports(root: Path) -> None:
    """``nfmailguard/cext`` in that folder is cext/."""
    package = root / CIMPORTS / "nfmailguard"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()  # a package that is installed somewhere must not be found first
    with suppress(FileExistsError):
        (package / "cext").symlink_to("../../../cext")


def declarations(root: Path) -> str:
    """A digest of every structure and enumeration the core declares: what an engine hands over fits those alone.

    Comments, and how lines are wrapped, do not count; drivers, benchmarks and events are not of the state.
    """
    found = []
    for path in sorted((root / "cext").rglob("*.p[xy][xd]")):
        if path.parent.name in ("drivers", "bench", "events"):
            continue
        lines = (re.sub(r"\s*#.*", "", line) for line in path.read_text().splitlines())
        text = "\n".join(line for line in lines if line.strip())
        blocks = re.findall(r"^cdef (?:struct|enum)\b.*(?:\n .*)*", text, re.MULTILINE)
        found += [" ".join(block.split()) for block in blocks]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def header_folders(root: Path) -> list[str]:
    """Every folder that C may include from."""
    return sorted({"cext", *(str(path.parent.relative_to(root)) for path in (root / "cext").rglob("*.h"))})


def extensions(root: Path) -> list[Extension]:
    """All of them; the folders of the package that they go to are made."""
    sources = sorted((root / "cext").rglob("*.pyx"))
    headers = sorted((root / "cext").rglob("*.h"))
    if unknown := LIBRARIES.keys() - {path.stem for path in sources}:
        raise ValueError(f"setup.py: LIBRARIES names what is not in cext/: {', '.join(sorted(unknown))}")
    found = []
    for path in sources:
        parts = path.relative_to(root).with_suffix("").parts
        (root / "src" / "nfmailguard").joinpath(*parts[:-1]).mkdir(parents=True, exist_ok=True)
        extension = Extension(
            ".".join(("nfmailguard", *parts)),
            sources=[str(path.relative_to(root))],
            depends=[str(header.relative_to(root)) for header in headers],
            include_dirs=header_folders(root),
            libraries=LIBRARIES.get(path.stem, []),
            define_macros=[("NM_DECLARATIONS", f'"{declarations(root)}"')] if parts == MODULE_OF_LAYOUT else [],
            extra_compile_args=[OPTIMISATION, *FLAGS.get(path.stem, [])],
        )
        extension.cython_include_dirs = [str(CIMPORTS)]
        extension.cython_c_in_temp = True
        found.append(extension)
    return found


if __name__ == "__main__":
    make_cimports(ROOT)
    setup(ext_modules=extensions(ROOT))
