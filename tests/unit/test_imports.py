"""Imports run one way: every import and cimport of the product goes down the table of layers."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.sources

ROOT = Path(__file__).parents[2]

#: The rooms, lowest first. A room holds the modules below its name, but for those that have a row
#: of their own; it may import itself and rooms of lower rows, never one of its own row.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__init__", "plain", "sealed"),
    ("errors",),
    ("reading",),
    ("policy.findings",),
    ("policy.model", "smtp.verbs", "smtp.states"),
    ("policy",),
    ("smtp",),
    (
        "cext.wire.bytes",
        "cext.wire.checksum",
        "cext.memory.atomic",
        "cext.smtp.scan",
        "cext.smtp.words",
        "cext.policy.numbers",
        "cext.memory.account",
    ),
    ("cext.wire", "cext.record", "cext.smtp.name", "cext.memory.pool", "cext.flow.sources"),
    ("cext.operation", "cext.memory.freelist", "cext.memory.pagebuffer", "cext.policy.tally"),
    ("cext.tcp.stream", "cext.smtp.grammar", "cext.policy.network", "cext.smtp.line"),
    ("cext.policy.ruling", "cext.smtp.session", "cext.smtp.command_line", "cext.smtp.reply_line"),
    ("cext.policy.findings",),
    ("cext.smtp.outstanding", "cext.smtp.mime", "cext.smtp.size", "cext.smtp.text_lines"),
    ("cext.smtp.text",),
    ("cext.smtp.dialogue",),
    (
        "cext.smtp.argument",
        "cext.smtp.redact",
        "cext.smtp.unmask",
    ),
    ("cext.smtp.reply_effects", "cext.smtp.shapes"),
    ("cext.smtp.text_end",),
    ("cext.smtp.whole_replies", "cext.smtp.message", "cext.smtp.runs"),
    ("cext.smtp.verb", "cext.smtp.plain_lines", "cext.smtp.odd_words", "cext.smtp.reply_mask"),
    ("cext.smtp.command", "cext.smtp.whole_lines", "cext.smtp.reply"),
    ("cext.smtp.lines",),
    ("cext.smtp.dispatch",),
    ("cext.smtp.turns",),
    ("cext.flow.table",),
    ("cext.flow.census",),
    ("cext.core",),
    ("cext.tables", "cext.flow.rules", "cext.memory.accounting", "cext.tcp.syncookie"),
    ("cext.tcp.window", "cext.tcp.reset", "cext.generation"),
    ("cext.verdict",),
    ("cext.policy.conditions", "cext.tcp.holdqueue"),
    ("cext.flow.lifecycle",),
    ("cext.tcp.passed",),
    ("cext.policy.actions", "cext.flow.identity"),
    ("cext.memory.pressure",),
    ("cext.tcp.validate", "cext.tcp.peer_reset", "cext.tcp.reorder"),
    ("cext.decide",),
    ("cext.inspect", "cext.tcp.handshake"),
    ("cext.process",),
    ("cext.engine",),
    ("cext.handover.cursor", "cext.handover.parts"),
    ("cext.handover.layout", "cext.handover.checks", "cext.handover.loaded"),
    ("cext.handover.saving", "cext.handover.flows"),
    ("cext.handover.loading",),
    ("cext.handover.state",),
    ("cext.events.digits", "cext.events.sha1"),
    ("cext.events.buffer",),
    ("cext.events.clock", "cext.events.ends", "cext.events.text", "cext.events.allowance"),
    ("cext.events.address", "cext.events.session"),
    ("cext.events.transactions", "cext.events.standing"),
    ("cext.events.lines",),
    ("cext.events.writer",),
    ("cext.drivers.system", "cext.drivers.frame"),
    (
        "cext.drivers.netlink",
        "cext.drivers.queue_config",
        "cext.drivers.queue_socket",
        "cext.drivers.rawsocket",
        "cext.drivers.tap",
    ),
    ("cext.drivers", "cext.bench", "cext.census"),
    ("engine",),
    ("queues",),
    ("events",),
    ("settings",),
    ("config", "foreign", "statements"),
    ("ruleset", "confinement"),
    ("probe", "transcripts.model"),
    ("transcripts",),
    ("verify",),
    ("reports", "replay"),
    ("service",),
    ("lab",),
    ("bench",),
    ("cli",),
    ("__main__",),
)

#: What the order alone would allow: importers, and what they never import, each with all below it.
NEVER: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("cext",), ("policy", "smtp")),  # the core gets its tables as values
    (
        ("cext.smtp", "cext.policy.ruling", "cext.policy.findings"),
        ("cext.wire.packet", "cext.operation", "cext.tcp", "cext.flow"),
    ),
    (("queues",), ("smtp",)),  # a driver never sees SMTP, as the dialogue never sees a packet
)

CIMPORT = re.compile(
    r"^[ \t]*from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(\([^)]*\)|.*)|^[ \t]*c?import[ \t]+([\w., \t]+)", re.MULTILINE
)
HEADER = re.compile(r'^[ \t]*cdef extern from "(?:\w+/)*(\w+)\.h"', re.MULTILINE)


def modules(root: Path) -> dict[str, list[Path]]:
    """Module names without ``nfmailguard.``, each with its files (a .pyx and its .pxd are one)."""
    package = root / "src" / "nfmailguard"
    found: dict[str, list[Path]] = {}
    for path in sorted([*package.rglob("*.py"), *(root / "cext").rglob("*.p[xy][xd]"), *(root / "cext").rglob("*.h")]):
        where = path.relative_to(package if path.is_relative_to(package) else root)
        parts = where.with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found.setdefault(name, []).append(path)
    return found


def python_imports(text: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)


def cython_imports(text: str) -> Iterator[tuple[str, str]]:
    for module, names, plain in CIMPORT.findall(re.sub(r"#.*", "", text)):
        if plain:
            yield from ((name.split()[0], "") for name in plain.split(","))
        else:
            yield from ((module, name.split()[0]) for name in names.strip("()").split(",") if name.split())


def edges(root: Path) -> set[tuple[str, str]]:
    """(importer, imported) between modules of ours."""
    known = modules(root)
    found = set()
    for importer, paths in known.items():
        for path in paths:
            imports = python_imports if path.suffix == ".py" else cython_imports
            for module, name in imports(path.read_text()):
                if module.startswith("."):
                    found.add((importer, module))  # has no room, and so is refused
                elif module.split(".")[0] == "nfmailguard":
                    inside = ".".join(module.split(".")[1:])
                    longer = f"{inside}.{name}".strip(".")
                    found.add((importer, longer if longer in known else inside or "__init__"))
            headers = HEADER.findall(path.read_text()) if path.suffix != ".py" else ()
            core = [name for name in known if name.startswith("cext.")]
            found |= {(importer, name) for header in headers for name in core if name.endswith(f".{header}")}
    return found


def is_in(module: str, rooms: Iterable[str]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in rooms)


def room(module: str) -> tuple[int, str] | None:
    """The row and name of the room ``module`` is in, by the longest name that fits."""
    fitting = [(row, name) for row, names in enumerate(LAYERS) for name in names if is_in(module, [name])]
    return max(fitting, key=lambda row_and_name: len(row_and_name[1]), default=None)


def back_edges(root: Path) -> list[str]:
    faults = []
    for importer, imported in sorted(edges(root)):
        above, below = room(importer), room(imported)
        if above is None or below is None:
            faults.append(f"{importer} imports {imported}: one of them has no room in LAYERS")
        elif above != below and above[0] <= below[0]:
            faults.append(f"{importer} imports {imported}: against the order")
        elif any(is_in(importer, importers) and is_in(imported, never) for importers, never in NEVER):
            faults.append(f"{importer} imports {imported}: never allowed")
    return faults


def test_imports_run_one_way() -> None:
    assert back_edges(ROOT) == []


def test_every_module_has_a_room() -> None:
    package = ROOT / "src" / "nfmailguard"
    packages = {".".join(path.parent.relative_to(package).parts) for path in package.rglob("__init__.py")}
    assert [name for name in modules(ROOT) if name not in packages and room(name) is None] == []


def test_the_imports_are_seen() -> None:
    assert {("engine", "cext.engine"), ("engine", "policy.model"), ("cext.engine", "cext.record")} <= edges(ROOT)


@pytest.mark.parametrize(
    ("path", "text", "fault"),
    [
        (
            "src/nfmailguard/smtp/reference.py",
            "from nfmailguard.queues import kernel",
            "smtp.reference imports queues.kernel",
        ),
        (
            "src/nfmailguard/policy/model.py",
            "def f():\n    import nfmailguard.policy.load",
            "policy.model imports policy.load",
        ),
        (
            "src/nfmailguard/queues/kernel.py",
            "from nfmailguard.smtp.verbs import VERBS",
            "queues.kernel imports smtp.verbs",
        ),
        ("src/nfmailguard/queues/kernel.py", "from ..engine import Engine", "queues.kernel imports ..engine"),
        ("src/nfmailguard/surprise.py", "from nfmailguard.errors import QueueError", "surprise imports errors"),
        (
            "cext/wire/packet.pxd",
            "from nfmailguard.cext.flow.table cimport Flow",
            "cext.wire.packet imports cext.flow.table",
        ),
        (
            "cext/record.pyx",
            "from nfmailguard.cext.flow cimport (\n    sources,\n    table)",
            "cext.record imports cext.flow.table",
        ),
        ("cext/smtp/command.pyx", "cimport nfmailguard.cext.wire.packet", "cext.smtp.command imports cext.wire.packet"),
        ("cext/engine.pyx", "from nfmailguard.policy.model import Policy", "cext.engine imports policy.model"),
    ],
)
def test_a_planted_back_edge_is_found(tmp_path: Path, path: str, text: str, fault: str) -> None:
    for name in (
        "src/nfmailguard/queues/kernel.py",
        "src/nfmailguard/policy/load.py",
        "cext/flow/table.pxd",
        "cext/tcp/stream.pxd",
        path,
    ):
        planted = tmp_path / name
        planted.parent.mkdir(parents=True, exist_ok=True)
        planted.write_text(text if name == path else "")
    assert [found for found in back_edges(tmp_path) if found.startswith(f"{fault}:")] != []
