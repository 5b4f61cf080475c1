"""`start_within`: how long a job may wait for its first attempt to begin, its model loaded."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, Recorder, collected, outcome, rested, turns, until

from director import (
    Device,
    Director,
    Job,
    JobState,
    JobTimeout,
    Model,
    check_cancelled,
    current_job,
)
from director.events import JobFailed, JobStarted
from public.streams import Boom, Source

if TYPE_CHECKING:
    from director.testing import TestClock


def same(_resource: Any, value: Any = None) -> Any:
    return value


async def busy(director: Director, gate: Gate) -> Job[Any]:
    """Take a slot."""
    job = director.submit(gate)
    await gate.begun()
    return job


def timed_out(error: BaseException, seconds: float) -> bool:
    """Whether it is the error of a job that did not begin in time."""
    assert isinstance(error, JobTimeout)
    return (error.phase, error.option, error.seconds) == ("queued", "start_within", seconds)


# ---- the wait for a slot


async def test_a_job_that_does_not_begin_in_time_never_runs(gate: Gate, clock: TestClock, recorder: Recorder) -> None:
    async with Director("simulated:1", clock=clock, hooks=[recorder]) as director:
        await busy(director, gate)
        job = director.submit(same, start_within=5)
        clock.advance(4.9)
        assert job.state is JobState.QUEUED
        clock.advance(0.1)
        assert job.state is JobState.FAILED  # at once, not when its turn comes
        assert timed_out(await outcome(job), 5)
        assert (job.device, job.waited, job.ran, job.attempts) == (None, 5, None, 0)
        assert (director.stats().queued, director.stats().failed) == (0, 1)
        gate.open()
    assert len(recorder.of(JobStarted)) == 1
    assert [event.error for event in recorder.of(JobFailed)] == [job.exception()]


async def test_one_that_has_begun_may_run_for_longer(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(gate, 1, start_within=5)
        await gate.begun()
        await turns()
        clock.advance(100)
        await turns()
        assert job.state is JobState.RUNNING
        gate.open()
        assert await job == 1


@pytest.mark.parametrize(("deadline", "option"), [(3, "deadline"), (7, "start_within")])
async def test_the_deadline_counts_beside_it(gate: Gate, clock: TestClock, deadline: float, option: str) -> None:
    async with Director("simulated:1", clock=clock) as director:
        await busy(director, gate)
        job = director.submit(same, start_within=5, deadline=deadline)
        clock.advance(5)
        error = await outcome(job)
        assert isinstance(error, JobTimeout)
        assert (error.phase, error.option, job.waited) == ("queued", option, min(deadline, 5))
        gate.open()


async def test_the_deadline_counts_after_the_start(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(gate, start_within=5, deadline=7)
        await gate.begun()
        await turns()
        clock.advance(6.9)
        assert job.state is JobState.RUNNING
        clock.advance(0.1)
        error = await outcome(job)
        assert isinstance(error, JobTimeout)
        assert (error.phase, error.option, error.seconds) == ("running", "deadline", 7)
        gate.open()


async def test_a_worker_that_comes_too_late_does_not_begin_it(clock: TestClock) -> None:
    """The timer of a busy event loop may be late: the worker reads the clock itself."""
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(same, start_within=5)
        clock._now = 5.0  # the timer is due and has not been called
        assert timed_out(await outcome(job), 5)
        assert (job.device, job.attempts) == (None, 0)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(0, ValueError), (-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)],
)
async def test_what_is_no_number_of_seconds_is_refused(wrong: Any, error: type[Exception]) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(error, match="start_within"):
            director.submit(same, start_within=wrong)
        assert await director.run(same, 1, start_within=None) == 1


# ---- of every kind of job


async def test_every_kind_of_job_has_it(gate: Gate, clock: TestClock) -> None:
    source = Source()
    async with Director("simulated:1", clock=clock) as director:
        await busy(director, gate)
        bound = director.function(same, start_within=5)

        async def lease() -> None:
            async with director.lease(start_within=5):
                raise AssertionError("there is no slot")

        executor = director.as_executor(start_within=5)
        waits: list[Any] = [
            director.run(same, 1, start_within=5),
            collected(director.stream(source, start_within=5)),
            collected(director.map(same, [1], start_within=5)),
            bound(1),
            bound.with_options(start_within=5).submit(1),
            lease(),
            asyncio.wrap_future(executor.submit(int)),
        ]
        tasks = [asyncio.ensure_future(outcome(each)) for each in waits]
        await turns()
        assert director.stats().queued == len(waits)
        clock.advance(5)
        found = [each[1] if isinstance(each, tuple) else each for each in await asyncio.gather(*tasks)]
        assert all(timed_out(error, 5) for error in found)
        gate.open()
    assert source.made == 0


async def test_an_item_of_a_batch_whose_time_is_up_is_not_taken(gate: Gate, clock: TestClock) -> None:
    calls = []

    def double(_device: Device, items: list[int]) -> list[int]:
        calls.append(items)
        return [2 * item for item in items]

    async with Director("simulated:1", clock=clock) as director:
        f = director.function(double, max_batch_size=3)
        await busy(director, gate)
        late = f.with_options(start_within=5).submit(0)
        others = [f.submit(item) for item in (1, 2, 3)]
        clock._now = 5.0  # the timer is due and has not been called
        gate.open()
        assert await asyncio.gather(*others) == [2, 4, 6]
        assert timed_out(await outcome(late), 5)
    assert calls == [[1, 2, 3]], "it takes no place in the batch either"


async def test_a_batch_is_held_no_longer_than_its_items_may_wait(clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        f = director.function(lambda device, items: items, max_batch_size=8, max_wait=60)
        job = f.with_options(start_within=5).submit(1)
        await turns()
        clock.advance(4.9)
        await turns()
        assert job.state is JobState.QUEUED
        clock.advance(0.099)
        assert await job == 1


# ---- the load of its model


class Loader:
    """A loader that says when it begins, and ends when it is let through."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.error: Exception | None = None

    def __call__(self, device: Device) -> str:
        self.gate(device)
        check_cancelled()  # does nothing in a load, which is for other jobs too
        if self.error is not None:
            raise self.error
        return f"replica on {device.label}"


