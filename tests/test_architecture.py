"""The packages and their order: each imports from those before it only, type-checking imports too, and none in circles.

What may be imported from outside the standard library, and where, stands here too.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import director

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(director.__file__).parent

# From the ground up. Those on one line don't know each other.
ORDER = """
_system
_untrusted
_device
errors
_format events
_devices
_jobs
_ipc
hooks _executors
_scheduler
_runtime
_client
_api
_server
__init__
testing ray logs otel prometheus dashboard
asgi
fastapi timeline guard
cli
__main__
"""
FLOOR = {name: floor for floor, line in enumerate(ORDER.strip().splitlines()) for name in line.split()}
PUBLIC = {"__init__", "errors", "events", "hooks", "testing", "ray", "_untrusted", "_format"}
ABOVE = {  # what is above `director` knows public names only, but for these
    "testing": {"_device"},
    "ray": {"_executors"},
    "dashboard": {"_devices"},
    "otel": {"_jobs"},
    "timeline": {"_devices", "_system"},
    "guard": {"_system"},
    "asgi": {"_jobs", "_system"},
    "cli": {"_devices", "_server"},
}
OUTSIDE = {  # imported in this module or package only; "" is any
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
    "cloudpickle": "_ipc.pickling",
    "ray": "_executors.ray",
    "aiojobs": "cli._bench",
    "uvloop": "cli._bench",
}


class Import(NamedTuple):
    """One imported module, by its full name, wherever in the file the import stands."""

    target: str
    line: int


def modules() -> dict[str, Path]:
    """Every module by its name below ``director``, a package by its folder's."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


MODULES = modules()


def imports(source: str) -> Iterator[Import]:
    """All imports of a module, those within functions and for type checking too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the order"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield Import(inner if inner.removeprefix("director.") in MODULES else node.module or "", node.lineno)


def inside(target: str) -> str | None:
    """The name in MODULES, `None` outside the package."""
    if target == "director":
        return "__init__"
    return target.removeprefix("director.") if target.startswith("director.") else None


def package(module: str) -> str:
    """The part of the name that stands in ORDER."""
    return module.partition(".")[0]


def complaints(module: str, source: str) -> list[str]:
    """What is wrong with a module's imports."""
    wrong = []
    mine = package(module)
    for each in imports(source):
        other = inside(each.target)
        if other is None:
            name = each.target.partition(".")[0]
            place = OUTSIDE.get(name)
            if name not in sys.stdlib_module_names and (
                place is None or not f"{module}.".startswith(f"{place}." if place else "")
            ):
                wrong.append(f"{module}:{each.line} imports {each.target}, which is known elsewhere only")
            continue
        theirs = package(other)
        if mine == theirs:
            continue
        if FLOOR[theirs] >= FLOOR[mine]:
            wrong.append(f"{module}:{each.line} imports {other} from above or beside it")
        elif FLOOR[mine] > FLOOR["__init__"] > FLOOR[theirs] and theirs not in PUBLIC | ABOVE.get(mine, set()):
            wrong.append(f"{module}:{each.line} imports {other}; above `director` only public names are known")
    return wrong


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, by Tarjan's algorithm."""
    found: list[list[str]] = []
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def test_every_package_has_a_place_in_the_order() -> None:
    assert {package(module) for module in MODULES} == set(FLOOR)


def test_imports_go_downward() -> None:
    wrong = [each for module, path in MODULES.items() for each in complaints(module, path.read_text())]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if module == "__init__":  # its names are imported when they are asked for
            edges[module] = set()
            continue
        targets = {inside(each.target) for each in imports(path.read_text())}
        edges[module] = {each for each in targets if each in MODULES and each != module}
    found = circles(edges)
    assert not found, "\n".join(", ".join(group) for group in found)


def test_the_api_knows_an_open_director_by_its_protocol() -> None:
    known = {"_runtime.backend", "_runtime.lifecycle", "_runtime.stats"}  # and what makes one, and what it tells
    targets = {
        inside(each.target)
        for module, path in MODULES.items()
        if package(module) == "_api"
        for each in imports(path.read_text())
    }
    assert {each for each in targets if each is not None and package(each) == "_runtime"} == known


def test_the_packages_of_a_command_do_not_import_each_other_in_a_circle() -> None:
    home = "cli._run."
    edges: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if module.startswith(home):
            part = package(module.removeprefix(home))
            targets = {inside(each.target) or "" for each in imports(path.read_text())}
            others = {package(each.removeprefix(home)) for each in targets if each.startswith(home)} - {part}
            edges.setdefault(part, set()).update(others)
    assert {"input", "output", "journal", "progress", "calls"} <= edges.keys()
    found = circles(edges)
    assert not found, "\n".join(", ".join(group) for group in found)


# The checks themselves.


def test_an_import_upward_is_seen_for_types_and_in_functions_too() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from director._api.map import map_jobs\n"
    assert complaints("errors", source) == ["errors:3 imports _api.map from above or beside it"]
    assert len(complaints("errors", "def f():\n    from director import _api\n")) == 1
    assert complaints("_runtime.worker_thread.worker", "from director._jobs.job import Job\n") == []


def test_above_the_package_only_public_names_are_known() -> None:
    assert complaints("cli", "from director import Director\nfrom director.errors import QueueFull\n") == []
    assert len(complaints("cli", "import director._jobs.job\n")) == 1


def test_what_is_outside_is_known_in_its_place_only() -> None:
    assert complaints("otel", "import opentelemetry\nimport json\n") == []
    assert len(complaints("events", "import opentelemetry\n")) == 1


def test_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []
