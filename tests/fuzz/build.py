"""Builds the harness: beside its sources for a replay, and under sanitizers for fuzzing.

Promises: what is built already and still fits the core is left alone. Does not know what targets do.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.fuzz.targets import Target

__all__ = ["BUILD", "ROOT", "build_fuzzer", "build_harness"]

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "fuzz"
COMPILER = os.environ.get("FUZZ_CC", "clang")
#: What fuzzer-no-link stands for, less trace-cmp: dictionary and tokens spare the guessing, and that halves the time.
FLAGS = (
    "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1 -shared-libasan"
    " -fsanitize-coverage=inline-8bit-counters,pc-table"
)
#: The harness itself is no subject; it asks the sanitizer about what the core lends it.
HARNESS_FLAGS = "-O2 -fno-omit-frame-pointer -g1"

#: The interpreter never frees all it has: leaks of the core are the harness's to find. A small
#: quarantine stays in the processor's cache; what a call frees is used again in a later one at once.
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0:quarantine_size_mb=8:malloc_context_size=6"
    ":allocator_may_return_null=1:handle_abort=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}

_SETUP = """
import sys
from pathlib import Path
from Cython.Build import cythonize
from setuptools import Distribution, Extension
from setup import CIMPORTS, header_folders
folder, *names = sys.argv[1:]
extensions = [
    Extension(
        f"{folder}/{name}".replace("/", "."),
        [f"{folder}/{name}.pyx"],
        include_dirs=[folder, "tests/fuzz/harness", "tests/exhaustive", *header_folders(Path())],
        libraries=["pcap"] if name == "captures" else [],
    )
    for name in names
]
made = cythonize(extensions, include_path=[str(CIMPORTS), "."], quiet=True, nthreads=2)
# A distribution of its own: that of pyproject.toml is the product.
distribution = Distribution({"ext_modules": made})
command = distribution.get_command_obj("build_ext")
command.inplace = True
command.ensure_finalized()
command.run()
"""


def _key(root: Path, own: str, flags: str) -> str:
    digest = hashlib.sha256(f"{sys.version} {flags}".encode())
    for folder, patterns in (
        ("cext", ("**/*.pxd", "**/*.h")),
        ("tests/fuzz/harness", ("*.h",)),
        ("tests/exhaustive", ("*.pxd", "*.h")),
        (own, ("*.pyx", "*.pxd", "*.h")),
    ):
        for path in sorted(path for pattern in patterns for path in (root / folder).glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def build_harness(
    root: Path = ROOT, environment: dict[str, str] | None = None, folder: str = "tests/fuzz/harness"
) -> None:
    """A harness's extensions in place under ``root``; seconds the first time, nothing after that."""
    environment = environment or {"CFLAGS": "-O0 -g0"}  # a replay is short: built sooner, not run faster
    key = _key(root, folder, str(environment))
    with (root / folder / "lock").open("w") as lock:  # tests that run beside each other want it at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        _build(root, folder, environment, key)


def _build(root: Path, folder: str, environment: dict[str, str], key: str) -> None:
    built = root / folder / "built"
    if built.exists() and built.read_text() == key:
        return
    for stale in [*built.parent.glob("*.c"), *built.parent.glob("*.so")]:
        stale.unlink()
    names = sorted(path.stem for path in built.parent.glob("*.pyx"))
    command = [sys.executable, "-W", "ignore", "-c", _SETUP, folder, *names]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, **environment}, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"building the harness failed:\n{done.stdout}{done.stderr}")
    built.write_text(key)


def _runtime(name: str) -> str:
    command = [COMPILER, f"-print-file-name=libclang_rt.{name}-{platform.machine()}"]
    paths = [
        subprocess.run([command[0], command[1] + end], check=True, capture_output=True, text=True).stdout.strip()
        for end in (".so", ".a")
    ]
    found = [path for path in paths if Path(path).exists()]
    if not found:
        raise RuntimeError(f"{COMPILER} has no {name} runtime; deploy/setup fuzz installs it")
    return found[0]


def _start(name: str, folder: Path, environment: dict[str, str], preload: str) -> None:
    # A program of its own for each target: libFuzzer starts itself again to merge and to minimise.
    lines = ["#!/bin/sh"]
    settings = {"FUZZ_PROGRAM": "$0", "PYTHONPATH": f"{folder / 'src'}:{folder}", **environment}
    lines += [f'export {key}="{value}"' for key, value in settings.items()]
    lines += [f'{preload}exec {sys.executable} -P -m tests.fuzz.targets {name} "$@"', ""]
    path = BUILD / name
    path.write_text("\n".join(lines))
    path.chmod(0o755)


def build_fuzzer(targets: Iterable[Target]) -> None:
    """Core and harness under sanitizers with coverage, and a program in build/fuzz for each target."""
    copy = BUILD / "copy"
    subprocess.run(["tests/sanitized.sh", str(copy.relative_to(ROOT)), COMPILER, FLAGS], cwd=ROOT, check=True)
    build_harness(
        copy,
        {
            "CC": COMPILER,
            "LDSHARED": f"{COMPILER} -shared",
            "CFLAGS": HARNESS_FLAGS,
            "LDFLAGS": HARNESS_FLAGS,
            "PYTHONPATH": str(copy / "src"),
        },
    )
    library = BUILD / "libfuzzer.so"
    if not library.exists():
        archive = ["-Wl,--whole-archive", _runtime("fuzzer_no_main"), "-Wl,--no-whole-archive"]
        subprocess.run([COMPILER, "-shared", "-o", str(library), *archive, "-lstdc++", "-lm"], check=True)
    # libFuzzer before the sanitizer, whose stubs of its hooks are empty.
    preload = f"LD_PRELOAD={library}:{_runtime('asan')} "
    for target in targets:
        if target.sanitized:
            _start(target.name, copy, SANITIZERS, preload)
        else:
            _start(target.name, ROOT, {}, "")
