"""Rules that every test is under; the hang guard and "warnings are errors" are in pyproject.toml."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from harness.leaks import tasks_left, threads_left
from harness.sim_loop import SimLoop
from hypothesis import settings
from pytest_asyncio import is_async_test

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping

pytest_plugins = ["pytester", "harness.failures", "harness.measured", "harness.fixtures"]
PART = 25  # percent
PROGRAMS = {"program", "python", "start"}

# No deadlines: a shared machine is slow now and then. In CI the same examples every time, elsewhere new ones.
# `max_examples` is a percentage of what each test asks for (harness/effort.py); the session `full` wants all.
settings.register_profile("dev", deadline=None, max_examples=PART)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True, max_examples=PART)
settings.register_profile("full", settings.get_profile("ci" if os.environ.get("CI") else "dev"), max_examples=100)
settings.load_profile(os.environ.get("DIRECTOR_TESTS") or ("ci" if os.environ.get("CI") else "dev"))

# What a terminal is shown depends on these; a test that wants one sets it.
for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE"):
    os.environ.pop(name, None)

# A shell that starts this in the background has SIGINT ignored here and in all children, and many tests press Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """`@pytest.mark.sim`: on virtual time. `@pytest.mark.every_loop`: on asyncio's own loop and on uvloop."""
    if item.get_closest_marker("sim"):
        return {"sim": SimLoop}
    if item.get_closest_marker("every_loop"):
        import uvloop

        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


def pytest_itemcollected(item: pytest.Item) -> None:
    """`programs`: what uses a fixture that starts processes, or has an executor that does as its parameter."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    in_process = any(type(value) is str and value == "process" for value in parameters)  # others are hostile
    if in_process or PROGRAMS & set(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.programs)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """What a test has written and logged is text, though it may have names of files that are no UTF-8."""
    report: Any = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a Director's threads running, or tasks on its loop."""
    before = set(threading.enumerate())
    if is_async_test(request.node):
        request.getfixturevalue("no_tasks_left_behind")
    yield
    if left := threads_left(before):
        pytest.fail(left, pytrace=False)


@pytest.fixture
async def no_tasks_left_behind() -> AsyncIterator[None]:
    yield
    if left := await tasks_left():
        pytest.fail(left, pytrace=False)
