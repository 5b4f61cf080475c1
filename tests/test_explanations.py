"""The pages that explain the code name what is in it, and the page of the architecture lists exactly the packages."""

from __future__ import annotations

import ast
import builtins
import importlib
import keyword
import re
import sys
from functools import cache
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest
from test_architecture import FLOOR
from test_docs import DOCS, PAGES, ROOT, codes, prose

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CODE = ROOT / "director"
EXPLANATIONS = sorted((DOCS / "explanation").glob("*.md"))
# Of asyncio and of the system:
OUTSIDE = {"as_completed", "recvmsg", "PR_SET_PDEATHSIG", "SCHED_BATCH", "F_SETOWN", "F_SETSIG"}
PATH = re.compile(r"[\w.*-]*/[\w./*-]*|[\w.-]+\.(?:py|md)")
NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


class Names:
    """The names in the code of `director`.

    Attributes:
        all: Every identifier, each module by its stem, and strings that are identifiers.
        members: By class, what is defined in its body or assigned to `self`, in this class and its bases.
    """

    def __init__(self) -> None:
        self.all = {*dir(builtins), *keyword.kwlist}
        self.members: dict[str, set[str]] = {}
        self._bases: dict[str, set[str]] = {}
        for path in CODE.rglob("*.py"):
            self.all.update(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text())):
                self._read(node)

    def _read(self, node: ast.AST) -> None:
        for value in (getattr(node, field, None) for field in ("id", "attr", "name", "arg", "asname", "value")):
            if isinstance(value, str):
                self.all.update(value.split(".") if NAME.fullmatch(value) else ())
        if isinstance(node, ast.ClassDef):
            own = self.members.setdefault(node.name, set())
            self._bases.setdefault(node.name, set()).update(base for each in node.bases for base in names_in(each))
            for each in ast.walk(node):
                match each:
                    case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.Name(id=name):
                        own.add(name)
                    case ast.Attribute(value=ast.Name(id="self"), attr=name):
                        own.add(name)

    def has_member(self, cls: str, name: str) -> bool:
        bases = self._bases.get(cls, set())
        return name in self.members.get(cls, ()) or any(self.has_member(base, name) for base in bases - {cls})

    def knows(self, name: str) -> bool:
        """Whether there is something of a dotted name, in `director` or in the standard library."""
        first, *others = name.split(".")
        if first in self.members and others:
            return self.has_member(first, others[0])
        if first in sys.stdlib_module_names:
            thing: Any = importlib.import_module(first)
            for other in others:
                thing = getattr(thing, other, None)
            return thing is not None
        return all(part in self.all for part in name.split(".")) or name in OUTSIDE


def names_in(node: ast.AST) -> Iterator[str]:
    yield from (each.id for each in ast.walk(node) if isinstance(each, ast.Name))


@cache
def names() -> Names:
    return Names()


def exists(path: str) -> bool:
    """Whether a path is there, from the root or from `director/`; one outside of the project isn't asked."""
    return path.startswith("/") or any(next(place.glob(path.rstrip("/")), None) for place in (ROOT, CODE, DOCS))


def unknown(text: str) -> list[str]:
    """What a page has in code that is the name of nothing: files, names, and what is called with arguments."""
    wrong = []
    for code in codes(prose(text)):
        if PATH.fullmatch(code):
            wrong += [] if exists(code) else [code]
        elif (name := NAME.fullmatch(re.sub(r"\(.*\)$", "", code))) and not names().knows(name[0]):
            wrong.append(code)
    return wrong


@pytest.mark.parametrize("page", EXPLANATIONS, ids=lambda page: page.stem)
def test_what_an_explanation_names_exists(page: Path) -> None:
    assert unknown(page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_other_pages_tell_of_the_inside_exists(page: Path) -> None:
    inside = [code for code in codes(prose(page.read_text())) if re.match(r"(director|tests|docs)/|_[a-z]", code)]
    assert unknown(" ".join(f"`{code}`" for code in inside)) == []


def test_a_name_that_is_gone_is_seen() -> None:
    gone = ["_core/crew.py", "Scheduler.admit_all", "_crews", "Crew", "asyncio.to_threads", "Crew(x)"]
    there = [
        "_runtime/worker_thread/worker.py",
        "Scheduler.admit",
        "asyncio.to_thread",
        "Scheduler(x)",
        "await",
        "/dev/shm",
    ]
    assert unknown(" ".join(f"`{code}`" for code in gone + there)) == gone


def listed_packages() -> list[str]:
    """The packages in the listing, in its order, as paths from the root."""
    (listing,) = re.findall(r"^```text\n(.*?)^```", (DOCS / "explanation/architecture.md").read_text(), re.M | re.S)
    found: list[str] = []
    above: list[str] = []
    for line in listing.splitlines():
        indent, name = re.match(r"( *)(\w+)/", line).groups()  # type: ignore[union-attr]
        above[len(indent) // 2 :] = [name]
        found.append("/".join(above))
    return found


def test_the_architecture_lists_exactly_the_packages() -> None:
    packages = [str(path.parent.relative_to(ROOT)) for path in CODE.rglob("__init__.py")]
    assert sorted(listed_packages()) == sorted(packages)


def test_the_architecture_lists_the_packages_from_the_ground_up() -> None:
    floors = [FLOOR[path.split("/")[1]] for path in listed_packages() if path.count("/") == 1]
    assert floors == sorted(floors)


def test_the_architecture_lists_the_modules_beside_the_packages() -> None:
    (line,) = re.findall(r"^director/ +(.+)$", (DOCS / "explanation/architecture.md").read_text(), re.M)
    modules = {path.stem for path in CODE.glob("*.py")} - {"__init__", "__main__"}
    assert set(re.findall(r"\w+", line)) == modules


def functions(path: Path) -> set[str]:
    """The functions of a file by their qualified names."""
    tree = ast.parse(path.read_text() if path.exists() else "")
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = {node.name for node in tree.body if isinstance(node, kinds)}
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return found | {f"{cls.name}.{node.name}" for cls in classes for node in cls.body if isinstance(node, kinds)}


def test_the_picture_of_a_journey_shows_functions_that_exist() -> None:
    picture = (DOCS / "images/journey.svg").read_text()
    rows = re.findall(r'class="row".*?<tspan[^>]*>(.+?)</tspan>\s+(.+?)</text>', picture)
    assert len(rows) > 20
    gone = [row for row in rows if unescape(row[1]) not in functions(CODE / row[0])]
    assert gone == [], "draw it anew: python docs/images/journey.py"
