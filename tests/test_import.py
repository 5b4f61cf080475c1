"""`import director` is cheap: it brings little along and is done at once."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

GOAL = 0.1  # seconds, on CPython with its bytecode cached
ATTEMPTS = 10
HEAVY = {"pynvml", "rich", "torch", "numpy", "sklearn", "multiprocessing", "concurrent.futures.process", "director.cli"}


def fresh(code: str, *options: str) -> str:
    """What a new interpreter prints that runs `code`; without the coverage measurement this one may be under."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("COVERAGE", "PYTHON"))}
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, env=clean, capture_output=True, text=True, check=True).stdout


def test_brings_nothing_heavy_along() -> None:
    loaded = set(fresh("import director, sys; print(*sys.modules)").split())
    assert "director" in loaded
    assert loaded & HEAVY == set()


def test_takes_less_than_the_goal(tmp_path: Path) -> None:
    cached = ("-X", f"pycache_prefix={tmp_path}")
    code = "import time; began = time.process_time(); import director; print(time.process_time() - began)"
    fresh(code, *cached)  # writes the bytecode
    best = 1e9
    for _ in range(ATTEMPTS):  # of its own processor time, the best: a busy machine says nothing about the import
        best = min(best, float(fresh(code, *cached)))
        if best < GOAL:
            break
    assert best < GOAL


def test_warns_about_nothing() -> None:
    fresh("import director, director.cli, director.errors, director.events", "-W", "error", "-X", "dev")
