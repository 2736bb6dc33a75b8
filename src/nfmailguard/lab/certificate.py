"""A self-signed certificate for the lab's servers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["certify"]


def certify(directory: Path) -> tuple[Path, Path] | None:
    """``certificate.pem`` and ``key.pem`` in ``directory``; None: there is no openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return None
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    subject = ["-subj", "/CN=mail.example.com", "-days", "2"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key