async def test_one_whose_model_still_loads_never_runs_and_the_load_goes_on(
    gate: Gate, clock: TestClock, recorder: Recorder
) -> None:
    called: list[Any] = []
    model = Model(Loader(gate))
    async with Director("simulated:1", clock=clock, hooks=[recorder]) as director:
        job = director.submit(called.append, model=model, start_within=5)
        await gate.begun()
        clock.advance(4.9)
        assert not job.done()
        clock.advance(0.1)
        assert job.done()  # at once, though its slot is taken
        assert timed_out(await outcome(job), 5)
        assert (job.device, job.waited, job.ran, job.attempts) == (None, 5, None, 0)
        assert director.stats().devices[0].busy == 1
        gate.open()
        await rested(director)
        assert director.stats().devices[0].models == (model.name,)
        assert await director.run(same, 1, model=model, start_within=5) == 1
        assert (director.stats().failed, director.stats().succeeded) == (1, 1)
    assert called == []
    assert gate.finished == 1
    assert len(recorder.of(JobStarted)) == 1


async def test_one_whose_model_is_loaded_in_time_runs_and_has_waited_for_it(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(lambda replica: replica, model=Model(Loader(gate)), start_within=5, timeout=3)
        await gate.begun()
        clock.advance(4)
        gate.open()
        assert await job == "replica on simulated:0"
        assert (job.waited, job.ran) == (4, 0)


async def test_jobs_without_it_run_when_the_load_is_over(gate: Gate, clock: TestClock) -> None:
    model = Model(Loader(gate))
    async with Director("simulated:1", clock=clock) as director:
        late = director.submit(same, 1, model=model, start_within=5)
        other = director.submit(same, 2, model=model)
        await gate.begun()
        clock.advance(5)
        gate.open()
        assert timed_out(await outcome(late), 5)
        assert await other == 2
    assert gate.finished == 1


async def test_in_a_batch_only_those_whose_time_is_up_fail(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        hold = Gate()
        await busy(director, hold)
        f = director.function(lambda replica, items: items, model=Model(Loader(gate)), max_batch_size=4)
        jobs = [f.submit(0), f.with_options(start_within=5).submit(1), f.with_options(start_within=50).submit(2)]
        hold.open()
        await gate.begun()
        clock.advance(5)
        assert timed_out(await outcome(jobs[1]), 5)
        gate.open()
        assert [await jobs[0], await jobs[2]] == [0, 2]


async def test_a_deadline_that_passes_during_the_load_ends_the_wait_too(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(same, 1, model=Model(Loader(gate)), start_within=5, deadline=3)
        await gate.begun()
        clock.advance(3)
        error = await outcome(job)
        assert isinstance(error, JobTimeout)
        assert (error.phase, error.option) == ("queued", "deadline")
        gate.open()


async def test_a_job_that_is_cancelled_during_the_load_is_not_called(gate: Gate) -> None:
    called: list[Any] = []
    model = Model(Loader(gate))
    async with Director("simulated:1") as director:
        job = director.submit(called.append, model=model, start_within=50)
        await gate.begun()
        assert job.cancel()
        gate.open()
        await rested(director)
        assert director.stats().devices[0].models == (model.name,)
    assert called == []
    assert job.cancelled()


@pytest.mark.parametrize("size", [1, 4])
async def test_what_the_loader_raises_is_the_error_of_its_jobs(gate: Gate, size: int) -> None:
    loader = Loader(gate)
    loader.error = Boom("no memory")
    gate.open()
    options: Any = {"max_batch_size": size} if size > 1 else {}
    async with Director("simulated:1") as director:
        f = director.function(lambda replica, items: items, model=Model(loader), start_within=50, **options)
        for error in await asyncio.gather(*[f(item) for item in range(3)], return_exceptions=True):
            assert isinstance(error, Boom)
        assert director.stats().failed == 3


async def test_a_lease_of_a_model_waits_for_the_load_no_longer(gate: Gate, clock: TestClock) -> None:
    async def lease() -> None:
        async with director.lease(model=model, start_within=5):
            raise AssertionError("its model is not loaded")

    model = Model(Loader(gate))
    async with Director("simulated:1", clock=clock) as director:
        waiting = asyncio.ensure_future(outcome(lease()))
        await gate.begun()
        clock.advance(5)
        assert timed_out(await waiting, 5)
        gate.open()


async def test_a_stream_whose_model_still_loads_never_runs(gate: Gate, clock: TestClock) -> None:
    source = Source()
    async with Director("simulated:1", clock=clock) as director:
        values = director.stream(source, model=Model(Loader(gate)), start_within=5)
        await gate.begun()
        clock.advance(5)
        seen, error = await collected(values)
        assert seen == []
        assert error is not None
        assert timed_out(error, 5)
        gate.open()
    assert source.made == 0


# ---- only the first attempt


async def test_only_the_first_attempt_counts(clock: TestClock) -> None:
    attempts = []

    def fail_once(_device: Device) -> int:
        attempts.append(current_job().attempts)
        if len(attempts) == 1:
            raise Boom
        return len(attempts)

    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(fail_once, start_within=5, retries=1, retry_on=Boom, backoff=10)
        await until(lambda: attempts == [1] and job.state is JobState.QUEUED)
        clock.advance(9.9)
        assert job.state is JobState.QUEUED
        clock.advance(0.1)
        assert await job == 2


async def test_one_that_did_not_begin_in_time_is_not_tried_again(clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(same, start_within=5, retries=3, retry_on=TimeoutError)
        clock._now = 5.0  # so that the worker says it first
        assert timed_out(await outcome(job), 5)
        assert job.attempts == 0


# ---- its error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (JobTimeout("queued", "start_within", 0.5), r"did not begin in time \(start_within=0.5\); it never ran"),
        (JobTimeout("queued", "deadline", 2), "deadline passed while the job waited; it never ran"),
        (JobTimeout("running", "timeout", 3), "Time was up while the job ran;"),
        (JobTimeout("running"), "Time was up while the job ran;"),
    ],
)
def test_the_error_names_the_option(error: JobTimeout, text: str) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.phase, copy.option, copy.seconds) == (error.phase, error.option, error.seconds)
    with pytest.raises(JobTimeout, match=text):
        raise copy
