from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from director import Director
from executors.process.leaks import children, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

LIMIT = 30.0  # seconds for a program of its own


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.programs)


@pytest.fixture(autouse=True)
def no_child_left_behind() -> Iterator[None]:
    """Fail a test that leaves a child, running or as a zombie."""
    if (module := sys.modules.get("multiprocessing.resource_tracker")) is not None:
        module.ensure_running()  # which the first child would have it do: a process and a descriptor
    before = children()
    yield
    wait_until(lambda: children() - {tracker()} <= before)


def tracker() -> int | None:
    """The process of `multiprocessing` that tracks names of shared memory, which ends with the program."""
    module: Any = sys.modules.get("multiprocessing.resource_tracker")
    return None if module is None else module._resource_tracker._pid


@pytest.fixture
async def director() -> AsyncIterator[Director]:
    """One slot, with a child."""
    async with Director("cpu", executor="process") as director:
        yield director


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program of its own to its end; functions that are sent to children stand in `executors.process.calls`."""

    def run(source: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(source))
        command = [sys.executable, "-W", "error", str(path), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT, check=False, env=surroundings(), cwd=cwd
        )

    return run


def surroundings() -> dict[str, str]:
    """The environment in which a program finds the package and the tests."""
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture
def stopwatch() -> Callable[[], float]:
    began = time.monotonic()
    return lambda: time.monotonic() - began
