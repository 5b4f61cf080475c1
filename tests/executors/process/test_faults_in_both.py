"""Faults that end alike with threads and with processes. `tests/test_faults_page.py` says which test is for which."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, outcome, until

from director import (
    Director,
    DirectorClosed,
    DirectorState,
    Health,
    HealthRules,
    JobError,
    JobTimeout,
    Model,
    ProcessExecutor,
    QueueFull,
    WorkerDied,
)
from director._executors.process import child_process, termination
from director._executors.process.child_process import ChildProcess
from director._scheduler.scheduler import Scheduler
from executors.process import calls
from executors.process.leaks import is_alive, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(params=["thread", "process"])
def make(request: pytest.FixtureRequest) -> Callable[..., Director]:
    """A Director of either kind."""

    def build(devices: str = "cpu", **options: Any) -> Director:
        executor = ProcessExecutor(grace=0.1) if request.param == "process" else "thread"
        return Director(devices, executor=executor, **options)

    return build


async def test_what_can_not_be_pickled_is_an_error_all_the_same(make: Callable[..., Director]) -> None:
    async with make() as director:
        error = await outcome(director.submit(calls.throw_holding))
        assert isinstance(error, (calls.Holding, JobError))
        assert "it has a lock" in str(error)
        assert await director.run(calls.echo, 1) == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_what_would_end_a_program_ends_a_job(make: Callable[..., Director], error: BaseException) -> None:
    async with make() as director:
        assert type(await outcome(director.submit(calls.throw, error))) is type(error)
        assert await director.run(calls.echo, 1) == 1


async def test_an_item_fails_alone_if_the_function_says_so(make: Callable[..., Director]) -> None:
    async with make() as director:
        function = director.function(calls.half_broken, max_batch_size=4)
        found = await asyncio.gather(*(function.submit(n) for n in range(4)), return_exceptions=True)
    assert [isinstance(each, Exception) for each in found] == [n % 2 == 0 for n in range(4)]


async def test_an_item_fails_alone_if_failures_are_isolated(make: Callable[..., Director]) -> None:
    async with make() as director:
        function = director.function(calls.all_or_nothing, max_batch_size=4, isolate_failures=True)
        async with director.lease():
            jobs = [function.submit(n) for n in (1, 2, -3, 4)]
        found = await asyncio.gather(*jobs, return_exceptions=True)
    assert [each if isinstance(each, int) else type(each) for each in found] == [1, 2, ValueError, 4]


async def test_a_loader_that_fails_once_and_then_not(make: Callable[..., Director], tmp_path: Path) -> None:
    model = Model(calls.FlakyLoader(str(tmp_path / "once")))
    async with make() as director:
        assert isinstance(await outcome(director.submit(calls.weigh, model=model)), calls.Rich)
        assert await director.run(calls.weigh, model=model)


async def test_a_loader_that_always_fails_fails_each_job(make: Callable[..., Director]) -> None:
    model = Model(calls.fail_to_load)
    async with make() as director:
        for _ in range(3):
            assert isinstance(await outcome(director.submit(calls.weigh, model=model)), calls.Rich)
        assert await director.run(calls.echo, 1) == 1


async def test_a_loader_that_hangs_fails_its_job_at_the_deadline(make: Callable[..., Director], tmp_path: Path) -> None:
    """The slot is free when the loader comes back, if it does."""
    go = tmp_path / "go"
    model = Model(calls.HangingLoader(str(go)))
    async with make() as director:
        assert isinstance(await outcome(director.submit(calls.weigh, model=model, deadline=0.3)), JobTimeout)
        go.touch()
        assert await director.run(calls.weigh, model=model)


async def test_a_full_queue_refuses(make: Callable[..., Director], tmp_path: Path) -> None:
    async with make(max_queue=1) as director:
        jobs = [director.submit(calls.held, str(tmp_path / "go"), 1)]
        await until(lambda: director.stats().running == 1)
        jobs.append(director.submit(calls.echo, 2))
        with pytest.raises(QueueFull):
            director.submit(calls.echo, 3)
        (tmp_path / "go").touch()
        assert await asyncio.gather(*jobs) == [1, 2]


class Poison(BaseException):
    """What nobody catches."""


async def test_a_director_that_fails_fails_its_jobs_and_leaves_nothing(
    make: Callable[..., Director], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Poison

    monkeypatch.setattr(Scheduler, "pick_slots_to_start", fail)
    director = make()
    await director.start()
    jobs = [director.submit(calls.held, str(tmp_path / "go")) for _ in range(3)]
    errors = [await outcome(job) for job in jobs]
    assert all(isinstance(error, JobError) and isinstance(error.__cause__, Poison) for error in errors)
    assert director.state is DirectorState.FAILED
    with pytest.raises(DirectorClosed):
        director.submit(calls.echo)
    (tmp_path / "go").touch()
    await director.close()
    # The thread of the discovery is never joined: it may be on its last step still.
    await until(lambda: not any(thread.name.startswith("director") for thread in threading.enumerate()))


def test_a_loop_that_ends_under_a_director_leaves_nothing(make: Callable[..., Director], tmp_path: Path) -> None:
    def leave() -> None:
        director, loop = make(), asyncio.new_event_loop()

        async def begin() -> None:
            await director.start()
            job = director.submit(calls.held_talking, str(tmp_path / "go"))
            await until(lambda: job.progress)

        loop.run_until_complete(begin())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    def forget() -> None:
        leave()
        gc.collect()

    with pytest.warns(ResourceWarning, match="was never closed"):
        forget()
    (tmp_path / "go").touch()
    wait_until(lambda: not any(thread.name.startswith("director") for thread in threading.enumerate()))


# ---- of processes alone


async def test_jobs_that_lose_their_children_in_a_row_close_the_device() -> None:
    rules = HealthRules(failures=3, probation=0.05)
    async with Director("cpu", executor="process", health=rules) as director:
        for n in range(3):
            assert isinstance(await outcome(director.submit(calls.die, n)), WorkerDied)
        await until(lambda: director.stats().devices[0].health is Health.HEALTHY)
        assert await director.run(calls.echo, 1) == 1


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
async def test_a_child_that_not_even_sigkill_ends_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one is that waits for a driver."""
    monkeypatch.setattr(ChildProcess, "signal", lambda self, number: None)
    monkeypatch.setattr(termination, "_LOST", 0.1)
    monkeypatch.setattr(child_process, "_REAPING", 0.1)
    async with Director("cpu", executor=ProcessExecutor(grace=0.1)) as director:
        process = await director.run(calls.process_id)
        began = time.monotonic()
        job = director.submit(calls.stuck, timeout=0.2, retries=0)
        assert isinstance(await outcome(job), JobTimeout)
        assert await director.run(calls.process_id) != process
        assert time.monotonic() - began < PATIENCE
        assert is_alive(process)
        monkeypatch.undo()
        os.kill(process, signal.SIGKILL)
    assert f"process {process} of cpu:0 does not exit" in caplog.text
    with suppress(ChildProcessError):  # subprocess looks after it, now and then
        await asyncio.to_thread(os.waitpid, process, 0)


async def test_the_third_child_that_dies_before_it_begins_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class Stillborn(ChildProcess):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            started.append(self.pid)
            os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr("director._executors.process.runner.ChildProcess", Stillborn)
    async with Director("cpu", executor="process") as director:
        error = await outcome(director.submit(calls.echo, 1))
    assert isinstance(error, WorkerDied)
    assert error.exitcode == -signal.SIGKILL
    assert len(started) == 3
