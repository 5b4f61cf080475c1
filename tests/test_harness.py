"""The rules of tests/conftest.py and the pages of tests/harness fail what they should fail."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from textwrap import dedent

import anyio
import pytest
from harness.sim_loop import SimLoop

TESTS = Path(__file__).parent


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project of its own, under the same rules."""
    monkeypatch.setattr("harness.leaks.GRACE", 0.0)
    pytester.makeconftest((TESTS / "conftest.py").read_text())
    pytester.makepyprojecttoml(
        """
        [tool.pytest.ini_options]
        asyncio_mode = "auto"
        asyncio_default_fixture_loop_scope = "function"
        filterwarnings = ["error"]
        markers = ["sim", "every_loop"]
        """
    )
    return pytester


def pages(inner: pytest.Pytester, text: str) -> pytest.RunResult:
    """Run `text` as a page."""
    inner.makeconftest((TESTS.parent / "docs" / "conftest.py").read_text())
    (inner.path / "page.md").write_text(dedent(text))
    return inner.runpytest_inprocess("page.md")


def test_a_thread_left_behind_is_named(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import threading
        gate = threading.Event()

        def test_leaves_a_thread():
            threading.Thread(target=gate.wait, name="director-cuda:0", daemon=True).start()

        def test_is_not_blamed():
            gate.set()

        def test_ends_its_thread():
            threading.Thread(target=gate.wait, name="director-cuda:0").start()

        def test_other_threads_are_none_of_our_business():
            threading.Thread(target=threading.Event().wait, name="pool", daemon=True).start()
        """
    )
    result = inner.runpytest_inprocess()
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaves_a_thread*", "thread director-cuda:0 is left*"])


def test_a_task_left_behind_is_named(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import asyncio

        async def test_leaves_a_task():
            global task
            task = asyncio.create_task(asyncio.Event().wait(), name="a worker")

        async def test_ends_its_task():
            await asyncio.create_task(asyncio.sleep(0))
        """
    )
    result = inner.runpytest_inprocess()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaves_a_task*", "task a worker is left behind*"])


def test_every_loop_is_asyncios_and_uvloops(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import asyncio, pytest

        @pytest.mark.every_loop
        async def test_loop():
            print("on", type(asyncio.get_running_loop()).__module__)
        """
    )
    result = inner.runpytest_inprocess("-s")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*on asyncio.unix_events*", "*on uvloop*"])


@pytest.mark.sim
async def test_an_hour_passes_in_an_instant() -> None:
    ends: list[tuple[int, float]] = []

    async def sleeper(name: int, seconds: float) -> None:
        await anyio.sleep(seconds)
        ends.append((name, asyncio.get_running_loop().time()))

    async with anyio.create_task_group() as group:
        for name, seconds in enumerate((3600, 1, 2)):
            group.start_soon(sleeper, name, seconds)
    assert ends == [(1, 1), (2, 2), (0, 3600)]


@pytest.mark.sim
async def test_time_waits_for_work_outside() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    gate = threading.Event()
    threading.Timer(0.01, gate.set).start()
    with loop.work_outside(), anyio.fail_after(1):
        await anyio.to_thread.run_sync(gate.wait)
    assert loop.time() == 0


@pytest.mark.sim
async def test_time_runs_away_from_work_that_is_not_announced() -> None:
    gate = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.get_running_loop().run_in_executor(None, gate.wait, 0.01)


def test_a_deadlock_in_virtual_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.sim_loop.PATIENCE", 0.01)
    with asyncio.Runner(loop_factory=SimLoop) as runner, pytest.raises(RuntimeError, match="Deadlock"):
        runner.run(asyncio.Event().wait())


# Pages. A stand-in Director: what matters is only that it is entered, used and closed once, on one loop.

DIRECTOR = """
        ```python
        import asyncio

        closed = []

        class Director:
            async def __aenter__(self):
                self.loop = asyncio.get_running_loop()
                return self
            async def __aexit__(self, kind, *_):
                assert asyncio.get_running_loop() is self.loop
                closed.append(kind)
            def submit(self):
                assert asyncio.get_running_loop() is self.loop
        ```
"""


def test_a_page_shares_names_and_loop_and_leaves_the_director_open(inner: pytest.Pytester) -> None:
    result = pages(
        inner,
        DIRECTOR
        + """
        ```python
        async with Director() as director:
            director.submit()
        ```
        ```bash
        exit 1
        ```
        ```python
        director.submit()
        ```
        ```python
        await asyncio.sleep(0)
        director.submit()
        assert closed == []
        ```
        ```python
        assert closed == [None]
        async with Director() as director:
            director.submit()
        ```
        ```python
        async def main():
            async with Director():
                return "main"
        assert asyncio.run(main()) == "main"
        assert closed == [None, None, None]
        ```
        """,
    )
    result.assert_outcomes(passed=6)


def test_a_page_fails_where_a_block_fails_and_the_director_learns_of_it(inner: pytest.Pytester) -> None:
    text = (
        DIRECTOR
        + """
        ```python
        async with Director() as director:
            1 / 0
        ```
        ```python
        assert closed == [ZeroDivisionError]
        ```
        """
    )
    result = pages(inner, text)
    result.assert_outcomes(passed=2, failed=1)
    line = text[: text.index("1 / 0")].count("\n") + 1
    result.stdout.fnmatch_lines([f"page.md:{line}: ZeroDivisionError"])
    result.stdout.no_fnmatch_line("*base_events*")


def test_a_page_fails_by_what_it_leaves_running(inner: pytest.Pytester) -> None:
    result = pages(
        inner,
        """
        ```python
        import asyncio
        task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")
        await asyncio.sleep(0)
        ```
        """,
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*task forgotten is left behind*"])


def test_a_warning_fails_a_page(inner: pytest.Pytester) -> None:
    result = pages(
        inner,
        """
        ```python
        import warnings
        warnings.warn("old", DeprecationWarning)
        ```
        """,
    )
    result.assert_outcomes(failed=1)


def test_a_skip_says_why(inner: pytest.Pytester) -> None:
    block = """
        ```python
        raise AssertionError
        ```
        """
    result = pages(inner, '<!--- skip: next "it needs a GPU" -->' + block)
    result.assert_outcomes(passed=1, skipped=1)  # the comment itself counts as run
    result = pages(inner, "<!--- skip: next -->" + block)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*page.md, line 1, column 1: say why*"])
