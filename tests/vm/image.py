"""The disk of the machine that `make test-vm` tests on: a bare Debian, its stock kernel and one from the backports.

Promises: made once, by debootstrap, under build/vm, and made anew when what it is made of changes (this file, the
agent, what the package depends on). What the package depends on is in apt's cache there and not installed: the machine
needs no network. Postfix's load generators are unpacked under /opt/postfix and installed nowhere. Needs root.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

__all__ = ["FOLDER", "KERNELS", "Image", "made"]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "vm"
KERNELS = ("stock", "backports")
_RELEASE = "bookworm"
_MIRROR = "http://deb.debian.org/debian"
_SECURITY = "http://deb.debian.org/debian-security"
_AGENT = Path(__file__).with_name("agent.sh")
_SOURCES = f"""\
deb {_MIRROR} {_RELEASE} main
deb {_MIRROR} {_RELEASE}-updates main
deb {_SECURITY} {_RELEASE}-security main
deb {_MIRROR} {_RELEASE}-backports main
"""
_UNIT = """\
[Unit]
Description=Runs what the tests ask for

[Service]
ExecStart=/usr/local/sbin/nfmailguard-test-agent
KillMode=process
Restart=always
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
"""
#: Of all drivers those of the machine's disk: an initial ramdisk of 6 MB, where emulation takes long to unpack 40.
_INITRAMFS = "MODULES=list\nCOMPRESS=gzip\n"
_DRIVERS = "virtio_pci\nvirtio_blk\next4\n"
_APT = """\
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
"""


#: And the libraries of smtp-sink and smtp-source that a bare Debian does not have.
_POSTFIX = (
    "postfix libcom-err2 libdb5.3 libgcc-s1 libgssapi-krb5-2 libicu72 libk5crypto3 libkeyutils1 libkrb5-3"
    " libkrb5support0 libnsl2 libstdc++6 libtirpc3"
)


class Image(NamedTuple):
    """A disk, to be read only, and a kernel with its initial ramdisk."""

    disk: Path
    kernel: Path
    initrd: Path


def _do(*command: str | Path, **options: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return str(done.stdout)


def _depends(package: Path) -> list[str]:
    """The names of the packages that a package depends on."""
    field = _do("dpkg-deb", "-f", package, "Depends")
    return sorted({re.split(r"[ (:|]", part.strip())[0] for part in field.split(",") if part.strip()})


def _key(depends: list[str]) -> str:
    parts = [Path(__file__).read_bytes(), _AGENT.read_bytes(), " ".join(depends).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _inside(root: Path, script: str) -> str:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    return _do("chroot", root, "/bin/sh", "-euc", script, env=environment)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _fill(root: Path, depends: list[str]) -> None:
    """Everything above what debootstrap brings."""
    _write(root / "etc/apt/sources.list", _SOURCES)
    _write(root / "etc/apt/apt.conf.d/90nfmailguard-test", _APT)
    _write(root / "etc/hostname", "gateway\n")
    _write(root / "etc/hosts", "127.0.0.1 localhost gateway\n::1 localhost gateway\n")
    _write(root / "etc/fstab", "/dev/vda / ext4 defaults 0 1\n")
    _write(root / "etc/initramfs-tools/conf.d/nfmailguard-test", _INITRAMFS)
    _write(root / "etc/initramfs-tools/modules", _DRIVERS)
    _write(root / "usr/local/sbin/nfmailguard-test-agent", _AGENT.read_text(), 0o755)
    _write(root / "etc/systemd/system/nfmailguard-test-agent.service", _UNIT)
    # What is booted is the tests' choice: both kernels are there.
    script = f"""
        systemctl enable nfmailguard-test-agent.service
        apt-get -q update
        apt-get -q -y dist-upgrade
        apt-get -q -y --no-install-recommends -t {_RELEASE}-backports install linux-image-amd64
        update-initramfs -u -k all
        apt-get clean
        cd /tmp
        apt-get -q download {_POSTFIX}
        for package in *.deb; do dpkg -x $package /opt/postfix; done
        rm *.deb
        apt-get -q -y --download-only install {" ".join(depends)}
    """
    _inside(root, script)


def _make(folder: Path, depends: list[str]) -> None:
    # Not in /tmp, which may be small or mounted without devices.
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="root-") as name:
        root = Path(name)
        root.chmod(0o755)
        try:
            _do("debootstrap", "--include=linux-image-amd64,systemd-sysv,dbus", _RELEASE, root, _MIRROR)
            _fill(root, depends)
        finally:  # whatever debootstrap has left mounted is not to be removed with the folder
            for mounted in ("proc", "sys"):
                subprocess.run(["umount", "-q", root / mounted], check=False, capture_output=True)
        kernels = sorted(
            (root / "boot").glob("vmlinuz-*"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)]
        )
        # The security archive has a newer one of the stock series than debootstrap brings.
        for ours, kernel in zip(KERNELS, kernels[-2:], strict=True):
            shutil.copy(kernel, folder / f"vmlinuz-{ours}")
            shutil.copy(kernel.with_name(kernel.name.replace("vmlinuz", "initrd.img")), folder / f"initrd-{ours}")
        _do("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", root, folder / "disk.raw", "4G")


def made(package: Path, kernel: str = "stock") -> Image:
    """The image for ``package``, a .deb of ours, which is not in it; made now, some five minutes, unless it is there.

    Raises RuntimeError with the command that failed and what it printed.
    """
    depends = _depends(package)
    folder = FOLDER / _RELEASE
    complete = folder / "complete"
    if not complete.exists() or complete.read_text() != _key(depends):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _make(folder, depends)
        complete.write_text(_key(depends))
    return Image(folder / "disk.raw", folder / f"vmlinuz-{kernel}", folder / f"initrd-{kernel}")
