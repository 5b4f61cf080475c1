"""The house keeps its shape: imports go downward, rooms on one floor don't know each other, nothing grows too big.

A new file in director/ needs a place in FLOORS: just above the highest room that it imports from.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import director

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUSE = Path(director.__file__).parent

# Lowest first. A room is one file, or with ".*" a package whose files may know each other.
FLOORS = {
    "users' objects": "_user_objects",
    "users' numbers": "_numbers",
    "keys": "_keys",
    "words": """
        errors _faults _forks events hooks _devices _devices.gpu _devices.cuda_probe _devices.cuda_trial _devices.apart
        _devices.xids _devices.findings _executors _core _core.beside _core.flag
        _core.states _core.clock _core.doorbell _core.frames _core.batch_rule _core.policy _core.tenants _core.pause
        _core.tasks _core.ripening _core.costs _core.limits _core.soonest _core.holds _core.census
    """,
    "identity": "_device _health_rules _known_texts",
    "things": """
        _models _options _stats _current _devices.mask _devices.nvml _devices.cuda _devices.probe _devices.judge
        _executors._base _core.job
        _core.exclusive _core.line _core.slot _core.slot_thread _core.outbox _core.alarms _core.chronicle
        _core.placement _core.accounts _core.admission _core.quarantine _core.warden _shared.files _core.bridge
        _core.stream_call _core.endings
    """,
    "groups": """
        _checks _devices.survey _executors._cuda_thread _executors._replicas _executors._attended _executors._remote
        _core.group _core.loop_loss _core.starts _core.hiring _core.batch_run _core.retries _shared.turnstile
        _shared.presence _devices.readings _devices.gauge _devices.listener
    """,
    "lanes": "_devices.watch _resolve _core.lane _core.batching _core.ledger",
    "queue": "_core.queue _core.service _core.waking _core.ahead",
    "overview": "_core.overview",
    "decision": "_core.dispatch",
    "work": "_devices.discovery _executors._thread _executors._process.* _core.shift _core.turns _core.supply _shared",
    "care": "_core.care _executors._ray.* _executors._choice _claim",
    "crew": "_core.crew",
    "faces": "_faces.*",
    "life": "_life",
    "director": "_director",
    "the contract": "__init__",
    "for tests and clusters": "testing ray",
    "web": "asgi.*",
    "frameworks": "fastapi",
    "numbers for people": "_words",
    "what was seen": "_timeline.* _guard.*",
    "sights": "timeline guard prometheus otel logs",
    "watchers": "dashboard.*",
    "benchmarks": "_bench.*",
    "command line": "cli.*",
    "entry": "__main__",
}
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS.values()) for room in rooms.split()}
CONTRACT, BENCHMARKS = FLOOR_OF["__init__"], FLOOR_OF["_bench.*"]
PUBLIC = {"__init__", "errors", "events", "hooks", "testing", "ray"}
EVERYWHERE = {"_user_objects", "_known_texts", "_numbers"}  # nothing else may ask what belongs to users
BACKSTAGE = {  # who above the contract knows more than public names, and what
    "testing": {"_device"},
    "ray": {
        "_executors._ray.executor",
        "_executors._ray.connection",
        "_executors._ray.nodes",
        "_executors._ray.pickling",
    },
    "asgi._owned": {"_core.job"},  # awaits as `Director.run` does, without a future of its own
    "_bench.played": {  # the decision itself, on virtual time
        "_core.dispatch",
        "_core.job",
        "_core.policy",
        "_core.slot",
        "_core.states",
        "_device",
        "_options",
    },
    # The memory that GPUs have in use is no fact of a Director. Both are stopped at any moment, also by finalizers.
    "_timeline.memory": {"_devices.readings", "_core.flag"},
    "_guard.loop_watch": {"_core.flag"},
    "cli.devices": {
        "_devices.gpu",
        "_devices.survey",
        "_devices.discovery",
    },  # tells of hidden and lost GPUs too, for which the contract has no word
    "cli._watch": {"_devices.nvml", "_devices.readings"},  # memory, load and heat: what NVML reads
    "dashboard._meter": {"_devices.nvml", "_devices.readings"},
    "dashboard._view": {"_devices.readings"},
    "cli._doctor.checkup": {"_devices.survey", "_devices.discovery", "_devices.nvml", "_devices.readings"},
    "cli._doctor.gpus": {"_devices.cuda", "_devices.survey", "_devices.readings"},  # each side's own answer
}

# Who may import what from outside the standard library; "" is everybody, and some are more than one.
OUTSIDE = {
    "anyio": "",
    "pynvml": "_devices.nvml",
    "rich": "cli",
    "prometheus_client": "prometheus",
    "opentelemetry": "otel",
    "uvicorn": "cli._top.web",
    "numpy": "cli._demo",
    "sklearn": "cli._demo",
    "threadpoolctl": "cli._demo",
    "torch": "cli._demo",
    "fastapi": "fastapi",
    "cloudpickle": "_executors._process.payload",
    "ray": "_executors._ray",
    "aiojobs": "_bench",
    "uvloop": "_bench",
    "async_batcher": "_bench",
    "batched": "_bench",
}

LONGEST_FILE = 400
LONGEST_FUNCTION = 60


@dataclass(frozen=True)
class Import:
    """One import statement's target, wherever in the file it stands."""

    target: str
    line: int
    for_types_only: bool


