"""`when_full`: one rule for all of admission. A call that returns at once may refuse, a call that is awaited waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from harness.gates import Gate, turns

from director import Director, Model, QueueFull


def same(_device: Any, value: Any = None) -> Any:
    return value


class Full:
    """A Director whose queue is full until the gate is opened."""

    def __init__(self, gate: Gate, when_full: Any) -> None:
        self.gate = gate
        self.director = Director("simulated:1", max_queue=1, when_full=when_full)

    async def __aenter__(self) -> Director:
        await self.director.start()
        self.jobs = [self.director.submit(self.gate)]
        await self.gate.begun()
        self.jobs.append(self.director.submit(same))
        return self.director

    async def __aexit__(self, *_: object) -> None:
        self.gate.open()
        await self.director.close()


@pytest.fixture
def full(gate: Gate) -> Any:
    return lambda when_full=None: Full(gate, when_full)


async def test_awaited_calls_wait_and_submitted_ones_are_refused(full: Any, gate: Gate) -> None:
    async with full() as director:
        f = director.function(same)
        for refused in (lambda: director.submit(same), f.submit):
            with pytest.raises(QueueFull):
                refused()
        waiting = [asyncio.ensure_future(each) for each in (director.run(same, 1), f(2))]
        await turns()
        assert director.stats().queued == 3
        gate.open()
        assert await asyncio.gather(*waiting) == [1, 2]


async def test_a_director_that_refuses(full: Any) -> None:
    async with full("refuse") as director:
        f = director.function(same)
        for call in (lambda: director.run(same), lambda: f(1)):
            with pytest.raises(QueueFull):
                await call()
        for submit in (lambda: director.submit(same), lambda: f.submit(1)):
            with pytest.raises(QueueFull):
                submit()


async def test_a_director_that_waits(full: Any, gate: Gate) -> None:
    async with full("wait") as director:
        f = director.function(same)
        jobs = [director.submit(same, 1), f.submit(2)]
        assert director.stats().queued == 3
        gate.open()
        assert [await job for job in jobs] == [1, 2]


@pytest.mark.parametrize("of_director", [None, "wait", "refuse"])
async def test_the_option_of_a_job_counts_before_the_director_s(full: Any, gate: Gate, of_director: Any) -> None:
    async with full(of_director) as director:
        with pytest.raises(QueueFull):
            await director.run(same, when_full="refuse")
        with pytest.raises(QueueFull):
            director.submit(same, when_full="refuse")
        with pytest.raises(QueueFull):
            await director.function(same, when_full="refuse")(1)
        with pytest.raises(QueueFull):
            director.function(same, max_batch_size=4, when_full="refuse").submit(1)
        jobs = [director.submit(same, 1, when_full="wait"), director.function(same, when_full="wait").submit(2)]
        gate.open()
        assert [await job for job in jobs] == [1, 2]


async def test_map_load_and_lease_wait_whatever_the_director_says(full: Any, gate: Gate) -> None:
    async with full("refuse") as director:
        model = Model(lambda device: "replica")
        results = director.map(same, [1, 2])
        first = asyncio.ensure_future(anext(results))
        load = asyncio.ensure_future(director.load(model))

        async def hold() -> str:
            async with director.lease() as device:
                return str(device)

        lease = asyncio.ensure_future(hold())
        called = director.as_executor().submit(int)
        await turns()
        gate.open()
        assert await first == 1
        assert await anext(results) == 2
        await load
        assert await lease == "cpu"
        assert await asyncio.wrap_future(called) == 0


async def test_an_item_of_map_that_is_refused_fails_as_that_item(full: Any, gate: Gate) -> None:
    async with full() as director:
        results = director.map(same, [1], when_full="refuse", return_exceptions=True)
        assert isinstance(await anext(results), QueueFull)
        with pytest.raises(QueueFull):
            async for _ in director.map(same, [1], when_full="refuse"):
                pass


async def test_a_lease_may_refuse(full: Any) -> None:
    async with full() as director:
        with pytest.raises(QueueFull):
            async with director.lease(when_full="refuse"):
                pass


async def test_the_bound_of_a_tenant_likewise(gate: Gate) -> None:
    async with Director("simulated:1", max_queue_per_tenant=1, when_full="refuse") as director:
        director.submit(gate)
        await gate.begun()
        director.submit(same, tenant="a")
        with pytest.raises(QueueFull):
            await director.run(same, tenant="a")
        other = asyncio.ensure_future(director.run(same, 3, tenant="a", when_full="wait"))
        await turns()
        gate.open()
        assert await other == 3


@pytest.mark.parametrize("wrong", ["drop", "", 1, True, b"wait"])
async def test_anything_else_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="when_full"):
        Director("simulated:1", when_full=wrong)
    async with Director("simulated:1") as director:
        with pytest.raises(ValueError, match="when_full"):
            director.submit(same, when_full=wrong)
        with pytest.raises(ValueError, match="when_full"):
            director.function(same, when_full=wrong)
