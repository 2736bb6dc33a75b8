"""Reads whole files named by the user, with limits, whatever kind of file they are.

Promises: no more than ``most`` bytes are read and no more than a few seconds waited for, of files, pipes and devices
alike; what cannot be used raises ConfigError, a line with the name. ``toml`` takes time and memory linear in the text.
Does not know what is in a file.
"""

from __future__ import annotations

import io
import os
import re
import select
import stat
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nfmailguard.errors import ConfigError

__all__ = ["MOST_TOML", "at_most", "octets_of", "open_regular", "text_of", "toml", "toml_of"]

#: Largest configuration or profile file, in bytes.
MOST_TOML = 1 << 20
#: Most dots in a key: keys have at most three parts, and tomllib's time grows with the square of their number.
_MOST_DOTS = 16
_PATIENCE = 5.0  # Most seconds between two bytes from a pipe.
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'')
_LARGEST = 2**63


def octets_of(path: Path | str, most: int, where: str | None = None) -> bytes:
    """The content of a file; a ConfigError begins with ``where``, else with the path."""
    name = where or str(path)
    try:
        # O_NONBLOCK: opening or reading a pipe that nobody writes to must not block for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{name!r}: {error}") from error  # ValueError: the path contains a NUL character.
    try:
        return b"".join(_parts(fd, most, name))
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from error
    finally:
        os.close(fd)


def _parts(fd: int, most: int, name: str) -> Iterator[bytes]:
    size, last = 0, time.monotonic()
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    regular = stat.S_ISREG(os.fstat(fd).st_mode)
    while size <= most:
        if not regular and not waiting.poll(100):
            if time.monotonic() - last > _PATIENCE:
                raise ConfigError(f"{name}: nothing comes from it; name a file")
            continue
        try:
            part = os.read(fd, min(1 << 16, most + 1 - size))
        except BlockingIOError:
            continue
        if not part:
            return
        size, last = size + len(part), time.monotonic()
        yield part
    raise ConfigError(f"{name}: longer than {most} octets; is that the right file?")


def at_most(file: io.BufferedIOBase, most: int, name: str) -> bytes:
    """The content of an open file or stream."""
    try:
        found = file.read(most + 1)
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from error
    if len(found) > most:
        raise ConfigError(f"{name}: longer than {most} octets; is that the right file?")
    return found


def open_regular(path: Path) -> io.BufferedReader:
    """A file that has an end and a beginning; ConfigError for a pipe, a device or a directory."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ConfigError(f"{path}: not a file")
    return os.fdopen(fd, "rb")


def toml_of(path: Path | str, where: str | None = None) -> dict[str, Any]:
    """The table of a TOML file."""
    name = where or str(path)
    return toml(text_of(path, name), name)


def text_of(path: Path | str, where: str | None = None) -> str:
    """A text file of at most ``MOST_TOML`` bytes, as TOML requires it: UTF-8, without a byte order mark."""
    name = where or str(path)
    try:
        return octets_of(path, MOST_TOML, name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not UTF-8 text") from error


def toml(text: str, where: str) -> dict[str, Any]:
    """The table of a TOML text."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > _MOST_DOTS and _QUOTED.sub("", line).partition("#")[0].count(".") > _MOST_DOTS:
            raise ConfigError(f"{where}: line {number}: a key of more than {_MOST_DOTS + 1} parts")
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{where}: nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: {_explained(text, str(error))}") from error
    except ValueError as error:  # A number with more digits than Python converts, or a date that does not exist.
        raise ConfigError(f"{where}: a value out of range: {error}") from error
    _check(table, where)
    return table


def _explained(text: str, message: str) -> str:
    """tomllib's message, and for a text without quotes how it has to be written."""
    if unclosed := re.fullmatch(r"Illegal character '\\n' \(at line (\d+), column \d+\)", message):
        return f"line {unclosed[1]}: the text is not closed; is a quote missing?"
    found = re.fullmatch(r"Invalid value \(at line (\d+), column \d+\)", message)
    line = text.split("\n")[int(found[1]) - 1] if found else ""
    plain = re.fullmatch(r"\s*([\w.\"-]{1,80})\s*=\s*([A-Za-z/][\w./:-]{0,80})\s*(?:#.*)?", line)
    if not (found and plain):
        return message
    return f'line {found[1]}: {plain[1]} = {plain[2]}: text needs quotes: {plain[1]} = "{plain[2]}"'


def _check(table: dict[str, Any], where: str) -> None:
    left: list[Any] = [table]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            raise ConfigError(f"{where}: an integer out of range; TOML's have 64 bits")
