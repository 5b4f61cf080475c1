"""Admission: bounds for all and for each tenant, when to come back, and deadlines that can't be met."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, Recorder, outcome, rested, turns, until

from director import AdmissionError, DeadlineUnreachable, Device, Director, Job, JobTimeout, Model, QueueFull
from director.events import JobRejected, JobSubmitted

if TYPE_CHECKING:
    from director.testing import TestClock


class Steps:
    """A job that takes the seconds it is told: it moves the clock on, for one slot at a time."""

    __name__ = "steps"

    def __init__(self, clock: TestClock) -> None:
        self._clock = clock

    def __call__(self, _: object, seconds: float) -> None:
        self._clock._now += seconds


async def measured(director: Director, clock: TestClock, seconds: float, jobs: int = 4, **options: Any) -> None:
    """Let the Director measure what jobs take."""
    for _ in range(jobs):
        await director.run(Steps(clock), seconds, **options)
    await rested(director)


def refusal(director: Director, fn: Any, *args: Any, **options: Any) -> Any:
    """Why a job is refused; `None` if it isn't, and then it is cancelled."""
    try:
        director.submit(fn, *args, **options).cancel()
    except AdmissionError as error:
        return error
    return None


# ---- the bound of all


async def test_when_to_come_back_is_what_the_waiting_jobs_need(clock: TestClock, gate: Gate) -> None:
    async with Director("simulated:1", max_queue=3, clock=clock) as director:
        for expected in (None, pytest.approx(6.0)):  # at first nothing has been measured
            director.submit(gate)
            await gate.begun()
            jobs = [director.submit(print, "") for _ in range(3)]
            assert refusal(director, print).retry_after == expected
            gate.let(1)
            await asyncio.gather(*jobs)
            await measured(director, clock, 2.0, jobs=40)
        assert director.stats().rejected == 2


async def test_more_slots_are_quicker(clock: TestClock) -> None:
    gates = Gate()
    async with Director("simulated:1", slots=4, max_queue=8, clock=clock) as director:
        await measured(director, clock, 2.0)  # on one slot or several; the others are taken for average
        blockers = [director.submit(gates) for _ in range(4)]
        await gates.begun(4)
        jobs = [director.submit(print, "") for _ in range(8)]
        assert refusal(director, print).retry_after == pytest.approx(4.0)
        gates.open()
        await asyncio.gather(*blockers, *jobs)


# ---- the bounds of tenants


async def test_each_tenant_has_a_bound_of_his_own(gate: Gate) -> None:
    async with Director("simulated:1", max_queue_per_tenant=2) as director:
        director.submit(gate)
        await gate.begun()
        jobs = [director.submit(gate, tenant=tenant) for tenant in ("a", "b") for _ in range(2)]
        for tenant in ("a", "b"):
            error = refusal(director, gate, tenant=tenant)
            assert isinstance(error, QueueFull)
            assert (error.tenant, error.limit, error.waiting) == (tenant, 2, 2)
            assert "max_queue_per_tenant" in str(error)
            assert repr(tenant) in str(error)
        jobs.append(director.submit(gate, tenant="c"))
        jobs.extend(director.submit(gate) for _ in range(5))  # without a tenant there is no such bound
        assert director.stats().rejected == 2
        jobs[0].cancel()
        director.submit(gate, tenant="a")  # there is room again
        assert refusal(director, gate, tenant="a") is not None
        gate.open()


async def test_bounds_by_name(gate: Gate) -> None:
    bounds = {"a": 1, "b": 0, "c": None}
    async with Director("simulated:1", max_queue=None, max_queue_per_tenant=bounds) as director:  # type: ignore[arg-type]
        director.submit(gate)
        await gate.begun()
        for _ in range(2):
            director.submit(gate, tenant="c")
            director.submit(gate, tenant="nobody named")
        jobs = [director.submit(gate, tenant="a")]
        assert refusal(director, gate, tenant="a").limit == 1
        assert refusal(director, gate, tenant="b").limit == 0
        bounds["a"] = 5  # too late
        assert refusal(director, gate, tenant="a").limit == 1
        jobs[0].cancel()
        gate.open()


async def test_what_free_slots_take_at_once_is_not_counted(gate: Gate) -> None:
    async with Director("simulated:2", max_queue_per_tenant=0) as director:
        for _ in range(2):
            director.submit(gate, tenant="a")
        await gate.begun(2)
        assert refusal(director, gate, tenant="a").tenant == "a"
        gate.open()


async def test_the_bound_of_all_comes_first(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=1, max_queue_per_tenant=1) as director:
        director.submit(gate)
        await gate.begun()
        director.submit(gate, tenant="a")
        assert refusal(director, gate, tenant="a").tenant is None
        gate.open()


async def test_who_waits_is_never_refused_as_too_many(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=0, max_queue_per_tenant=0) as director:
        tasks = [asyncio.ensure_future(director.run(gate, number, tenant="a")) for number in range(5)]
        await gate.begun()
        gate.open()
        assert await asyncio.gather(*tasks) == list(range(5))
        assert [result async for result in director.map(gate, range(5), tenant="a")] == list(range(5))
        executor = director.as_executor(tenant="a")
        futures = [executor.submit(int, "1") for _ in range(5)]
        assert [await asyncio.wrap_future(future) for future in futures] == [1] * 5


