"""`as_executor`: a job may begin, end or be cancelled between any two steps of its submission by another thread."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, outcome, turns, until

from director import Director, DirectorClosed, JobTimeout
from director.events import JobFailed
from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director.events import Event

in_thread = asyncio.to_thread


class Hold:
    """A call hook that stops slots before their calls."""

    wants = ()

    def __init__(self) -> None:
        self.is_there, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self, _event: Event) -> None: ...

    @contextmanager
    def around_call(self, _jobs: Any) -> Iterator[None]:
        self.is_there.set()
        assert self.may_go_on.wait(PATIENCE)
        yield


async def test_a_job_whose_time_is_up_just_before_its_call_makes_none(caplog: pytest.LogCaptureFixture) -> None:
    hold, clock, calls = Hold(), TestClock(), []
    async with Director("simulated:1", hooks=[hold], clock=clock) as director:
        future = director.as_executor(timeout=1).submit(calls.append, 1)
        await until(hold.is_there.is_set)
        clock.advance(2)
        assert isinstance(await outcome(asyncio.wrap_future(future)), JobTimeout)
        hold.may_go_on.set()
    assert not calls
    assert not [record for record in caplog.records if record.levelname == "CRITICAL"]


async def test_a_call_that_ends_because_its_time_is_up_leaves_its_outcome_to_the_job() -> None:
    has_failed, has_ended, clock = threading.Event(), threading.Event(), TestClock()

    def hook(event: Event) -> None:
        if isinstance(event, JobFailed):  # the callbacks of the job come after its events
            has_failed.set()
            assert has_ended.wait(PATIENCE)

    def work() -> None:
        has_begun.set()
        assert has_failed.wait(PATIENCE)
        raise asyncio.CancelledError  # as a child that was asked to end

    async with Director("simulated:1", hooks=[hook], clock=clock) as director:
        has_begun = threading.Event()
        future = director.as_executor(timeout=1).submit(work)
        await until(has_begun.is_set)
        director.submit(lambda _: has_ended.set())  # begins when the outcome of the other is posted
        clock.advance(2)
        assert isinstance(await outcome(asyncio.wrap_future(future)), JobTimeout)


async def test_a_future_that_is_cancelled_during_its_submission_cancels_the_job(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        blocker = director.submit(gate)
        await gate.begun()
        executor: Any = director.as_executor()
        open_job = executor._open_job

        def open_and_cancel(*args: Any) -> Any:
            job = open_job(*args)
            executor.shutdown(wait=False, cancel_futures=True)
            return job

        executor._open_job = open_and_cancel
        future = await in_thread(executor.submit, int)
        await until(lambda: director.stats().cancelled)
        assert director.stats().queued == 0
        assert await in_thread(wait, [future], PATIENCE) == ({future}, set())
        gate.open()
        await blocker


async def test_a_future_has_an_outcome_though_the_director_closes_during_its_submission(gate: Gate) -> None:
    director, loop = Director("simulated:1"), asyncio.get_running_loop()
    await director.start()
    blocker = director.submit(gate)
    await gate.begun()
    executor: Any = director.as_executor()
    open_job = executor._open_job

    def open_and_close(*args: Any) -> Any:
        job = open_job(*args)
        asyncio.run_coroutine_threadsafe(director.close(0, 0), loop).result(PATIENCE)
        return job

    executor._open_job = open_and_close
    future = await in_thread(executor.submit, int)
    with pytest.raises(DirectorClosed):
        await in_thread(future.result, PATIENCE)
    gate.open()
    await outcome(blocker)


async def test_what_waits_for_a_cancelled_future_is_told_though_its_job_fails(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        blocker = director.submit(gate)
        await gate.begun()
        future = director.as_executor().submit(int)
        assert future.cancel()
        director._runtime.job_lifecycle.end_waiting()  # type: ignore[union-attr]  # before the loop cancels the job
        await turns()
        assert wait([future], 0).done == {future}
        gate.open()
        await blocker


async def test_a_future_may_be_cancelled_as_the_loop_is_closed(gate: Gate) -> None:
    class ClosedNow:
        def is_closed(self) -> bool:
            return False

        def call_soon_threadsafe(self, *_: Any) -> None:
            raise RuntimeError("Event loop is closed")

    async with Director("simulated:1") as director:
        blocker = director.submit(gate)
        await gate.begun()
        future: Any = director.as_executor().submit(int)
        future._loop = ClosedNow()
        assert future.cancel()
        gate.open()
        await blocker
