"""A pytest plugin for what fails: its report and its teardown don't end the run, and in CI it is named at once.

The guards of pytest-timeout and of faulthandler both end when a test fails, for a debugger could be entered then. A
test that failed halfway is the likeliest to hang in its teardown, and did: CI was cut off, and no report named a test.
Its calls may wait for what it would have done next, so the Directors that it leaves open are closed at once. A hang
guard that interrupts the event loop leaves the test itself running, which is cancelled before anything is torn down.

A report parses the source of the test. When the garbage collector runs meanwhile and finds a failed task that nobody
awaited, which a test that failed halfway leaves, asyncio logs its traceback, and that parses source as well: in
CPython 3.11.7 (gh-106905) the outer parser then raises `SystemError: AST constructor recursion depth mismatch`, which
ends pytest.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import sys
from typing import TYPE_CHECKING

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

from director import Director

if TYPE_CHECKING:
    from collections.abc import Generator

HAS_FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("teardown_timeout", "seconds that the teardown of a failed test may take", "float", 120.0)


@pytest.hookimpl(wrapper=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> Generator[None, object, object]:
    """End the process when the teardown takes too long; pytest-xdist makes another."""
    result = yield
    node.stash[HAS_FAILED] = True
    if isinstance(node, pytest.Item) and not node.config.getoption("usepdb"):
        limit = node.config.getini("teardown_timeout")
        faulthandler.dump_traceback_later(limit, file=node.config.stash[fault_handler_stderr_fd_key], exit=True)
    return result


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget an earlier try."""
    item.stash[HAS_FAILED] = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Close at once what a failed test leaves open."""
    if not item.stash.get(HAS_FAILED, False):  # not set where the setup skips the test
        return (yield)
    if isinstance(item, pytest.Function):
        cancel_test(item)
    close = Director.close

    async def close_at_once(director: Director, timeout: float | None = None, grace: float = 1.0) -> None:
        await close(director, 0.0, grace)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Director, "close", close_at_once)
        return (yield)


def cancel_test(item: pytest.Function) -> None:
    """Cancel the task that runs this test, if there is one that has not ended."""
    runner = item.funcargs.get("_function_scoped_runner")
    if not isinstance(runner, asyncio.Runner):
        return
    code = item.function.__code__
    tasks = [task for task in asyncio.all_tasks(runner.get_loop()) if getattr(task.get_coro(), "cr_code", None) is code]
    for task in tasks:
        task.cancel()
        runner.run(asyncio.wait([task]))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, object, object]:
    """Make the report without the garbage collector."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return (yield)
    finally:
        if was_enabled:
            gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In CI, tell of a failure when it comes: the summary at the end may never be reached."""
    if report.failed and os.environ.get("CI") and not os.environ.get("PYTEST_XDIST_WORKER"):
        print(f"\n{report.nodeid} failed in {report.when}:\n{report.longreprtext}", file=sys.__stderr__, flush=True)