async def test_one_that_is_tried_again_is_not_refused_and_takes_room(gate: Gate, clock: TestClock) -> None:
    def fail(_: object) -> None:
        raise OSError

    async with Director("simulated:1", max_queue_per_tenant=1, clock=clock) as director:
        job = director.submit(fail, tenant="a", retries=1, retry_on=OSError, backoff=1.0)
        await until(lambda: job.attempts == 1 and director.stats().queued == 1)
        director.submit(gate, tenant="b")
        await gate.begun()
        await until(lambda: director.stats().devices[0].busy == 1)
        assert refusal(director, gate, tenant="a") is not None
        clock.advance(1.0)
        gate.open()
        assert isinstance(await outcome(job), OSError)
        assert refusal(director, gate, tenant="a") is None


# ---- deadlines that can't be met


async def test_nothing_is_refused_while_nothing_was_measured(clock: TestClock, gate: Gate) -> None:
    async with Director("simulated:1", admission="predict", clock=clock) as director:
        director.submit(gate)
        await gate.begun()
        for _ in range(10):
            director.submit(gate, deadline=0.001)
        gate.open()


async def test_without_the_word_nothing_is_refused(clock: TestClock, gate: Gate) -> None:
    async with Director("simulated:1", clock=clock) as director:
        await measured(director, clock, 10.0)
        director.submit(gate)
        await gate.begun()
        job = director.submit(gate, deadline=0.5)
        clock.advance(0.5)
        assert isinstance(await outcome(job), JobTimeout)
        gate.open()


async def test_what_would_come_too_late_is_refused_with_the_prediction(clock: TestClock, gate: Gate) -> None:
    async with Director("simulated:1", admission="predict", clock=clock) as director:
        await measured(director, clock, 1.0)
        director.submit(gate)
        await gate.begun()
        jobs = [director.submit(print, "", priority=1) for _ in range(3)]
        error = refusal(director, print, deadline=4.5)
        assert isinstance(error, DeadlineUnreachable)
        assert isinstance(error, AdmissionError)
        assert (error.deadline, error.predicted) == (4.5, pytest.approx(5.0))  # the one that runs, three, and its own
        assert error.retry_after == pytest.approx(0.5)
        assert "4.5" in str(error)
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.deadline, copy.predicted) == (error.deadline, error.predicted)
        assert director.stats().rejected == 1
        jobs.append(director.submit(print, "", deadline=5.5))
        gate.open()
        await asyncio.gather(*jobs)


async def submit_by(way: str, director: Director) -> None:
    """One job with a deadline of half a second."""
    if way == "submit":
        director.submit(print, deadline=0.5)
    elif way == "run":
        await director.run(print, deadline=0.5)
    elif way == "function":
        await director.function(print, deadline=0.5)()
    elif way == "map":
        async for _ in director.map(print, [1], deadline=0.5):
            pass
    else:
        director.as_executor(deadline=0.5).submit(print)


@pytest.mark.parametrize("way", ["submit", "run", "map", "function", "executor"])
async def test_every_way_of_submission_refuses_it(clock: TestClock, gate: Gate, recorder: Recorder, way: str) -> None:
    async with Director("simulated:1", admission="predict", clock=clock, hooks=[recorder]) as director:
        await measured(director, clock, 1.0)
        director.submit(gate)
        await gate.begun()
        recorder.events.clear()
        with pytest.raises(DeadlineUnreachable):
            await submit_by(way, director)
        assert director.stats().rejected == 1
        (rejected,) = recorder.of(JobRejected)
        assert isinstance(rejected.error, DeadlineUnreachable)
        assert not recorder.of(JobSubmitted), "told as accepted, and it was not"
        gate.open()


async def test_jobs_that_would_be_served_after_it_do_not_count(clock: TestClock, gate: Gate) -> None:
    """Lower priorities, and equals without a deadline."""
    async with Director("simulated:1", admission="predict", clock=clock) as director:
        await measured(director, clock, 1.0)
        director.submit(gate)
        await gate.begun()
        jobs = [director.submit(print, "", priority=-1, deadline=100.0) for _ in range(50)]
        jobs += [director.submit(print, "") for _ in range(50)]
        assert refusal(director, print, deadline=2.5) is None
        assert isinstance(refusal(director, print, deadline=1.5), DeadlineUnreachable)
        for job in jobs:
            job.cancel()
        gate.open()


async def test_jobs_that_have_gone_do_not_count(clock: TestClock, gate: Gate) -> None:
    async with Director("simulated:1", admission="predict", clock=clock) as director:
        await measured(director, clock, 1.0)
        director.submit(gate)
        await gate.begun()
        jobs: list[Job[Any]] = [director.submit(print, "", priority=1) for _ in range(50)]
        for job in jobs[:49]:
            job.cancel()
        assert refusal(director, print, deadline=3.5) is None
        gate.open()


