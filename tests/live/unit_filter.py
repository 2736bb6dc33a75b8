"""Starts a program under the system call filter of deploy/nfmailguard.service, as systemd would.

python unit_filter.py PROGRAM ARGUMENT...
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

from nfmailguard.confinement.systemcalls import library

UNIT = Path(__file__).parents[2] / "deploy" / "nfmailguard.service"


def groups() -> dict[str, list[str]]:
    """What systemd's names of groups stand for."""
    command = ["systemd-analyze", "syscall-filter", "--no-pager"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    for line in re.sub("\x1b\\[[0-9;]*m", "", text).splitlines():
        word = line.strip()
        if line.startswith("@"):
            found[word] = current = []
        elif word and not word.startswith("#") and found:
            current.append(word)
    return found


def calls(word: str, known: dict[str, list[str]]) -> set[str]:
    if word.startswith("@"):
        return {call for part in known[word] for call in calls(part, known)}
    return {word}


def allowed() -> set[str]:
    """Of the unit's lines, in their order."""
    known, found = groups(), set[str]()
    for line in re.findall("^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE):
        named = {call for word in line.removeprefix("~").split() for call in calls(word, known)}
        found = found - named if line.startswith("~") else found | named
    return found


if __name__ == "__main__":
    made = library()
    names = allowed() | {"execve"}  # which systemd does under it
    filtered = made.SyscallFilter(made.ERRNO(errno.EPERM))
    for name in names:
        try:
            filtered.add_rule(made.ALLOW, name)
        except (OSError, RuntimeError, ValueError):
            continue  # another machine's
    filtered.load()
    os.execvp(sys.argv[1], sys.argv[1:])
