"""Which modules of the core write which structures, read from the sources.

A write is an assignment to a field, the address of one that is no structure itself given to a function, or memory
set or copied over a structure. What a function makes for itself, in a variable that is no pointer, is its own: that is
no write. Does not know what functions do with the addresses they are given, beyond that they may write there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Core", "writers"]

_STRUCT = re.compile(r"^cdef (?:packed )?struct (\w+):[^\n]*\n((?: {4}[^\n]*\n|\n)+)", re.MULTILINE)
_FIELD = re.compile(r"^ {4}(?:const )?(\w+) (\**)(\w+)", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^ {4}cdef (\w+) \**(\w+)$", re.MULTILINE)
_CIMPORT = re.compile(r"^from nfmailguard\.cext\.([\w.]+) cimport (\([^)]*\)|.*)", re.MULTILINE)
_FUNCTION = re.compile(
    r"^( *)(?:cdef|cpdef|def)\b(?! (?:extern|enum|struct|packed|class)\b)[^\n=(]*?\b\w+\(", re.MULTILINE
)
_PARAMETER = re.compile(r"(?:const )?(\w+) (\**)(\w+)(?:=[^,]*)?$")
_LOCAL = re.compile(r"^ *cdef (?:const )?(\w+) (.+)$")
_INDEX = r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]"
_CHAIN = rf"[A-Za-z_]\w*(?:{_INDEX})*(?:\.\w+(?:{_INDEX})*)*"
_ASSIGNED = re.compile(rf"(?<![\w.\]\[])({_CHAIN})(?=(?:\s*,\s*{_CHAIN})*\s*(?:[-+|&^%*]|<<|>>|//)?=(?!=))")
_GIVEN = re.compile(rf"(?<![\w)\]] )&({_CHAIN})")
_OVERWRITTEN = re.compile(rf"\bmem(?:set|cpy|move)\(&?({_CHAIN})")
#: What only reads where an address points to.
_READS = re.compile(r"\b(?:nm_load_\w+|nm_prefetch|sizeof)\([^()]*\)")


class _Variables(NamedTuple):
    kinds: dict[str, str]
    #: Those that are no pointers.
    own: set[str]


class Core:
    """The structures of all files below a folder, and what of its functions writes them.

    A structure is known by its module and its name, as two of them may have one name.
    """

    def __init__(self, root: Path) -> None:
        self.texts: dict[str, list[str]] = {}
        for path in sorted(root.rglob("*.p[xy][xd]")):
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            self.texts.setdefault(module, []).append(_code(path.read_text()))
        self.fields: dict[str, dict[str, str]] = {}
        self._pointers: set[tuple[str, str]] = set()
        self._names: dict[str, dict[str, str]] = {module: {} for module in self.texts}
        for module, texts in self.texts.items():
            for name, _ in (found for text in texts for found in _STRUCT.findall(text)):
                self._names[module][name] = f"{module}.{name}"
        for module, texts in self.texts.items():
            for source, names in (found for text in texts for found in _CIMPORT.findall(text)):
                imported = (name.split()[0] for name in names.strip("()").split(",") if name.strip())
                of_source = self._names.get(source, {})
                self._names[module] |= {name: of_source[name] for name in imported if name in of_source}
        for module, texts in self.texts.items():
            for name, body in (found for text in texts for found in _STRUCT.findall(text)):
                kinds, fields = self._names[module], _FIELD.findall(body)
                self.fields[f"{module}.{name}"] = {one: kinds.get(kind, "") for kind, _, one in fields}
                self._pointers |= {(f"{module}.{name}", one) for _, pointer, one in fields if pointer}

    def writes(self, module: str) -> Iterator[tuple[str, str]]:
        """(structure, field) of every write in a module; a structure written over as a whole has the field ``*``."""
        names = self._names[module]
        texts = self.texts[module]
        attributes = {one: names.get(kind, "") for text in texts for kind, one in _ATTRIBUTE.findall(text)}
        for text in texts:
            for header, body in _functions(text):
                variables = _variables(header, body, names, attributes)
                for line in body:
                    yield from self._of_line(line, variables)

    def _of_line(self, line: str, variables: _Variables) -> Iterator[tuple[str, str]]:
        if not re.match(r"\s*(?:cdef|if|while|elif|for|return)\b", line):
            for chain in _ASSIGNED.findall(line):
                yield from self._place(chain, variables)
        for chain in _OVERWRITTEN.findall(line):
            yield from self._place(chain, variables, whole=True)
        for chain in _GIVEN.findall(_READS.sub("", line)):
            yield from self._place(chain, variables, given=True)

    def _place(
        self, chain: str, variables: _Variables, whole: bool = False, given: bool = False
    ) -> Iterator[tuple[str, str]]:
        indexed = chain.endswith("]")
        first, *steps = re.sub(_INDEX, "", chain).split(".")
        if first == "self" and steps:
            first = f"self.{steps.pop(0)}"
        if first in variables.own:
            return
        kind, holder = variables.kinds.get(first, ""), ""
        for step in steps:
            if kind not in self.fields:
                return
            holder, kind = kind, self.fields[kind].get(step, "")
        if kind and (whole or (indexed and not given)):
            yield kind, "*"
        elif indexed and steps and (holder, steps[-1]) in self._pointers:
            return  # what is written stands somewhere else
        elif holder and not (given and kind):
            yield holder, steps[-1]


def writers(core: Core) -> dict[str, dict[str, set[str]]]:
    """Of each structure the modules that write it, with the fields each writes."""
    found: dict[str, dict[str, set[str]]] = {name: {} for name in core.fields}
    for module in core.texts:
        for struct, name in core.writes(module):
            found[struct].setdefault(module, set()).add(name)
    return found


def _code(text: str) -> str:
    return re.sub(r"#[^\n]*", "", re.sub(r'"""(?:.|\n)*?"""', "", text))


def _functions(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each function's parameters, and the logical lines of its body."""
    for match in _FUNCTION.finditer(text):
        behind = _closing(text, match.end())
        line_end = text.find("\n", behind)
        if not text[behind:line_end].rstrip().endswith(":"):
            continue
        lines: list[str] = []
        still_open = 0
        for line in text[line_end + 1 :].split("\n"):
            if still_open:
                lines[-1] += " " + line.strip()
            elif line.strip() and len(line) - len(line.lstrip()) <= len(match[1]):
                break
            else:
                lines.append(line)
            still_open += sum(line.count(one) for one in "([{") - sum(line.count(one) for one in ")]}")
        yield text[match.end() : behind - 1], lines


def _closing(text: str, at: int) -> int:
    depth = 1
    while depth:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at


def _variables(header: str, body: list[str], names: dict[str, str], attributes: dict[str, str]) -> _Variables:
    kinds = {f"self.{one}": kind for one, kind in attributes.items()}
    own: set[str] = set()
    found = [_PARAMETER.match(" ".join(parameter.split())) for parameter in header.split(",")]
    declared = [(match[1], match[2], match[3]) for match in found if match]
    for line in body:
        if match := _LOCAL.match(line):
            parts = re.split(r",(?![^(\[]*[)\]])", match[2])
            declared += [(match[1], one[1], one[2]) for part in parts if (one := re.match(r"\s*(\**)(\w+)", part))]
    for kind, pointer, name in declared:
        kinds[name] = names.get(kind, "")
        if not pointer:
            own.add(name)
    return _Variables(kinds, own)
