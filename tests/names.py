"""Names that the sources have left behind, and what each is called now: `make lint` runs this file.

Promises: an old name that comes back as an identifier is an error that names file, line and the name to use. Prose
is not looked at, nor are names that users type (counters, findings, options).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: By the paths where a name is an old one: elsewhere some of them are good words.
OLD: Mapping[str, Mapping[str, str]] = {
    "cext/": {
        "Shelf": "FreeList", "lend": "freelist_alloc", "Store": "PageBuffer", "kept_seq": "last_ack",
        "widest": "max_window", "Ahead": "OutOfOrder", "go_ahead": "forward_out_of_order", "caught_up": "consume",
        "too_early": "handle_out_of_order", "let_go": "forward", "let_next_go": "release_next", "pump": "drain",
        "catch_up": "process_buffered", "put_back": "overwrite_with_first_copy",
        "put_ahead": "overwrite_with_buffered", "take_back": "withdraw", "came": "original",
        "gone": "already_forwarded", "told": "recorded", "fate": "mode", "FlowAge": "FlowState",
        "Scene": "Context", "Ruling": "CompiledPolicy", "Standing": "SegmentPosition", "foresee": "prefetch_bucket",
        "approach": "prefetch_flow", "report_stranger": "report_without_flow", "unparsed": "handle_malformed",
        "note_impatience": "note_pipelining_violation", "faithful": "per_packet",
    },
    "src/nfmailguard/lab/": {
        "permissive": "lenient_server", "HonestMail": "ControlMail", "ProvingGround": "Testbed", "BESIDE": "OFF_PATH",
    },
    "src/nfmailguard/policy/": {"Deed": "CiscoAction", "Ledger": "ImportReport", "Draft": "PolicyBuilder"},
    "tests/stream/": {"Books": "InvariantChecker", "Believed": "ReassemblyModel", "books": "checker", "pump": "drain"},
    "tests/core/": {"lend": "allocate", "put_back": "overwrite_with_first_copy", "shelf": "freelist"},
}  # fmt: skip
_SOURCES = (".py", ".pyx", ".pxd", ".h", ".c")
_PROSE = re.compile(r"\"\"\".*?\"\"\"|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|#[^\n]*|//[^\n]*|/\*.*?\*/", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_]\w*")


def old_names(where: str, text: str) -> Iterator[tuple[int, str, str]]:
    """Line, old name and new name of each old one in the source ``where``, a path from the root."""
    old = {name: new for folder, names in OLD.items() if where.startswith(folder) for name, new in names.items()}
    code = _PROSE.sub(lambda prose: "\n" * prose[0].count("\n"), text)
    for number, line in enumerate(code.splitlines(), start=1):
        yield from ((number, name, old[name]) for name in _NAME.findall(line) if name in old)


def main() -> int:
    """1 when there is one, which is printed."""
    listed = subprocess.run(["git", "ls-files", *OLD], cwd=ROOT, capture_output=True, text=True, check=True)
    found = 0
    for where in filter(lambda path: path.endswith(_SOURCES) and (ROOT / path).exists(), listed.stdout.splitlines()):
        for number, name, new in old_names(where, (ROOT / where).read_text()):
            sys.stdout.write(f"{where}:{number}: {name} is called {new} now\n")
            found = 1
    return found


if __name__ == "__main__":
    sys.exit(main())
