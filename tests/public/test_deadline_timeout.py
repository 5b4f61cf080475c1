"""`deadline`, a moment by which a job must have finished, and `timeout`, how long it may run."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, ThreadClock, keep_workers, outcome, turns, until

from director import Director, Job, JobError, JobState, JobTimeout, Model, check_cancelled

if TYPE_CHECKING:
    from director.testing import TestClock


async def busy(director: Director, gate: Gate, item: Any = "busy") -> Job[Any]:
    """Take a slot."""
    job = director.submit(gate, item)
    await gate.begun()
    return job


async def test_a_deadline_that_passes_while_the_job_waits(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        await busy(director, gate)
        job = director.submit(gate, "late", deadline=5)
        clock.advance(4.9)
        assert job.state is JobState.QUEUED
        clock.advance(0.1)
        assert (job.state, job.done()) == (JobState.FAILED, True)  # at once, not when its turn comes
        error = await outcome(job)
        assert isinstance(error, JobTimeout)
        assert isinstance(error, TimeoutError)
        assert isinstance(error, JobError)
        assert (error.phase, job.device, job.waited, job.ran, job.attempts) == ("queued", None, 5, None, 0)
        assert (director.stats().queued, director.stats().failed) == (0, 1)
        gate.open()
    assert gate.items == ["busy"]


async def test_a_deadline_that_passes_while_the_job_runs(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(gate, "slow", deadline=5)
        await gate.begun()
        waiter = asyncio.create_task(outcome(job))
        following = director.submit(gate, "next")
        await turns()
        clock.advance(5)
        error = await waiter  # the caller is free at once
        assert isinstance(error, JobTimeout)
        assert (error.phase, job.state, job.device) == ("running", JobState.FAILED, director.devices[0])
        await turns()
        assert (following.state, director.stats().devices[0].busy) == (JobState.QUEUED, 1)  # the slot stays taken
        gate.open()
        assert await following == "next"


async def test_a_timeout_counts_running_only(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        await busy(director, gate)
        job = director.submit(gate, "it", timeout=5)
        clock.advance(100)
        assert job.state is JobState.QUEUED
        gate.let(1)
        await gate.begun()
        await turns()
        clock.advance(4.9)
        assert job.state is JobState.RUNNING
        clock.advance(0.1)
        assert job.state is JobState.FAILED
        error = await outcome(job)
        assert isinstance(error, JobTimeout)
        assert error.phase == "running"
        gate.open()


@pytest.mark.parametrize(("deadline", "timeout", "at"), [(10, 3, 5), (4, 30, 4)])
async def test_whichever_comes_first(gate: Gate, clock: TestClock, deadline: float, timeout: float, at: float) -> None:
    async with Director("simulated:1", clock=clock) as director:
        await busy(director, gate)
        job = director.submit(gate, "it", deadline=deadline, timeout=timeout)
        clock.advance(2)
        gate.let(1)
        await gate.begun()
        await turns()
        clock.advance(at - 2 - 0.1)
        assert job.state is JobState.RUNNING
        clock.advance(0.1)
        assert job.state is JobState.FAILED
        gate.open()
        assert isinstance(await outcome(job), JobTimeout)


async def test_in_time_is_in_time(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(gate, "it", deadline=5, timeout=5)
        await gate.begun()
        clock.advance(4.9)
        gate.open()
        assert await job == "it"
        clock.advance(10)
        assert job.state is JobState.SUCCEEDED


async def test_in_time_is_in_time_though_the_loop_is_late(clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        begun, end = threading.Event(), threading.Event()
        keep_workers(director)
        await director.run(lambda _: None)  # there is a worker now
        in_time = director.submit(lambda _: "in time", deadline=5)
        following = director.submit(lambda _: (begun.set(), end.wait(PATIENCE)))
        assert begun.wait(PATIENCE)  # the loop is blocked; the slot is done with the first and at the next
        clock.advance(10)
        end.set()
        await following
        assert in_time.state is JobState.SUCCEEDED


async def test_a_deadline_passed_while_the_loop_was_blocked_never_runs(gate: Gate, clock: TestClock) -> None:
    class Late(ThreadClock):
        skew = 0.0

        def time(self) -> float:
            return super().time() + self.skew

    late = Late()
    async with Director("simulated:1", clock=late) as director:
        await busy(director, gate)
        job = director.submit(gate, "late", deadline=5)
        late.skew = 6  # time passes, and no timer rings: the loop is blocked
        gate.open()
        error = await outcome(job)
        assert isinstance(error, JobTimeout)
        assert (error.phase, job.attempts, job.device) == ("queued", 0, None)
    assert gate.items == ["busy"]


async def test_a_deadline_that_passes_between_being_taken_and_being_called(gate: Gate) -> None:
    clock = ThreadClock()
    async with Director("simulated:1", clock=clock) as director:
        await director.run(lambda _: None)  # there is a worker now
        clock.advance(1)
        clock.hold()
        job = director.submit(gate, deadline=5)
        await until(clock.asked.is_set)  # the worker has it and looks at the clock
        clock.advance(5)
        clock.release()
        error = await outcome(job)
        await director.run(lambda _: None)
        assert (gate.calls, job.attempts, job.device) == ([], 0, None)
        assert isinstance(error, JobTimeout)
        assert error.phase == "queued"


async def test_a_deadline_that_passes_while_waiting_for_room(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", max_queue=1, clock=clock) as director:
        await busy(director, gate)
        queued = director.submit(gate, "queued")
        patient = asyncio.create_task(director.run(gate, "patient", deadline=5))
        await turns()
        clock.advance(5)
        error = await outcome(patient)
        assert isinstance(error, JobTimeout)
        assert (error.phase, director.stats().queued) == ("queued", 1)
        gate.open()
        await queued
    assert gate.items == ["busy", "queued"]


async def test_an_expired_job_gives_its_place_in_the_queue_to_who_waits_for_room(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", max_queue=1, clock=clock) as director:
        await busy(director, gate)
        expires = director.submit(gate, "expires", deadline=1)
        patient = asyncio.create_task(director.run(gate, "patient"))
        await turns()
        clock.advance(1)
        gate.open()
        assert await patient == "patient"
        assert isinstance(await outcome(expires), JobTimeout)


async def test_deadlines_ring_in_their_own_order(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        await busy(director, gate)
        seconds = [9, 3, 7, 1, 5]
        ended: list[int] = []
        for each in seconds:
            job = director.submit(gate, each, deadline=each)
            job.add_done_callback(lambda job, each=each: (job.exception(), ended.append(each)))
        for _ in range(10):
            clock.advance(1)
            await turns(2)
        assert ended == sorted(seconds)
        gate.open()


async def test_what_a_timed_out_call_does_later_changes_nothing(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        returns = director.submit(gate, "late result", timeout=1)
        await gate.begun()
        await turns()
        clock.advance(2)
        gate.open()
        assert await director.run(lambda _: "next") == "next"
        assert isinstance(await outcome(returns), JobTimeout)
        stats = director.stats()
        assert (stats.succeeded, stats.failed, stats.devices[0].jobs) == (1, 1, 2)


async def test_a_job_learns_that_its_time_is_up(gate: Gate, clock: TestClock) -> None:
    def work(device: Any) -> str:
        gate(device)
        try:
            check_cancelled()
        except JobTimeout as error:
            told.append(error.phase)
            raise
        return "went on"

    told: list[str] = []
    async with Director("simulated:1", clock=clock) as director:
        in_time = director.submit(work, timeout=5)
        await gate.begun()
        gate.let(1)
        assert await in_time == "went on"
        late = director.submit(work, timeout=5)
        await gate.begun()
        await turns()
        clock.advance(5)
        gate.let(1)
        assert isinstance(await outcome(late), JobTimeout)
    assert told == ["running"]


async def test_a_cancelled_job_is_not_failed_by_its_deadline(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        await busy(director, gate)
        job = director.submit(gate, deadline=5)
        job.cancel()
        clock.advance(10)
        assert job.state is JobState.CANCELLED
        assert (director.stats().cancelled, director.stats().failed) == (1, 0)
        gate.open()


@pytest.mark.parametrize(
    "options",
    [{"deadline": 1e6}, {"timeout": 1e6}, {"deadline": 1e6, "timeout": 1e6}],
    ids=["deadline", "timeout", "both"],
)
async def test_long_deadlines_of_jobs_that_are_over_do_not_pile_up(options: dict[str, Any], clock: TestClock) -> None:
    watched: weakref.WeakSet[Job[Any]] = weakref.WeakSet()
    async with Director("simulated:1", clock=clock) as director:
        for _ in range(20):
            jobs = [director.submit(lambda _: None, **options) for _ in range(50)]
            for job in jobs:
                watched.add(job)
            await asyncio.gather(*jobs)
        del jobs, job
        await turns()
        assert len(watched) < 200


async def test_long_deadlines_of_cancelled_jobs_do_not_pile_up(gate: Gate, clock: TestClock) -> None:
    watched: weakref.WeakSet[Job[Any]] = weakref.WeakSet()
    async with Director("simulated:1", clock=clock) as director:
        held = await busy(director, gate)
        for _ in range(1000):
            job = director.submit(gate, deadline=1e6)
            watched.add(job)
            job.cancel()
        del job
        assert len(watched) < 200
        gate.open()
        await held


@pytest.mark.every_loop
async def test_the_machines_own_clock_rings_too(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        running = director.submit(gate, timeout=0.01)
        await gate.begun()  # or the one with a deadline would go first
        waiting = director.submit(gate, deadline=0.01)
        errors = [await outcome(running), await outcome(waiting)]
        assert [getattr(error, "phase", error) for error in errors] == ["running", "queued"]
        gate.open()


# ---- the load of a model


def slow_model(clock: TestClock, seconds: float) -> Model[str]:
    """A model whose load takes so many seconds of the clock."""

    def load(_device: Any) -> str:
        clock._now += seconds
        return "replica"

    return Model(load)


@pytest.mark.parametrize("options", [{}, {"timeout": 5}, {"deadline": 50}], ids=["plain", "timeout", "deadline"])
async def test_ran_counts_from_the_call_of_the_function(clock: TestClock, options: Any) -> None:
    def call(_replica: str) -> None:
        clock._now += 3

    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(call, model=slow_model(clock, 20), **options)
        await job
        assert (job.waited, job.ran) == (20, 3)
        assert director.stats().devices[0].busy_seconds == 23


async def test_a_timeout_does_not_count_the_load(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", clock=clock) as director:
        model = slow_model(clock, 20)
        job = director.submit(gate, model=model, timeout=5)
        await gate.begun()
        await turns()
        clock.advance(4.9)
        assert job.state is JobState.RUNNING
        clock.advance(0.1)
        error = await outcome(job)
        assert isinstance(error, JobTimeout)
        assert (error.phase, error.option) == ("running", "timeout")
        gate.open()


async def test_nor_that_of_a_batch(clock: TestClock) -> None:
    def together(_replica: str, items: list[int]) -> list[int]:
        clock._now += 3
        return items

    async with Director("simulated:1", clock=clock) as director:
        call = director.function(together, model=slow_model(clock, 20), max_batch_size=4, timeout=5)
        jobs = [call.submit(number) for number in range(3)]
        assert await asyncio.gather(*jobs) == [0, 1, 2]
        assert {job.ran for job in jobs} == {3}


@pytest.mark.parametrize("how", ["deadline", "cancel"])
async def test_a_job_that_ends_during_the_load_of_its_model_never_runs(gate: Gate, clock: TestClock, how: str) -> None:
    """The load goes on, for others need the model."""
    ran: list[Any] = []
    model = Model(gate)
    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(ran.append, model=model, deadline=5 if how == "deadline" else None)
        await gate.begun()
        await turns()
        if how == "cancel":
            job.cancel()
        clock.advance(5)
        assert job.done()
        error = await outcome(job)
        assert how == "cancel" or (isinstance(error, JobTimeout) and error.phase == "queued")
        gate.open()
        assert await director.run(lambda device: device, model=model) is director.devices[0]
        assert (job.ran, job.attempts, job.device, ran) == (None, 0, None, [])
        assert director.stats().devices[0].jobs == 1
    assert len(gate.calls) == 1


async def test_a_batch_is_called_without_the_jobs_that_ended_during_the_load(gate: Gate, clock: TestClock) -> None:
    batches: list[list[str]] = []

    def together(_replica: Any, items: list[str]) -> list[str]:
        batches.append(items)
        return items

    async with Director("simulated:1", clock=clock) as director:
        call = director.function(together, model=Model(gate), max_batch_size=4)
        late, cancelled, kept = (
            call.with_options(deadline=5).submit("late"),
            call.submit("cancelled"),
            call.submit("kept"),
        )
        await gate.begun()
        clock.advance(5)
        cancelled.cancel()
        assert late.done()
        gate.open()
        assert await kept == "kept"
        assert isinstance(await outcome(late), JobTimeout)
        assert (late.attempts, cancelled.attempts, kept.attempts) == (0, 0, 1)
    assert batches == [["kept"]]
