"""Each test is run by a session of the noxfile that `.ci/run` calls, on its marks or on what it needs."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOXFILE = ast.parse((ROOT / "noxfile.py").read_text())
MARKS = ("slow", "serial", "programs", "hypothesis")


def chosen_by(session: str) -> list[str]:
    """The expressions of marks in the calls of a session."""
    (body,) = [node for node in NOXFILE.body if isinstance(node, ast.FunctionDef) and node.name == session]
    calls = [node for node in ast.walk(body) if isinstance(node, ast.Call)]
    words: list[Any] = [arg.value for call in calls for arg in call.args if isinstance(arg, ast.Constant)]
    return [word for word in words if set(re.findall(r"\w+", str(word))) & {"slow", "serial"}]


def folders_of(name: str) -> list[str]:
    """The value of a constant of the noxfile."""
    assigned = [node for node in NOXFILE.body if isinstance(node, ast.Assign)]
    (value,) = [node.value for node in assigned if ast.unparse(node.targets[0]) == name]
    found: list[str] = ast.literal_eval(value)
    return found


@pytest.mark.parametrize("marked", list(itertools.product((False, True), repeat=len(MARKS))))
def test_whatever_its_marks_a_test_is_run_by_default_or_in_full(marked: tuple[bool, ...]) -> None:
    expressions = chosen_by("tests") + chosen_by("full")
    assert len(expressions) == 3
    assert any(eval(each, {}, dict(zip(MARKS, marked, strict=True))) for each in expressions)


@pytest.mark.parametrize(
    ("needed", "folders"), [("torch", folders_of("WITH_TORCH")), ("ray", ["tests/executors/ray"])], ids=["torch", "ray"]
)
def test_what_needs_an_installation_of_its_own_has_it_in_a_session(needed: str, folders: list[str]) -> None:
    assert [folder for folder in folders if not (ROOT / folder).exists()] == []
    needs = re.compile(rf"""importorskip\(["']{needed}\b""")
    for path in (ROOT / "tests").rglob("test_*.py"):
        if needs.search(path.read_text()):
            assert any(path.is_relative_to(ROOT / folder) for folder in folders), path
