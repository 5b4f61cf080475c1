"""What a job sees: the submitter's context variables, its device, itself, and whether it is still wanted."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, Recorder, outcome, turns, until

from director import (
    Director,
    Job,
    JobState,
    JobTimeout,
    Model,
    check_cancelled,
    current_device,
    current_job,
    report,
)
from director.events import JobProgressed

if TYPE_CHECKING:
    from director.testing import TestClock

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


async def test_context_variables_travel_with_the_job() -> None:
    async def handle(request: str) -> tuple[str, str]:
        request_id.set(request)
        job = director.submit(lambda _: request_id.get())
        request_id.set("changed after the submission")
        return await job, await director.run(lambda _: request_id.get())

    async with Director("simulated:2") as director:
        seen = await asyncio.gather(*[asyncio.create_task(handle(f"request {n}")) for n in range(5)])
    assert seen == [(f"request {n}", "changed after the submission") for n in range(5)]


async def test_what_a_job_sets_stays_in_the_job() -> None:
    async with Director("simulated:1") as director:
        request_id.set("mine")
        await director.run(lambda _: request_id.set("the job's"))
        assert request_id.get() == "mine"
        assert await director.run(lambda _: request_id.get()) == "mine"


async def test_a_job_without_context_sees_no_other_jobs() -> None:
    async with Director("simulated:1") as director:
        await director.run(lambda _: request_id.set("the job's"))
        assert await director.run(lambda _: request_id.get()) == "none"


async def test_the_context_travels_through_map_and_function() -> None:
    request_id.set("mapped")
    async with Director("simulated:1") as director:
        assert [seen async for seen in director.map(lambda *_: request_id.get(), range(3))] == ["mapped"] * 3
        assert await director.function(lambda _: request_id.get())() == "mapped"


async def test_current_device_and_job() -> None:
    def look(device: Any) -> tuple[bool, Job[Any]]:
        return current_device() is device, current_job()

    async with Director("simulated:2") as director:
        jobs = [director.submit(look) for _ in range(6)]
        for job in jobs:
            same_device, seen = await job
            assert same_device
            assert seen is job


async def test_inside_of_a_job_its_facts_are_known() -> None:
    def look(_device: Any) -> tuple[Any, ...]:
        job = current_job()
        return job.state, job.device, job.attempts, job.ran, job.done()

    async with Director("simulated:1") as director:
        assert await director.run(look) == (JobState.RUNNING, director.devices[0], 1, None, False)


async def test_a_loader_knows_its_device_too() -> None:
    seen: list[Any] = []

    def load(device: Any) -> None:
        seen.append(current_device() is device)
        check_cancelled()
        report("loading")

    async with Director("simulated:1") as director:
        await director.run(lambda _: None, model=Model(load))
    assert seen == [True]


async def test_outside_of_a_job() -> None:
    async with Director("simulated:1") as director:
        await director.run(lambda _: None)
        with pytest.raises(RuntimeError, match="job"):
            current_device()
        with pytest.raises(RuntimeError, match="job"):
            current_job()
        with pytest.raises(RuntimeError, match="job"):
            await asyncio.to_thread(current_device)
        check_cancelled()  # so that a function works without a Director too
        report("nobody listens")


async def test_a_thread_that_a_job_starts_is_outside_of_it() -> None:
    def work(_device: Any) -> list[Any]:
        seen: list[Any] = []

        def beside() -> None:
            try:
                current_device()
            except RuntimeError as error:
                seen.append(error)

        thread = threading.Thread(target=beside, daemon=True)
        thread.start()
        thread.join()
        return seen

    async with Director("simulated:1") as director:
        assert len(await director.run(work)) == 1


async def told(job: Job[Any], gate: Gate, log: list[Any]) -> None:
    await gate.begun()
    assert job.cancel()
    gate.let(1)
    await until(lambda: log)


async def test_check_cancelled_tells_a_job_whose_caller_has_left(gate: Gate) -> None:
    def work(device: Any) -> None:
        check_cancelled()
        gate(device)
        try:
            check_cancelled()
        except asyncio.CancelledError as error:
            log.append(type(error))
            raise
        log.append("went on")

    log: list[Any] = []
    async with Director("simulated:1") as director:
        await told(director.submit(work), gate, log)
        assert log == [asyncio.CancelledError]
        log.clear()
        caller = asyncio.create_task(director.run(work))
        await gate.begun()
        caller.cancel()
        await asyncio.wait([caller])
        gate.let(1)
        await until(lambda: log)
        assert log == [asyncio.CancelledError]
        stats = director.stats()
        assert (stats.cancelled, stats.failed) == (2, 0)


async def test_a_job_may_clean_up_and_return_all_the_same(gate: Gate) -> None:
    def work(device: Any) -> str:
        gate(device)
        try:
            check_cancelled()
        except asyncio.CancelledError:
            log.append("cleaned up")
        return "dropped"

    log: list[str] = []
    async with Director("simulated:1") as director:
        job = director.submit(work)
        await told(job, gate, log)
        assert await director.run(lambda _: 42) == 42
        assert job.state is JobState.CANCELLED


@pytest.mark.parametrize("option", ["deadline", "timeout"])
async def test_check_cancelled_looks_at_the_clock_itself(option: str, gate: Gate, clock: TestClock) -> None:
    # The loop may be too busy to ring for the deadline.
    def work(device: Any) -> None:
        gate(device)
        check_cancelled()

    async with Director("simulated:1", clock=clock) as director:
        job = director.submit(work, **{option: 5})  # type: ignore[call-overload]  # a name from a str
        await gate.begun()
        clock._now = 6.0  # time passes, and no timer rings
        gate.open()
        error = await outcome(job)
        assert isinstance(error, JobTimeout)
        assert (error.phase, error.option, error.seconds) == ("running", option, 5)


async def test_a_closing_director_tells_its_jobs(gate: Gate) -> None:
    def work(device: Any) -> None:
        for _ in range(2):
            gate(device)
            check_cancelled()

    director = Director("simulated:1")
    await director.start()
    job = director.submit(work)
    await gate.begun()
    closing = asyncio.create_task(director.close())
    await turns()
    gate.let(1)
    await gate.begun()  # draining is no reason to stop
    gate.open()
    await closing
    assert job.state is JobState.SUCCEEDED


async def test_progress_reaches_the_handle_and_the_hooks(gate: Gate) -> None:
    def work(device: Any) -> None:
        for percent in (10, 50, 90):
            report(percent)
        gate(device)

    recorder = Recorder()
    async with Director("simulated:1", hooks=[recorder]) as director:
        job = director.submit(work, name="train")
        await gate.begun()
        assert job.progress == 90
        await recorder.seen(JobProgressed, 3)
        assert [(each.job, each.name, each.progress) for each in recorder.of(JobProgressed)] == [
            (job.id, "train", percent) for percent in (10, 50, 90)
        ]
        gate.open()
