"""`Director.close` in its five steps, `drain`, and the end of `async with`."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, Recorder, collected, outcome, turns, until

from director import (
    Director,
    DirectorClosed,
    DirectorState,
    JobAborted,
    JobState,
    JobTimeout,
    Model,
    check_cancelled,
    errors,
    events,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from director.testing import TestClock


class Loop:
    """A function that works in steps until it is told to end, as `check_cancelled` is meant to be used.

    Args:
        partial: What it then returns; without it, it ends with what `check_cancelled` has raised.
    """

    __name__ = "loop"

    def __init__(self, partial: Any = None) -> None:
        self.partial = partial
        self.begun = threading.Event()
        self.told: BaseException | None = None
        self.steps = 0
        self.is_over = threading.Event()

    def __call__(self, _resource: Any, *_args: Any) -> Any:
        self.begun.set()
        try:
            while not self.is_over.wait(0.001):
                self.steps += 1
                check_cancelled()
        except BaseException as error:
            self.told = error
            if self.partial is None:
                raise
        return self.partial


@pytest.fixture
async def loop() -> AsyncIterator[Loop]:
    loop = Loop()
    yield loop
    loop.is_over.set()


@pytest.fixture
async def director(clock: TestClock) -> AsyncIterator[Director]:
    director = Director("simulated:1", clock=clock)
    await director.start()
    yield director
    await director.close(0, grace=0)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ---- 1: nothing new is accepted


async def test_nothing_new_is_accepted(director: Director, gate: Gate) -> None:
    running = director.submit(gate)
    await gate.begun()
    closing = asyncio.create_task(director.close())
    await turns()
    with pytest.raises(DirectorClosed):
        director.submit(gate)
    with pytest.raises(DirectorClosed):
        await director.run(gate)
    gate.open()
    await closing
    assert running.done()


# ---- 2: until `timeout` all that was accepted runs


async def test_all_that_was_accepted_runs_untold(director: Director, loop: Loop, clock: TestClock) -> None:
    running, waiting = director.submit(loop), director.submit(lambda device: "ran")
    closing = asyncio.create_task(director.close(timeout=10))
    await until(loop.begun.is_set)
    clock.advance(9.9)
    steps = loop.steps
    await until(lambda: loop.steps > steps + 2)
    assert loop.told is None
    loop.is_over.set()
    await closing
    assert (running.state, waiting.result()) == (JobState.SUCCEEDED, "ran")


async def test_a_retry_is_part_of_what_was_accepted(director: Director, clock: TestClock) -> None:
    calls: list[int] = []

    def flaky(_device: Any) -> int:
        calls.append(1)
        if len(calls) == 1:
            raise OSError
        return len(calls)

    job = director.submit(flaky, retries=1, retry_on=OSError, backoff=1.0)
    await until(lambda: calls and job.state is JobState.QUEUED)
    closing = asyncio.create_task(director.close())
    await turns()
    clock.advance(1.0)
    await closing
    assert job.result() == 2


# ---- 3: then what waits fails, and what runs is told


async def test_what_waits_fails_with_director_closed(
    director: Director, gate: Gate, loop_errors: list[dict[str, Any]]
) -> None:
    running = director.submit(gate, 0)
    await gate.begun()
    jobs = [
        director.submit(gate, 1),
        director.submit(gate, 2, deadline=5, priority=1),
        director.submit(gate, 3, retries=1, when_full="wait"),
    ]
    jobs[0].add_done_callback(lambda _: gate.open())
    await director.close(0)
    assert [type(job.exception()) for job in jobs] == [DirectorClosed] * 3
    assert {job.state for job in jobs} == {JobState.FAILED}
    assert gate.items == [0]
    assert running.result() == 0
    del jobs
    assert loop_errors == []


async def test_nothing_is_logged_of_those_that_nobody_awaits(gate: Gate, loop_errors: list[dict[str, Any]]) -> None:
    """They would hide the exception by which the block was left."""
    async with Director("simulated:1") as director:
        director.submit(Loop())
        for _ in range(3):
            director.submit(gate)
        await director.close(0)
    await turns()
    assert loop_errors == []


async def test_it_counts_as_failed_and_the_hooks_are_told(gate: Gate, recorder: Recorder) -> None:
    director = Director("simulated:1", hooks=[recorder])
    await director.start()
    director.submit(gate)
    await gate.begun()
    waiting = director.submit(gate)
    waiting.add_done_callback(lambda _: gate.open())
    await director.close(0)
    stats = director.stats()
    assert (stats.succeeded, stats.failed, stats.cancelled, stats.rejected, stats.queued) == (1, 1, 0, 0, 0)
    (failed,) = recorder.of(events.JobFailed)
    assert (failed.job, type(failed.error), failed.ran) == (waiting.id, DirectorClosed, None)


async def test_a_task_group_does_not_swallow_it(director: Director, gate: Gate) -> None:
    director.submit(gate)
    await gate.begun()

    async def use() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(director.run(gate))
            await turns()
            group.create_task(director.close(0, grace=0))

    error = await outcome(use())
    assert isinstance(error, ExceptionGroup)
    assert [type(each) for each in error.exceptions] == [DirectorClosed]


async def test_after_the_timeout_running_jobs_are_told(director: Director, loop: Loop, clock: TestClock) -> None:
    job = director.submit(loop)
    await until(loop.begun.is_set)
    closing = asyncio.create_task(director.close(timeout=10, grace=PATIENCE))
    await turns()
    assert loop.told is None
    clock.advance(10)
    await closing
    assert isinstance(loop.told, asyncio.CancelledError)
    assert isinstance(job.exception(), JobAborted)


async def test_after_an_exception_in_the_block_they_are_told_at_once(loop: Loop) -> None:
    job: Any = None
    with suppress(ZeroDivisionError):
        async with Director("simulated:1") as director:
            job = director.submit(loop)
            await until(loop.begun.is_set)
            raise ZeroDivisionError
    assert isinstance(loop.told, asyncio.CancelledError)
    assert isinstance(job.exception(), JobAborted)
    assert job.exception().grace is None
    assert "ended early" in str(job.exception())


async def test_the_jobs_of_a_batch_are_told(director: Director, loop: Loop) -> None:
    function = director.function(loop, max_batch_size=4)
    jobs = [function.submit(n) for n in range(3)]
    await until(loop.begun.is_set)
    async with asyncio.timeout(PATIENCE):
        await director.close(0, grace=4 * PATIENCE)
    assert {type(job.exception()) for job in jobs} <= {JobAborted, DirectorClosed}
    assert isinstance(jobs[0].exception(), JobAborted)


async def test_a_stream_ends_at_its_next_value(director: Director, caplog: pytest.LogCaptureFixture) -> None:
    closed = threading.Event()

    def count(_device: Any) -> Iterator[int]:
        try:
            n = 0
            while True:
                yield (n := n + 1)
        finally:
            closed.set()

    values = director.stream(count, buffer=2)
    assert await anext(values) == 1
    async with asyncio.timeout(PATIENCE):
        await director.close(0, grace=4 * PATIENCE)
    assert closed.is_set()
    seen, error = await collected(values)
    assert seen == list(range(2, 2 + len(seen)))  # what was made before is not lost
    assert isinstance(error, JobAborted)
    assert warnings_of(caplog) == []


async def test_loads_end_likewise(director: Director, gate: Gate) -> None:
    begun, waits = (asyncio.create_task(director.load(Model(gate))) for _ in range(2))
    await gate.begun()
    await turns()
    await director.close(0, grace=0)
    assert isinstance(await outcome(begun), JobAborted)
    assert isinstance(await outcome(waits), DirectorClosed)


async def test_futures_of_an_executor_end_likewise(director: Director, loop: Loop) -> None:
    executor = director.as_executor()
    running = executor.submit(loop, None)
    await until(loop.begun.is_set)
    waiting = executor.submit(loop, None)
    await turns()
    await director.close(0, grace=PATIENCE)
    assert [type(future.exception()) for future in (running, waiting)] == [JobAborted, DirectorClosed]


async def test_what_a_function_raises_by_itself_is_its_outcome(director: Director) -> None:
    loop = Loop()

    def fail(device: Any) -> None:
        try:
            loop(device)
        except asyncio.CancelledError:
            raise KeyError("mine") from None

    job = director.submit(fail)
    await until(loop.begun.is_set)
    await director.close(0, grace=PATIENCE)
    assert isinstance(job.exception(), KeyError)


# ---- 4: for `grace` seconds a job that ends still delivers its result


async def test_a_job_that_ends_in_the_grace_delivers_its_result(
    director: Director, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(partial="half of it")
    job = director.submit(loop)
    await until(loop.begun.is_set)
    async with asyncio.timeout(PATIENCE):
        await director.close(0, grace=4 * PATIENCE)  # which ends with the job
    assert job.result() == "half of it"
    assert warnings_of(caplog) == []


async def test_one_that_is_not_told_may_end_too(director: Director, gate: Gate) -> None:
    job = director.submit(gate, "result")
    await gate.begun()
    closing = asyncio.create_task(director.close(0, grace=4 * PATIENCE))
    await turns()
    gate.open()
    await closing
    assert job.result() == "result"


# ---- 5: the rest fail


async def test_the_rest_fail_with_job_aborted(
    director: Director, gate: Gate, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    job = director.submit(gate, name="stuck")
    await gate.begun()
    await director.close(0, grace=0.01)
    error = job.exception()
    assert isinstance(error, JobAborted)
    assert isinstance(error, errors.JobError)
    assert (error.grace, job.state) == (0.01, JobState.FAILED)
    assert "0.01 s later" in str(error)
    (warning,) = warnings_of(caplog)
    assert "'stuck'" in warning
    assert "abandoned" in warning
    assert (director.stats().failed, director.stats().running) == (1, 0)


async def test_a_lease_that_is_not_left_fails(director: Director) -> None:
    left = asyncio.Event()

    async def hold() -> None:
        async with director.lease():
            await left.wait()

    holder = asyncio.create_task(hold())
    await until(lambda: director.stats().running)
    await director.close(0, grace=0)
    assert director.stats().failed == 1
    left.set()
    await holder


# ---- a call whose job is over already


async def over(director: Director, gate: Gate, clock: TestClock, way: str) -> Any:
    """A job that has ended, whose call goes on."""
    job = director.submit(gate, timeout=5 if way == "timed out" else None)
    await gate.begun()
    if way == "timed out":
        clock.advance(5)
    elif way == "caller gone":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job, 0.001)
    else:
        job.cancel()
    assert job.done()
    return job


WAYS = pytest.mark.parametrize("way", ["timed out", "caller gone", "cancelled"])


@WAYS
async def test_it_is_waited_for_in_the_grace_only(
    director: Director, gate: Gate, clock: TestClock, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = await over(director, gate, clock, way)
    ended = type(job.exception()) if not job.cancelled() else None
    async with asyncio.timeout(PATIENCE):
        await director.close(timeout=None, grace=0.01)
    assert ended is (JobTimeout if way == "timed out" else None)
    (warning,) = warnings_of(caplog)
    assert "abandoned" in warning


async def test_leaving_the_block_does_not_wait_for_it_without_end(gate: Gate, clock: TestClock) -> None:
    async with asyncio.timeout(PATIENCE):
        async with Director("simulated:1", clock=clock) as director:
            await over(director, gate, clock, "timed out")
    assert director.state is DirectorState.CLOSED


async def test_it_may_end_in_the_grace(
    director: Director, gate: Gate, clock: TestClock, caplog: pytest.LogCaptureFixture
) -> None:
    await over(director, gate, clock, "cancelled")
    closing = asyncio.create_task(director.close(grace=4 * PATIENCE))
    await turns()
    assert not closing.done()
    gate.open()
    await closing
    assert warnings_of(caplog) == []


@WAYS
async def test_drain_does_not_wait_for_it(director: Director, gate: Gate, clock: TestClock, way: str) -> None:
    await over(director, gate, clock, way)
    async with asyncio.timeout(PATIENCE):
        await director.drain()
    assert director.state is DirectorState.DRAINING
    assert director.stats().devices[0].busy == 1


async def test_what_waits_for_its_slot_still_runs(director: Director, gate: Gate, clock: TestClock) -> None:
    await over(director, gate, clock, "cancelled")
    waiting = director.submit(lambda device: "ran")
    closing = asyncio.create_task(director.close())
    await turns()
    assert not closing.done()
    gate.open()
    await closing
    assert waiting.result() == "ran"


async def test_a_stuck_batch_of_which_one_caller_waits_is_waited_for(director: Director, gate: Gate) -> None:
    function = director.function(lambda device, items: [gate(device, item) for item in items], max_batch_size=2)
    first = director.submit(gate)
    await gate.begun()
    jobs = [function.submit(n) for n in range(2)]
    gate.let(1)
    await first
    await gate.begun()
    jobs[0].cancel()
    draining = asyncio.create_task(director.drain())
    await turns()
    assert not draining.done()
    gate.open()
    await draining
    assert jobs[1].result() == 1


# ---- cancelling the close, and several of them


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_close_goes_to_step_three_at_once_and_closes_wholly(
    director: Director, loop: Loop, times: int
) -> None:
    running, waiting = director.submit(loop), director.submit(loop)
    await until(loop.begun.is_set)
    closing = asyncio.create_task(director.close(grace=PATIENCE))
    await turns()
    for _ in range(times):
        closing.cancel()
        await turns(1)
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert director.state is DirectorState.CLOSED
    assert [type(job.exception()) for job in (running, waiting)] == [JobAborted, DirectorClosed]


async def test_a_second_close_may_shorten_the_grace_of_the_first(director: Director, gate: Gate) -> None:
    job = director.submit(gate)
    await gate.begun()
    patient = asyncio.create_task(director.close(0, grace=1000))
    await turns()
    assert not patient.done()
    async with asyncio.timeout(PATIENCE):
        await director.close(0, grace=0)
        await patient
    assert isinstance(job.exception(), JobAborted)


@pytest.mark.parametrize("odd", ["1", None, True, float("nan")])
async def test_the_grace_is_a_number(director: Director, odd: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="grace"):
        await director.close(grace=odd)
    assert director.state is DirectorState.OPEN


async def test_an_infinite_grace_is_a_very_long_one(director: Director, gate: Gate) -> None:
    director.submit(gate)
    await gate.begun()
    closing = asyncio.create_task(director.close(-1, grace=float("inf")))
    await turns()
    assert not closing.done()
    gate.open()
    await closing


# ---- the end of the program

ENDING = """
import asyncio, time
from director import Director

def hang(device):
    time.sleep(1000)

async def main():
    async with Director("cpu:1", executor={executor!r}) as director:
        try:
            await asyncio.wait_for(director.run(hang), {limit})
        except TimeoutError:
            print("timed out", director.stats().devices[0].busy)

if __name__ == "__main__":
    asyncio.run(main())
    print("ended")
"""


@pytest.mark.parametrize(("executor", "limit"), [("thread", 0.2), ("process", 2.0)])
def test_a_program_ends_whose_call_never_does(executor: str, limit: float, python: Callable[[str], str]) -> None:
    said = python(ENDING.format(executor=executor, limit=limit))
    assert "timed out 1" in said
    assert "ended\n" in said
    assert "Traceback" not in said
