"""Tenants, ageing and admission by prediction, as a user of a Director sees them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, Recorder, rested, turns

from director import DeadlineUnreachable, Director, JobState, QueueFull
from director.events import JobRejected, JobSubmitted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from director import Job
    from director.testing import TestClock


class Bench:
    """One slot; calls that take a second each of the test's clock, and the order in which they ran."""

    def __init__(self, director: Director, clock: TestClock) -> None:
        self.director = director
        self.clock = clock
        self.ran: list[Any] = []

    def work(self, _device: Any, item: Any, seconds: float = 1.0) -> Any:
        self.ran.append(item)
        self.clock._now += seconds  # the only thread that moves the time
        return item

    def submit(self, item: Any, seconds: float = 1.0, **options: Any) -> Job[Any]:
        return self.director.submit(self.work, item, seconds, **options)

    async def together(self, *wanted: Mapping[str, Any]) -> list[Any]:
        """Submit all of these while the slot is taken, then run them; returns their order."""
        async with self.director.lease():
            jobs = [self.submit(**each) for each in wanted]
        await asyncio.gather(*jobs)
        return self.ran


def bench(clock: TestClock, **options: Any) -> tuple[Director, Bench]:
    director = Director("simulated:1", clock=clock, max_queue=None, **options)
    return director, Bench(director, clock)


# ---- order of service


async def test_tenants_take_turns(clock: TestClock) -> None:
    director, made = bench(clock)
    async with director:
        crowd = [{"item": ("crowd", number), "tenant": "crowd"} for number in range(4)]
        order = await made.together(*crowd, {"item": "late", "tenant": "late"}, {"item": "nobody's"})
        assert order.index("late") <= 2
        assert order.index("nobody's") <= 2
        assert [item for item in order if item[0] == "crowd"] == [("crowd", number) for number in range(4)]


async def test_weights_divide_device_time(clock: TestClock) -> None:
    director, made = bench(clock, tenants={"paid": 3})
    async with director:
        wanted = [{"item": tenant, "tenant": tenant} for tenant in ("free", "paid") * 40]
        order = await made.together(*wanted)
        assert Counter(order[:40])["paid"] == pytest.approx(30, abs=2)


async def test_device_time_counts_and_not_jobs(clock: TestClock) -> None:
    director, made = bench(clock)
    async with director:
        long = [{"item": "long", "seconds": 10.0, "tenant": "long"}] * 10
        short = [{"item": "short", "tenant": "short"}] * 100
        order = await made.together(*long, *short)
        assert order[:77].count("long") == pytest.approx(7, abs=2)


async def test_any_hashable_is_a_tenant(clock: TestClock) -> None:
    director, made = bench(clock, tenants={("team", 1): 2})
    async with director:
        job = made.submit("item", tenant=("team", 1))
        assert job.tenant == ("team", 1)
        assert made.submit("item").tenant is None
        assert await job == "item"


async def test_tenants_share_batches_and_take_turns_in_them(clock: TestClock) -> None:
    director, _ = bench(clock)
    batches: list[list[str]] = []

    def work(_device: Any, items: list[str]) -> list[str]:
        batches.append(items)
        clock._now += 1.0
        return items

    async with director:
        function = director.function(work, max_batch_size=4)
        crowd, late = (function.with_options(tenant=tenant) for tenant in ("crowd", "late"))
        async with director.lease():
            jobs = [crowd.submit("crowd") for _ in range(8)] + [late.submit("late") for _ in range(2)]
        await asyncio.gather(*jobs)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert "late" not in batches[2]


# ---- ageing


async def test_an_old_job_goes_before_a_higher_priority(clock: TestClock) -> None:
    director, made = bench(clock, ageing=60.0)
    async with director:
        async with director.lease():
            low = made.submit("low", priority=-1)
            clock.advance(59.0)
            high = made.submit("high", priority=1)
            clock.advance(1.0)
            other = made.submit("other", priority=1)
        await asyncio.gather(low, high, other)
    assert made.ran == ["low", "high", "other"]


async def test_without_ageing_a_low_priority_waits(clock: TestClock) -> None:
    director, made = bench(clock)
    async with director:
        async with director.lease():
            low = made.submit("low", priority=-1)
            clock.advance(1e6)
            high = made.submit("high")
        await asyncio.gather(low, high)
    assert made.ran == ["high", "low"]


# ---- bounds


async def test_the_bound_of_a_tenant_is_its_own(gate: Gate, recorder: Recorder) -> None:
    async with Director("simulated:1", max_queue_per_tenant=2, hooks=[recorder]) as director:
        director.submit(gate)
        await gate.begun()
        for _ in range(2):
            director.submit(gate, tenant="a")
        with pytest.raises(QueueFull) as caught:
            director.submit(gate, tenant="a")
        assert (caught.value.tenant, caught.value.limit, caught.value.waiting) == ("a", 2, 2)
        assert "a" in str(caught.value)
        director.submit(gate, tenant="b")
        for _ in range(3):
            director.submit(gate)  # jobs without a tenant have no bound of their own
        assert director.stats().rejected == 1
        await turns()
        assert [(type(event.error), event.tenant) for event in recorder.of(JobRejected)] == [(QueueFull, "a")]
        assert [event.tenant for event in recorder.of(JobSubmitted)] == [None, "a", "a", "b", None, None, None]
        gate.open()