async def test_jobs_that_only_other_devices_may_run_do_not_count(clock: TestClock, gate: Gate) -> None:
    async with Director("simulated:2", admission="predict", clock=clock) as director:
        for device in (0, 1):
            await measured(director, clock, 1.0, devices=device)
        for device in (0, 1):
            director.submit(gate, devices=device)
        await gate.begun(2)
        jobs = [director.submit(print, "", devices=0, priority=1) for _ in range(50)]
        assert refusal(director, print, devices=1, deadline=2.5) is None
        assert isinstance(refusal(director, print, devices=0, deadline=2.5), DeadlineUnreachable)
        for job in jobs:
            job.cancel()
        gate.open()


async def test_jobs_that_several_devices_may_run_are_shared_among_them(clock: TestClock, gate: Gate) -> None:
    """Ten for either of two devices are five for each."""
    async with Director("simulated:2", admission="predict", clock=clock) as director:
        for device in (0, 1):
            await measured(director, clock, 1.0, devices=device)
        for device in (0, 1):
            director.submit(gate, devices=device)
        await gate.begun(2)
        jobs = [director.submit(print, "", priority=1) for _ in range(10)]
        assert refusal(director, print, devices=1, deadline=7.5) is None
        assert isinstance(refusal(director, print, devices=1, deadline=6.5), DeadlineUnreachable)
        for job in jobs:
            job.cancel()
        gate.open()


async def test_a_free_slot_refuses_nobody(clock: TestClock) -> None:
    """It would learn nothing more: one slow call, and a function would be refused for ever."""
    async with Director("simulated:1", admission="predict", clock=clock) as director:
        await measured(director, clock, 100.0, jobs=1)
        for _ in range(3):
            assert isinstance(await outcome(director.submit(print, "", deadline=1.0)), type(None))
            await rested(director)


async def test_the_pace_is_that_of_the_last_jobs(clock: TestClock, gate: Gate) -> None:
    """Not of all since the start: after a slow hour a quick one begins."""
    async with Director("simulated:1", admission="predict", max_queue=2, clock=clock) as director:
        await measured(director, clock, 10.0, jobs=20)
        await measured(director, clock, 1.0, jobs=200)
        director.submit(gate)
        await gate.begun()
        jobs = [director.submit(print, "") for _ in range(2)]
        assert refusal(director, print).retry_after == pytest.approx(2.0, rel=0.25)
        for job in jobs:
            job.cancel()
        await turns()
        gate.open()


async def test_items_of_batches_take_their_share(clock: TestClock, gate: Gate) -> None:
    def many(_: object, items: list[float]) -> list[float]:
        clock._now += 1.0
        return items

    async with Director("simulated:1", admission="predict", clock=clock) as director:
        function = director.function(many, max_batch_size=4)
        for _ in range(5):
            blocker = director.submit(gate)
            await gate.begun()
            jobs = [function.submit(1.0) for _ in range(4)]
            gate.let(1)
            await asyncio.gather(blocker, *jobs)
        await rested(director)
        director.submit(gate)
        await gate.begun()
        jobs = [function.submit(1.0) for _ in range(20)]
        error = refusal(director, print, priority=-1, deadline=0.1)
        assert isinstance(error, DeadlineUnreachable)
        assert 4.0 <= error.predicted <= 7.0  # five calls of a second, not twenty
        gate.open()


# ---- mistakes


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_queue_per_tenant": -1}, ValueError),
        ({"max_queue_per_tenant": 1.5}, TypeError),
        ({"max_queue_per_tenant": {"a": -1}}, ValueError),
        ({"max_queue_per_tenant": {"a": "1"}}, TypeError),
        ({"admission": "guess"}, ValueError),
        ({"admission": True}, ValueError),
    ],
)
def test_a_wrong_word_is_refused_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Director("simulated:1", **options)


# ---- loading a model


async def test_loading_a_model_tells_nothing_of_the_pace(clock: TestClock, gate: Gate) -> None:
    def takes_a_minute(device: Device) -> Device:
        clock._now += 60.0
        return device

    model = Model(takes_a_minute)
    async with Director("simulated:1", max_queue=3, admission="predict", clock=clock) as director:
        await measured(director, clock, 2.0, jobs=1, model=model)
        for expected in (None, pytest.approx(6.0)):  # at first the only call is the one that has loaded the model
            director.submit(gate)
            await gate.begun()
            jobs = [director.submit(print, "", deadline=9.0) for _ in range(3)]
            assert refusal(director, print).retry_after == expected
            for job in jobs:
                job.cancel()
            gate.let(1)
            await measured(director, clock, 2.0, jobs=40, model=model)


async def test_a_failed_load_tells_nothing_of_the_pace_either(clock: TestClock, gate: Gate) -> None:
    def fails(device: Device) -> None:
        clock._now += 60.0
        raise OSError("no such file")

    async with Director("simulated:1", max_queue=1, clock=clock) as director:
        with pytest.raises(OSError, match="no such file"):
            await director.run(print, model=Model(fails))
        await measured(director, clock, 2.0, jobs=2)
        director.submit(gate)
        await gate.begun()
        director.submit(print, "")
        assert refusal(director, print).retry_after == pytest.approx(2.0)
        gate.let(1)
