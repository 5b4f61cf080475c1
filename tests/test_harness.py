"""The rules of tests/conftest.py and the pages of tests/harness fail what they should fail."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from textwrap import dedent

import anyio
import pytest
from harness.gates import PATIENCE
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
        markers = ["sim", "every_loop", "serial"]
        """
    )
    return pytester


def pages(inner: pytest.Pytester, text: str) -> pytest.RunResult:
    """Run `text` as a page."""
    inner.makeconftest((TESTS.parent / "docs" / "conftest.py").read_text())
    (inner.path / "page.md").write_text(dedent(text))
    return inner.runpytest_inprocess("page.md")


def test_a_failed_test_that_hangs_in_its_teardown_does_not_hang_the_run(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("CI", "true")
    inner.makepyfile(
        """
        import threading
        import pytest

        @pytest.fixture
        def stuck():
            yield
            threading.Event().wait()

        def test_fails(stuck):
            pytest.fail("first")

        def test_is_never_reached():
            pass
        """
    )
    result = inner.runpytest_subprocess("-o", "teardown_timeout=0.2", "-p", "no:cacheprovider", timeout=30)
    assert result.ret == 1
    told = result.stderr.str()
    assert "test_fails failed in call:" in told
    assert "Timeout (0:00:00.2" in told
    assert " in stuck\n" in told


def test_a_director_that_a_failed_test_leaves_open_is_closed_at_once(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import threading
        import pytest
        from director import Director
        from harness.gates import PATIENCE

        gate = threading.Event()

        @pytest.fixture
        async def director():
            director = Director("simulated:1")
            await director.start()
            yield director
            await director.close(grace=0)

        async def test_fails(director):
            director.submit(lambda _: gate.wait(PATIENCE))
            pytest.fail("before it opens the gate")

        async def test_passes(director):
            gate.set()
            job = director.submit(lambda _: 42)
            job.add_done_callback(lambda job: print("the result is", job.result()))
        """
    )
    result = inner.runpytest_inprocess("-s")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*the result is 42*", "*thread director:simulated:0/0 is left behind*"])


def test_a_test_that_the_hang_guard_has_failed_is_cancelled_before_its_teardown(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import asyncio
        import os
        import signal
        import threading
        import pytest

        @pytest.fixture
        async def fixture():
            yield
            print("then", "the teardown")

        async def test_hangs(fixture):
            signal.signal(signal.SIGUSR1, lambda *_: pytest.fail("as the hang guard does"))
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            try:
                await asyncio.Event().wait()
            finally:
                print("first", "the test")
        """
    )
    result = inner.runpytest_inprocess("-s")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*first the test*", "*then the teardown*"])


def test_a_test_that_is_skipped_has_no_teardown_to_fail(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import pytest

        @pytest.mark.skipif(True, reason="it is not for here")
        def test_is_skipped():
            pass
        """
    )
    inner.runpytest_inprocess().assert_outcomes(skipped=1)


def test_a_report_is_made_without_the_garbage_collector(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import gc

        class Told(Exception):
            def __str__(self):
                return f"collects: {gc.isenabled()}"

        def test_fails():
            raise Told

        def test_is_collected_again():
            assert gc.isenabled()
        """
    )
    result = inner.runpytest_inprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*collects: False*"])


def test_a_test_that_measures_time_has_three_tries(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import pytest
        tries = {"right": 0, "wrong": 0, "plain": 0}

        @pytest.fixture
        def fresh():
            return []

        @pytest.mark.serial
        async def test_right_at_the_last_try(fresh):
            tries["right"] += 1
            fresh.append(1)
            assert fresh == [1]
            assert tries["right"] == 3

        @pytest.mark.serial
        def test_wrong_each_time():
            tries["wrong"] += 1
            assert False

        def test_one_that_measures_nothing():
            tries["plain"] += 1
            assert False

        def test_tries():
            assert tries == {"right": 3, "wrong": 3, "plain": 1}
        """
    )
    inner.runpytest_inprocess().assert_outcomes(passed=2, failed=2)


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
            await asyncio.get_running_loop().run_in_executor(None, gate.wait, PATIENCE)
    gate.set()


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