async def test_bounds_of_some_tenants(gate: Gate) -> None:
    async with Director("simulated:1", max_queue_per_tenant={"a": 1}, max_queue=6) as director:
        director.submit(gate)
        await gate.begun()
        director.submit(gate, tenant="a")
        with pytest.raises(QueueFull):
            director.submit(gate, tenant="a")
        for _ in range(5):
            director.submit(gate, tenant="b")
        with pytest.raises(QueueFull) as caught:
            director.submit(gate, tenant="b")
        assert (caught.value.tenant, caught.value.limit) == (None, 6)
        gate.open()


async def test_a_patient_caller_waits_in_spite_of_the_bound(gate: Gate) -> None:
    async with Director("simulated:1", max_queue_per_tenant=0) as director:
        director.submit(gate)
        await gate.begun()
        with pytest.raises(QueueFull):
            director.submit(gate, "now", tenant="a")
        patient = asyncio.create_task(director.run(gate, "patient", tenant="a"))
        await turns()
        gate.open()
        assert await patient == "patient"


async def test_a_cancelled_job_makes_room_for_its_tenant(gate: Gate) -> None:
    async with Director("simulated:1", max_queue_per_tenant=1) as director:
        director.submit(gate)
        await gate.begun()
        assert director.submit(gate, tenant="a").cancel()
        director.submit(gate, tenant="a")
        gate.open()


# ---- prediction


async def test_what_would_miss_its_deadline_is_refused(clock: TestClock, recorder: Recorder) -> None:
    director, made = bench(clock, admission="predict", hooks=[recorder])
    async with director:
        for _ in range(4):
            await director.run(made.work, "known", 2.0)
        await rested(director)
        async with director.lease():
            accepted = [made.submit("ahead", 2.0, deadline=60.0) for _ in range(4)]
            with pytest.raises(DeadlineUnreachable) as caught:
                made.submit("too late", 2.0, deadline=5.0)
            assert caught.value.deadline == 5.0
            assert caught.value.predicted == pytest.approx(12.0, rel=0.5)
            assert caught.value.predicted > 5.0
            accepted.append(made.submit("in time", 2.0, deadline=60.0))
            accepted.append(made.submit("urgent", 2.0, deadline=6.0, priority=1))
        await asyncio.gather(*accepted)
        assert director.stats().rejected == 1
        assert [type(event.error) for event in recorder.of(JobRejected)] == [DeadlineUnreachable]
    assert "too late" not in made.ran


@pytest.mark.parametrize("call", ["run", "map", "function"])
async def test_every_way_of_submission_is_refused(clock: TestClock, call: str) -> None:
    director, made = bench(clock, admission="predict")
    async with director:
        for _ in range(4):
            await director.run(made.work, "known", 10.0)
        await rested(director)
        calls = {
            "run": lambda: director.run(made.work, "item", deadline=5.0),
            "map": lambda: anext(director.map(made.work, ["item"], deadline=5.0)),
            "function": lambda: director.function(made.work, deadline=5.0)("item"),
        }
        async with director.lease():  # a free slot refuses nobody
            with pytest.raises(DeadlineUnreachable):
                await calls[call]()
            assert director.stats().queued == 0


async def test_while_nothing_is_known_nothing_is_refused(clock: TestClock) -> None:
    director, made = bench(clock, admission="predict")
    async with director:
        assert await director.run(made.work, "item", 0.0, deadline=0.001) == "item"


async def test_without_prediction_a_hopeless_job_waits_for_its_end(clock: TestClock) -> None:
    director, made = bench(clock)
    async with director:
        await director.run(made.work, "known", 10.0)
        async with director.lease():
            job = made.submit("hopeless", deadline=0.5)
            assert job.state is JobState.QUEUED
            clock.advance(1.0)
            assert job.state is JobState.FAILED


# ---- mistakes


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tenants": {"a": 0}}, ValueError),
        ({"tenants": {"a": -1}}, ValueError),
        ({"tenants": {"a": float("inf")}}, ValueError),
        ({"tenants": {"a": "2"}}, TypeError),
        ({"tenants": {"a": True}}, TypeError),
        ({"tenants": ["a"]}, TypeError),
        ({"max_queue_per_tenant": -1}, ValueError),
        ({"max_queue_per_tenant": 1.5}, TypeError),
        ({"max_queue_per_tenant": {"a": -1}}, ValueError),
        ({"ageing": 0}, ValueError),
        ({"ageing": "1"}, TypeError),
        ({"admission": "guess"}, ValueError),
    ],
    ids=str,
)
def test_policies_that_make_no_sense_are_refused_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Director("simulated:1", **options)


class Named:
    """A tenant that is compared by its name, and counts how often it is asked."""

    asked = 0

    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        Named.asked += 1
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        Named.asked += 1
        return isinstance(other, Named) and other.name == self.name


async def test_a_tenant_is_hashed_and_compared_by_its_caller_alone(gate: Gate) -> None:
    async with Director("simulated:1", tenants={Named("a"): 2.0}, max_queue_per_tenant={Named("a"): 3}) as director:
        first = director.submit(gate)
        await gate.begun()
        jobs = [director.submit(lambda _: 5, tenant=Named("a")) for _ in range(3)]
        with pytest.raises(QueueFull) as refused:  # an equal one has the same bound
            director.submit(lambda _: 5, tenant=Named("a"))
        assert isinstance(refused.value.tenant, Named)
        assert {job.tenant.name for job in jobs} == {"a"}
        asked = Named.asked
        gate.open()
        await asyncio.gather(first, *jobs)
        director.stats()
        assert Named.asked == asked
