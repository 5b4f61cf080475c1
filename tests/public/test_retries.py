"""Retries: which failures are worth another try, when and where it is made, and who may interrupt it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, Recorder, outcome, turns, until

from director import (
    DeviceLost,
    Director,
    DirectorClosed,
    JobState,
    JobTimeout,
    Model,
    WorkerDied,
    check_cancelled,
    current_device,
    current_job,
)
from director.events import JobCancelled, JobFailed, JobRetried, JobStarted, JobSubmitted, JobSucceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from director import Device
    from director.testing import TestClock


class Flaky:
    """A function that fails a number of times, each time with a new error, and then returns the number of its calls.

    Args:
        failures: How often it fails.
        error: Makes what it raises.
        clock: If given, the moment of each call is noted.
    """

    __name__ = "flaky"

    def __init__(
        self, failures: int, error: Callable[[], BaseException] = OSError, clock: TestClock | None = None
    ) -> None:
        self._failures = failures
        self._make_error = error
        self._clock = clock
        self.errors: list[BaseException] = []
        self.devices: list[Device] = []
        self.moments: list[float] = []

    def __call__(self, *_: object) -> int:
        self.devices.append(current_device())
        if self._clock is not None:
            self.moments.append(self._clock.time())
        if len(self.errors) < self._failures:
            self.errors.append(self._make_error())
            raise self.errors[-1]
        return len(self.devices)

    @property
    def calls(self) -> int:
        return len(self.devices)


async def waits_again(flaky: Flaky, director: Director, calls: int) -> None:
    """Wait until so many calls have failed and the job waits for its next one."""
    await until(lambda: flaky.calls == calls and director.stats().queued == 1)


# ---- which failures


async def test_an_error_that_is_named_is_worth_another_try() -> None:
    flaky = Flaky(2)
    async with Director("simulated:1") as director:
        job = director.submit(flaky, retries=3, retry_on=OSError)
        assert await job == 3
        assert (job.attempts, job.state) == (3, JobState.SUCCEEDED)


async def test_an_error_of_a_subclass_and_one_of_several_named() -> None:
    async with Director("simulated:1") as director:
        assert await director.run(Flaky(1, ConnectionResetError), retries=1, retry_on=(KeyError, OSError)) == 2


async def test_an_explicit_none_takes_the_errors_of_a_function_back() -> None:
    async with Director("simulated:1") as director:
        function = director.function(Flaky(1, OSError), retries=1, retry_on=OSError)
        assert isinstance(await outcome(director.submit(function, retry_on=None)), OSError)
        assert isinstance(await outcome(director.submit(Flaky(1, OSError), retry_on=None)), OSError)


@pytest.mark.parametrize("options", [{}, {"retries": 5}, {"retries": 5, "retry_on": KeyError}])
async def test_other_errors_end_the_job(options: dict[str, Any]) -> None:
    flaky = Flaky(1)
    async with Director("simulated:1") as director:
        job = director.submit(flaky, **options)
        assert await outcome(job) is flaky.errors[0]
        assert (flaky.calls, job.attempts) == (1, 1)


async def test_after_the_last_try_the_job_fails_with_its_error() -> None:
    flaky = Flaky(9)
    async with Director("simulated:2") as director:
        job = director.submit(flaky, retries=2, retry_on=OSError)
        assert await outcome(job) is flaky.errors[-1]
        assert (flaky.calls, job.attempts, job.state) == (3, 3, JobState.FAILED)
        stats = director.stats()
        assert (stats.queued, stats.running, stats.succeeded, stats.failed) == (0, 0, 0, 1)


@pytest.mark.parametrize("lost", [lambda: WorkerDied(-9, current_device()), lambda: DeviceLost(current_device())])
async def test_a_lost_worker_or_device_needs_no_name(lost: Callable[[], BaseException]) -> None:
    flaky = Flaky(1, lost)
    async with Director("simulated:3") as director:
        assert await director.run(flaky, retries=1) == 2
    assert flaky.devices[0] != flaky.devices[1]


async def test_what_is_no_exception_in_the_narrow_sense_may_be_named_too() -> None:
    async with Director("simulated:1") as director:
        assert await director.run(Flaky(1, lambda: SystemExit(3)), retries=1, retry_on=SystemExit) == 2
        assert await director.run(Flaky(1, asyncio.CancelledError), retries=1, retry_on=asyncio.CancelledError) == 2


async def test_stop_iteration_may_be_named_and_is_no_runtime_error() -> None:
    async with Director("simulated:1") as director:
        assert await director.run(Flaky(1, StopIteration), retries=1, retry_on=StopIteration) == 2
        flaky = Flaky(1, StopIteration)
        error = await outcome(director.submit(flaky, retries=1, retry_on=RuntimeError))
        assert isinstance(error, RuntimeError)
        assert error.__cause__ is flaky.errors[0]
        assert flaky.calls == 1


async def test_a_passed_deadline_is_no_error_of_the_function(clock: TestClock, gate: Gate) -> None:
    flaky = Flaky(0)
    async with Director("simulated:1", clock=clock) as director:
        director.submit(gate)
        await gate.begun()
        job = director.submit(flaky, deadline=1.0, retries=5, retry_on=Exception)
        clock.advance(1.0)
        error = await outcome(job)
        assert isinstance(error, JobTimeout)
        assert error.phase == "queued"
        gate.open()
    assert flaky.calls == 0


async def test_a_timeout_is_no_error_of_the_function(clock: TestClock, gate: Gate) -> None:
    async with Director("simulated:2", clock=clock) as director:
        job = director.submit(gate, timeout=1.0, retries=5, retry_on=(TimeoutError, JobTimeout))
        await gate.begun()
        clock.advance(1.0)
        assert isinstance(await outcome(job), JobTimeout)
        gate.open()
    assert len(gate.calls) == 1


async def test_a_cancelled_job_that_leaves_by_its_cancellation_is_not_tried_again() -> None:
    gates: list[int] = []
    begun, may_look = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def obedient(_: object) -> None:
        gates.append(1)
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(may_look.wait(), loop).result(PATIENCE)
        check_cancelled()

    async with Director("simulated:2") as director:
        job = director.submit(obedient, retries=5, retry_on=BaseException)
        await begun.wait()
        job.cancel()
        may_look.set()
    assert gates == [1]
    assert job.state is JobState.CANCELLED


async def test_very_many_tries() -> None:
    """Doubling a back-off as often would leave the range of floats."""
    async with Director("simulated:2") as director:
        job = director.submit(Flaky(3000), retries=10**9, retry_on=OSError)
        assert await asyncio.wait_for(job, PATIENCE) == 3001


# ---- where


async def test_another_device_is_used_though_the_one_that_failed_is_free() -> None:
    flaky = Flaky(1)
    async with Director("simulated:2") as director:
        job = director.submit(flaky, retries=1, retry_on=OSError)
        await job
        assert job.device == flaky.devices[1] != flaky.devices[0]


async def test_it_waits_for_another_device_if_that_is_taken(gate: Gate) -> None:
    flaky = Flaky(1)
    async with Director("simulated:2") as director:
        director.submit(gate, devices=1)
        await gate.begun()
        job = director.submit(flaky, devices=[0, 1], retries=1, retry_on=OSError)
        await waits_again(flaky, director, 1)
        assert not job.done()
        gate.open()
        await job
        assert [device.index for device in flaky.devices] == [0, 1]


async def test_the_same_device_is_used_if_there_is_no_other_that_it_may_use() -> None:
    async with Director("simulated:2") as director:
        flaky = Flaky(3)
        await director.run(flaky, devices=1, retries=3, retry_on=OSError)
        assert [device.index for device in flaky.devices] == [1, 1, 1, 1]
        flaky = Flaky(1)
        model = Model(lambda device: device, devices=0)
        await director.run(flaky, model=model, retries=1, retry_on=OSError)
        assert [device.index for device in flaky.devices] == [0, 0]


async def test_each_try_only_avoids_the_device_of_the_one_before() -> None:
    flaky = Flaky(5)
    async with Director("simulated:2") as director:
        await director.run(flaky, retries=5, retry_on=OSError)
    first, second = flaky.devices[:2]
    assert flaky.devices == [first, second] * 3


async def test_all_slots_of_the_device_are_avoided() -> None:
    async with Director("simulated:2", slots=4) as director:
        for _ in range(10):
            flaky = Flaky(1)
            await director.run(flaky, retries=1, retry_on=OSError)
            assert flaky.devices[0] != flaky.devices[1]


# ---- when


async def test_without_a_back_off_it_is_at_once(clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        assert await director.run(Flaky(3), retries=3, retry_on=OSError) == 4
    assert clock.time() == 0.0


async def test_the_back_off_doubles(clock: TestClock) -> None:
    flaky = Flaky(3, clock=clock)
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(flaky, retries=3, retry_on=OSError, backoff=1.0)
        for calls, delay in ((1, 1.0), (2, 2.0), (3, 4.0)):
            await waits_again(flaky, director, calls)
            clock.advance(delay - 0.25)
            await turns()
            assert (flaky.calls, job.state, job.attempts) == (calls, JobState.QUEUED, calls)
            clock.advance(0.25)
            await until(lambda calls=calls: flaky.calls > calls)  # type: ignore[misc]
        assert await job == 4
    assert flaky.moments == [0.0, 1.0, 3.0, 7.0]


async def test_it_goes_before_its_equals_and_behind_its_betters(gate: Gate) -> None:
    order: list[str] = []
    flaky = Flaky(1)

    def note(_: object, name: str) -> None:
        order.append(name)

    def again(_: object) -> None:
        gate(_)
        order.append("again")
        flaky()

    async with Director("simulated:1") as director:
        jobs = [director.submit(again, retries=1, retry_on=OSError)]
        await gate.begun()
        jobs.append(director.submit(note, "equal"))
        jobs.append(director.submit(note, "better", priority=1))
        gate.open()
        await asyncio.gather(*jobs)
    assert order in (["again", "better", "again", "equal"], ["again", "better", "equal", "again"])


async def test_a_try_that_could_not_begin_before_the_deadline_is_not_made(clock: TestClock) -> None:
    flaky = Flaky(9, clock=clock)
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(flaky, retries=9, retry_on=OSError, backoff=1.0, deadline=3.0)
        await waits_again(flaky, director, 1)
        clock.advance(1.0)
        assert await outcome(job) is flaky.errors[-1]  # the third would begin at 3.0
        assert clock.time() == 1.0
    assert flaky.moments == [0.0, 1.0]


async def test_the_deadline_counts_for_all_tries(clock: TestClock, gate: Gate) -> None:
    flaky = Flaky(9)
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(flaky, retries=9, retry_on=OSError, backoff=1.0, deadline=2.5)
        await waits_again(flaky, director, 1)
        director.submit(gate)
        await gate.begun()
        clock.advance(2.0)  # its time has come, and the slot is taken
        assert director.stats().queued == 1
        clock.advance(0.5)
        error = await outcome(job)
        assert isinstance(error, JobTimeout)
        assert error.phase == "queued"
        gate.open()
    assert flaky.calls == 1


async def test_the_timeout_counts_for_each_try(clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        calls: list[int] = []

        def slow(_: object) -> str:
            calls.append(1)
            clock._now += 0.75
            if len(calls) < 4:
                raise OSError
            return "done"

        job = director.submit(slow, retries=5, retry_on=OSError, timeout=1.0)
        assert await job == "done"
        assert job.ran == 0.75


async def test_a_timeout_of_an_earlier_try_does_not_end_a_later_one(clock: TestClock, gate: Gate) -> None:
    calls: list[int] = []

    def first_fails(device: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError
        gate(device)

    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(first_fails, retries=1, retry_on=OSError, timeout=2.0, backoff=1.0)
        await until(lambda: calls and director.stats().queued == 1)
        clock.advance(1.0)
        await gate.begun()
        clock.advance(1.5)  # two and a half after the first began
        assert job.state is JobState.RUNNING
        gate.open()
        await job
        assert job.waited == 1.0


# ---- who interrupts


async def test_cancelled_during_the_back_off_it_is_over_at_once(clock: TestClock, no_gc: None) -> None:
    class Argument:
        pass

    flaky = Flaky(1)
    argument = Argument()
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(flaky, argument, retries=1, retry_on=OSError, backoff=3600.0)
        kept = weakref.ref(argument)
        del argument
        await waits_again(flaky, director, 1)
        flaky.errors.clear()
        assert job.cancel()
        assert job.state is JobState.CANCELLED
        assert kept() is None
        handle = weakref.ref(job)
        del job
        await turns()
        assert handle() is None, "kept until its next try would have come"
        clock.advance(3600.0)
        await turns()
        assert director.stats().cancelled == 1
    assert flaky.calls == 1


async def test_drain_waits_for_the_tries_that_are_left(clock: TestClock) -> None:
    flaky = Flaky(1)
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(flaky, retries=1, retry_on=OSError, backoff=5.0)
        await waits_again(flaky, director, 1)
        draining = asyncio.ensure_future(director.drain())
        await turns()
        assert not draining.done()
        clock.advance(5.0)
        await draining
        assert await job == 2


async def test_a_close_that_is_out_of_time_fails_what_waits_for_its_next_try(clock: TestClock) -> None:
    flaky = Flaky(1)
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(flaky, retries=1, retry_on=OSError, backoff=5.0)
        await waits_again(flaky, director, 1)
        closing = asyncio.ensure_future(director.close(timeout=1.0))
        await turns()
        clock.advance(1.0)
        await asyncio.wait_for(closing, PATIENCE)
        assert isinstance(job.exception(), DirectorClosed)
    clock.advance(100.0)
    assert flaky.calls == 1


@pytest.mark.parametrize("backoff", [0.0, 3600.0])
async def test_nothing_is_tried_again_while_the_director_winds_up(gate: Gate, backoff: float) -> None:
    calls: list[int] = []

    def fail(device: object) -> None:
        calls.append(1)
        gate(device)
        raise OSError

    director = Director("simulated:2")
    await director.start()
    job = director.submit(fail, retries=5, retry_on=OSError, backoff=backoff)
    await gate.begun()
    closing = asyncio.ensure_future(director.close(timeout=0, grace=3600))
    await turns()
    gate.open()
    await asyncio.wait_for(closing, PATIENCE)  # far less than the grace that a running job gets
    assert isinstance(await outcome(job), OSError)
    assert calls == [1]


# ---- what is told


async def test_events_tell_of_each_try(recorder: Recorder) -> None:
    flaky = Flaky(2)
    async with Director("simulated:2", hooks=[recorder]) as director:
        job = director.submit(flaky, retries=2, retry_on=OSError, name="shaky")
        await job
        await recorder.seen(JobSucceeded)
    kinds = [type(event) for event in recorder.events if getattr(event, "job", None) == job.id]
    assert kinds == [JobSubmitted, JobStarted, JobRetried, JobStarted, JobRetried, JobStarted, JobSucceeded]
    retried = recorder.of(JobRetried)
    assert [(event.name, event.attempt) for event in retried] == [("shaky", 1), ("shaky", 2)]
    assert [event.error for event in retried] == flaky.errors
    assert [event.device for event in retried] == flaky.devices[:2]
    assert [event.device for event in recorder.of(JobStarted)] == flaky.devices
    assert not recorder.of(JobFailed)


async def test_a_job_that_was_cancelled_in_its_back_off_has_no_device(recorder: Recorder, clock: TestClock) -> None:
    async with Director("simulated:2", hooks=[recorder], clock=clock) as director:
        job = director.submit(Flaky(1), retries=1, retry_on=OSError, backoff=5.0)
        await recorder.seen(JobRetried)
        clock.advance(1.0)
        assert (job.state, job.device, job.waited, job.ran, job.attempts) == (JobState.QUEUED, None, None, None, 1)
        job.cancel()
        event = await recorder.seen(JobCancelled)
        assert (event.device, event.waited, event.ran) == (None, 1.0, None)
        assert (job.waited, job.ran, job.attempts) == (1.0, None, 1)


async def test_a_job_counts_once_however_often_it_is_tried(clock: TestClock, gate: Gate) -> None:
    flaky = Flaky(1)
    async with Director("simulated:1", max_queue=0, clock=clock) as director:
        job = director.submit(flaky, retries=1, retry_on=OSError, backoff=1.0)
        await waits_again(flaky, director, 1)
        stats = director.stats()
        assert (stats.queued, stats.running, stats.failed, stats.rejected) == (1, 0, 0, 0)
        clock.advance(1.0)
        await job
        stats = director.stats()
        assert (stats.queued, stats.running, stats.succeeded, stats.failed) == (0, 0, 1, 0)
        assert stats.devices[0].jobs == 2


async def test_the_try_that_runs_knows_its_number() -> None:
    seen: list[int] = []
    flaky = Flaky(2)

    def attempt(_: object) -> None:
        seen.append(current_job().attempts)
        flaky()

    async with Director("simulated:1") as director:
        await director.run(attempt, retries=2, retry_on=OSError)
    assert seen == [1, 2, 3]


async def test_what_a_failed_try_has_raised_is_let_go(no_gc: None) -> None:
    class Heavy(Exception):
        pass

    alive: weakref.WeakSet[Heavy] = weakref.WeakSet()

    def fail_twice(_: object) -> str:
        if len(calls) < 2:
            calls.append(1)
            error = Heavy()
            alive.add(error)
            try:
                raise error
            finally:
                del error
        return "done"

    calls: list[int] = []
    async with Director("simulated:1") as director:
        job = director.submit(fail_twice, retries=2, retry_on=Heavy)
        assert await job == "done"
        await turns()
        assert not alive
    gc.collect()


# ---- with other faces


async def test_map_keeps_its_order() -> None:
    flaky = {item: Flaky(item % 3) for item in range(20)}
    async with Director("simulated:3") as director:
        options: Any = {"retries": 2, "retry_on": OSError}
        found = [result async for result in director.map(lambda _, item: (item, flaky[item]()), range(20), **options)]
    assert found == [(item, item % 3 + 1) for item in range(20)]


async def test_map_yields_the_error_of_the_last_try() -> None:
    flaky = Flaky(9)
    async with Director("simulated:3") as director:
        options: Any = {"retries": 2, "retry_on": OSError, "return_exceptions": True}
        found = [result async for result in director.map(lambda *_: flaky(), [1], **options)]
    assert found == [flaky.errors[2]]


async def test_an_item_of_a_batch_is_tried_again_alone_and_its_mates_are_over() -> None:
    calls: list[list[int]] = []
    gate_open = asyncio.Event()
    loop = asyncio.get_running_loop()

    def many(_: object, items: list[int]) -> list[object]:
        if not calls:
            asyncio.run_coroutine_threadsafe(gate_open.wait(), loop).result(PATIENCE)
        calls.append(items)
        return [OSError(item) if item == 2 and len(calls) < 3 else item for item in items]

    async with Director("simulated:2") as director:
        function = director.function(many, max_batch_size=4, retries=1, retry_on=OSError, devices=[0, 1])
        blockers = [function.submit(0), function.submit(0)]
        await turns()
        jobs = [function.submit(item) for item in (1, 2, 3)]
        gate_open.set()
        assert await asyncio.gather(*jobs) == [1, 2, 3]
        assert [job.attempts for job in jobs] == [1, 2, 1]
        await asyncio.gather(*blockers)


async def test_a_batch_that_raises_is_tried_again_item_for_item_of_its_own_right() -> None:
    flaky = Flaky(1)

    def many(_: object, items: list[int]) -> list[int]:
        flaky()
        return items

    async with Director("simulated:2") as director:
        function = director.function(many, max_batch_size=4, retries=1, retry_on=OSError)
        jobs = [function.submit(item) for item in range(4)]
        assert await asyncio.gather(*jobs) == list(range(4))
        assert max(job.attempts for job in jobs) == 2


async def test_through_the_executor() -> None:
    flaky, hopeless = Flaky(1), Flaky(9)
    async with Director("simulated:2") as director:
        executor = director.as_executor(retries=1, retry_on=OSError)
        assert await asyncio.get_running_loop().run_in_executor(executor, flaky) == 2
        error = await outcome(asyncio.get_running_loop().run_in_executor(executor, hopeless))
        assert error is hopeless.errors[1]


async def test_a_future_of_the_executor_waits_through_the_back_off(clock: TestClock) -> None:
    flaky = Flaky(1)
    async with Director("simulated:1", clock=clock) as director:
        future = director.as_executor(retries=1, retry_on=OSError, backoff=1.0).submit(flaky)
        await waits_again(flaky, director, 1)
        assert future.running()
        assert not future.cancel()
        clock.advance(1.0)
        assert await asyncio.wrap_future(future) == 2


async def test_cancelling_the_task_in_run_ends_the_back_off(clock: TestClock) -> None:
    flaky = Flaky(1)
    async with Director("simulated:1", clock=clock) as director:
        task = asyncio.ensure_future(director.run(flaky, retries=1, retry_on=OSError, backoff=1.0))
        await waits_again(flaky, director, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert director.stats().cancelled == 1


# ---- mistakes


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"retries": -1}, ValueError),
        ({"retries": 1.5}, TypeError),
        ({"retries": True}, TypeError),
        ({"retries": None}, TypeError),
        ({"retry_on": OSError}, ValueError),
        ({"retries": 1, "retry_on": "OSError"}, TypeError),
        ({"retries": 1, "retry_on": OSError()}, TypeError),
        ({"retries": 1, "retry_on": [OSError]}, TypeError),
        ({"retries": 1, "retry_on": (OSError, int)}, TypeError),
        ({"retries": 1, "backoff": -1.0}, ValueError),
        ({"retries": 1, "backoff": float("nan")}, ValueError),
        ({"retries": 1, "backoff": "1"}, TypeError),
    ],
)
async def test_a_wrong_word_is_refused_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(error):
            director.submit(print, **options)
        with pytest.raises(error):
            director.function(print, **options)
        assert director.stats().rejected == 0
