"""One machine for the run, and the service in it; the order in which the modules use it.

`make test-vm` runs these tests; `make test` does not look into this folder. VM_KERNEL=backports takes the kernel of
Debian's backports instead of its stock one. VM_INSTALLED=yes goes on from where the last run had installed its package,
and only unpacks the present one over it: for who writes a test, since a first installation takes longest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.image import FOLDER, KERNELS, ROOT, made
from tests.vm.machine import Machine
from tests.vm.network import Network
from tests.vm.service import Service

#: As an operator meets them: the machine is one, and what a module does is there for the next.
ORDER = ("install", "service", "watchdog", "faults", "commands", "reboot", "purge")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.vm)
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))


_FIGURES: dict[str, str] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, value in _FIGURES.items():
        terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(scope="session")
def figures() -> dict[str, str]:
    """What was measured, by name; printed at the end."""
    return _FIGURES


@pytest.fixture(scope="session")
def package() -> Path:
    """The newest package of ours."""
    built = sorted((ROOT / "dist").glob("nfmailguard_*.deb"), key=lambda path: path.stat().st_mtime)
    if not built:
        pytest.fail("no package: make deb")
    return built[-1]


KERNEL = os.environ.get("VM_KERNEL", "stock")
INSTALLED = FOLDER / f"installed-{KERNEL}.qcow2"


def _again() -> bool:
    return bool(os.environ.get("VM_INSTALLED")) and INSTALLED.exists()


@pytest.fixture(scope="session")
def machine(package: Path) -> Iterator[Machine]:
    """Debian as it is after its first boot. Its console and disk are left in build/vm/run."""
    assert KERNEL in KERNELS
    folder = FOLDER / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with Machine(made(package, KERNEL), folder, INSTALLED if _again() else None) as booted:
        yield booted


@pytest.fixture(scope="session")
def bare(machine: Machine) -> Service:
    """Where the service will be; what the machine was like before is recorded."""
    service = Service(machine)
    if not _again():
        service.record("before")
    return service


@pytest.fixture(scope="session")
def installed(bare: Service, package: Path) -> Service:
    """The package is installed, as `apt install ./nfmailguard_*.deb` does it, and the service is not started."""
    if _again():
        bare.install(package, "dpkg -i")
    else:
        bare.install(package)
        bare.machine.save(INSTALLED)
    return bare


@pytest.fixture(scope="session")
def network(machine: Machine) -> Network:
    return Network(machine)


@pytest.fixture
def gateway(installed: Service, network: Network) -> Service:
    """The service runs, enabled, in mode enforce, and mail can be sent through it."""
    network.up()
    installed.enforcing()
    return installed