def modules() -> dict[str, Path]:
    """Every module by its name without ``director.``; a package by its folder's name, the house itself by __init__."""
    found = {}
    for path in sorted(HOUSE.rglob("*.py")):
        parts = path.relative_to(HOUSE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


MODULES = modules()


def room_of(module: str) -> str | None:
    """The module's room in FLOORS, `None` if it has no place yet."""
    if module in FLOOR_OF:
        return module
    packages = (module[:end] + ".*" for end in range(1, len(module) + 1) if module[end : end + 1] in ("", "."))
    return next((room for room in packages if room in FLOOR_OF), None)


def imports(source: str, module: str) -> Iterator[Import]:
    """All imports of a module, absolute or relative, at the top or within a function."""
    tree = ast.parse(source)
    for_types = {id(inner) for node in ast.walk(tree) if is_for_types(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for target in targets(node, module):
                yield Import(target, node.lineno, id(node) in for_types)


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def targets(node: ast.Import | ast.ImportFrom, module: str) -> Iterator[str]:
    """Full names of the modules that one statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        is_package = MODULES[module].name == "__init__.py"
        here = ("director" if module == "__init__" else f"director.{module}").split(".")
        base = ".".join([*here[: len(here) - node.level + is_package], *filter(None, [base])])
    for alias in node.names:
        inner = f"{base}.{alias.name}"
        yield inner if inner.removeprefix("director.") in MODULES else base


def inside(target: str) -> str | None:
    """The target's name in MODULES, `None` if it lies outside the house."""
    if target == "director":
        return "__init__"
    return target.removeprefix("director.") if target.startswith("director.") else None


def all_imports() -> Iterator[tuple[str, Import]]:
    for module, path in MODULES.items():
        for each in imports(path.read_text(), module):
            yield module, each


def complaint(module: str, each: Import) -> str | None:
    """What is wrong with a module's import of another one, if anything is."""
    other = inside(each.target)
    mine, theirs = room_of(module), room_of(other or "")
    if mine is None or theirs is None or mine == theirs:
        return None
    above, below = FLOOR_OF[mine], FLOOR_OF[theirs]
    if above > CONTRACT > below and other not in PUBLIC | EVERYWHERE | BACKSTAGE.get(module, set()):
        return f"{module}:{each.line} imports {other}; above the contract only public names are known"
    if above > below or (each.for_types_only and below < BENCHMARKS):
        return None
    kind = "for types " if each.for_types_only else ""
    return f"{module}:{each.line} imports {other} {kind}from {'its own' if above == below else 'a higher'} floor"


def test_every_file_has_a_place() -> None:
    lost = [module for module in MODULES if room_of(module) is None]
    assert not lost, f"put {lost} into FLOORS, just above the highest room that they import from"


def test_every_place_has_a_file() -> None:
    empty = [room for room in FLOOR_OF if room.removesuffix(".*") not in MODULES]
    assert not empty, f"take {empty} out of FLOORS: there are no such files"


def test_imports_go_downward() -> None:
    wrong = [said for module, each in all_imports() if (said := complaint(module, each))]
    assert not wrong, "\n".join(wrong)


def test_the_outside_is_known_in_few_places() -> None:
    wrong = []
    for module, each in all_imports():
        name = each.target.partition(".")[0]
        if name == "director" or name in sys.stdlib_module_names:
            continue
        allowed = OUTSIDE.get(name)
        if allowed is None or not f"{module}.".startswith(tuple(f"{room}." for room in allowed.split()) or ""):
            wrong.append(f"{module}:{each.line} imports {each.target}")
    assert not wrong, "\n".join(wrong)


def test_files_are_short() -> None:
    long = {
        module: lines
        for module, path in MODULES.items()
        if (lines := len(path.read_text().splitlines())) > LONGEST_FILE
    }
    assert not long


def test_functions_are_short() -> None:
    long = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{module}:{node.lineno} {node.name} has {lines} lines")
    assert not long, "\n".join(long)


# The checks themselves.


def complaints(module: str, source: str) -> list[str]:
    return [said for each in imports(source, module) if (said := complaint(module, each))]


def test_a_lazy_import_upward_is_seen() -> None:
    assert complaints("errors", "def f():\n    from director import _device\n") == [
        "errors:2 imports _device from a higher floor"
    ]


def test_a_relative_import_sideways_is_seen() -> None:
    assert complaints("_stats", "from ._options import Options\n") == ["_stats:1 imports _options from its own floor"]
    assert complaints("_core.job", "from .. import _models\n") == ["_core.job:1 imports _models from its own floor"]
    assert complaints("cli", "from . import _table\nfrom .. import errors\n") == []


def test_types_may_be_known_sideways_but_the_command_line_may_not() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from director.{} import X\n"
    assert complaints("errors", source.format("_device")) == []
    assert complaints("errors", source.format("cli")) == ["errors:3 imports cli for types from a higher floor"]


def test_above_the_contract_only_public_names_are_known() -> None:
    assert complaints("cli", "from director import Director\nfrom director.errors import QueueFull\n") == []
    assert complaints("cli", "import director._jobs.job\n") == [
        "cli:1 imports _core.job; above the contract only public names are known"
    ]
