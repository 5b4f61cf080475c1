from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, Recorder

from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
async def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def no_gc() -> Iterator[None]:
    """What is freed in the test is freed because nothing refers to it: a cycle would keep it alive."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()


@pytest.fixture
async def loop_errors() -> AsyncIterator[list[dict[str, Any]]]:
    """What was reported to the event loop's exception handler: errors that nobody has asked for, failing callbacks."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    yield errors
    asyncio.get_running_loop().set_exception_handler(None)


@pytest.fixture
def python() -> Callable[[str], str]:
    """Run a program in a Python of its own, for what might leave threads behind; returns what it printed."""

    def run(source: str) -> str:
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=4 * PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run
