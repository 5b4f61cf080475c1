"""`function`: options bound once to a function, by a decorator or a call."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from harness.gates import Gate, turns

from director import Device, Director, DirectorClosed, Function, Job, Model, QueueFull, current_job

module_director = Director("simulated:1")


@module_director.function
def where(device: Device, item: int = 0) -> tuple[int, int]:
    """Say where."""
    return device.index, item


@module_director.function(priority=7, name="loud")
def loud(_device: Device, word: str) -> tuple[str, int, str]:
    job = current_job()
    return word.upper(), job.priority, job.name


async def test_at_module_level_before_the_start() -> None:
    assert isinstance(where, Function)
    with pytest.raises(DirectorClosed):
        await where(1)
    async with module_director:
        assert await where(1) == (0, 1)
        assert await where() == (0, 0)
        assert await loud("hey") == ("HEY", 7, "loud")
    with pytest.raises(DirectorClosed):
        where.submit(1)


async def test_it_goes_on_with_a_director_that_is_started_again() -> None:
    for _ in range(2):
        async with module_director:
            assert await where(2) == (0, 2)


def test_it_goes_on_with_a_director_on_another_loop() -> None:
    async def once() -> tuple[int, int]:
        async with module_director:
            return await where(3)

    assert [asyncio.run(once()), asyncio.run(once())] == [(0, 3), (0, 3)]


async def test_as_a_call() -> None:
    async with Director("simulated:1") as director:
        plain = director.function(lambda _device, item: item + 1)
        with_options = director.function(lambda replica, item: replica + item, model=Model(lambda _: 10))
        assert await plain(1) == 2
        assert await with_options(1) == 11


def test_it_looks_like_the_function() -> None:
    assert (where.__name__, where.__doc__, where.__module__) == ("where", "Say where.", __name__)
    assert where.__wrapped__.__name__ == "where"  # type: ignore[attr-defined]
    assert "where" in repr(where)
    assert inspect.iscoroutinefunction(where.__call__)


async def test_submit_returns_a_job(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=0) as director:
        held = director.function(gate, name="held")
        job = held.submit("it")
        assert isinstance(job, Job)
        assert job.name == "held"
        with pytest.raises(QueueFull):
            held.submit("too much")
        gate.open()
        assert await job == "it"


async def test_a_call_waits_for_room(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=1) as director:
        held = director.function(gate)
        calls = [asyncio.ensure_future(held(item)) for item in range(5)]
        await turns()
        gate.open()
        assert await asyncio.gather(*calls) == [0, 1, 2, 3, 4]


async def test_cancelling_a_call_cancels_its_job(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        call = asyncio.ensure_future(director.function(gate)(1))
        await gate.begun()
        call.cancel()
        await asyncio.wait([call])
        assert director.stats().cancelled == 1
        gate.open()


async def test_map_with_and_without_order() -> None:
    async with Director("simulated:2") as director:
        double = director.function(lambda _device, item: 2 * item)
        assert [result async for result in double.map(range(5), window=2)] == [0, 2, 4, 6, 8]
        assert sorted([result async for result in double.map(range(5), ordered=False)]) == [0, 2, 4, 6, 8]
        failing = director.function(lambda _device, item: 1 // item)
        results = [result async for result in failing.map([1, 0], return_exceptions=True)]
        assert [results[0], type(results[1])] == [1, ZeroDivisionError]


@pytest.mark.parametrize(
    ("options", "error"),
    [({"priority": "high"}, TypeError), ({"timeout": 0}, ValueError), ({"max_batch_size": "8"}, TypeError)],
)
def test_a_wrong_option_is_refused_where_it_is_bound(options: dict[str, Any], error: type[Exception]) -> None:
    director = Director("simulated:1")
    with pytest.raises(error, match=next(iter(options))):
        director.function(**options)
    with pytest.raises(error, match=next(iter(options))):
        director.function(len, **options)


def test_what_is_not_callable_is_refused_where_it_is_bound() -> None:
    with pytest.raises(TypeError, match="call"):
        Director("simulated:1").function("detect")  # type: ignore[call-overload]


async def test_devices_are_bound_once() -> None:
    devices = [1]
    async with Director("simulated:2") as director:
        by_iterator = director.function(lambda device: device.index, devices=iter([1]))
        by_list = director.function(lambda device: device.index, devices=devices)
        devices[:] = [0]  # changes nothing any more
        assert [await by_iterator(), await by_iterator(), await by_list()] == [1, 1, 1]


async def test_a_method_of_an_object() -> None:
    class Detector:
        bias = 3

        def detect(self, _device: Device, item: int) -> int:
            return self.bias + item

    async with Director("simulated:1") as director:
        assert await director.function(Detector().detect)(1) == 4


async def test_other_options_for_some_calls(gate: Gate) -> None:
    async with Director("simulated:2") as director:
        f = director.function(gate, priority=1, name="f")
        urgent = f.with_options(priority=9, tenant="a", devices=iter([1]))
        gate.open()
        for _ in range(2):
            job = urgent.submit("x")
            assert (job.priority, job.name, job.tenant) == (9, "f", "a")
            assert await job == "x"
            assert job.device is not None
            assert job.device.index == 1
        assert f.submit("y").priority == 1


async def test_other_options_share_the_batches(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        sizes = []

        @director.function(max_batch_size=8)
        def double(_device: Device, items: list[int]) -> list[int]:
            sizes.append(len(items))
            return [2 * item for item in items]

        busy = director.submit(gate)
        await gate.begun()
        several = [double, double.with_options(deadline=60), double.with_options(tenant="a", priority=3)]
        jobs = [f.submit(n) for n, f in enumerate(several)]
        gate.open()
        assert await asyncio.gather(*jobs) == [0, 2, 4]
        assert sizes == [3]
        await busy


def test_a_wrong_option_for_some_calls() -> None:
    with pytest.raises(TypeError, match="unknown option 'speed'"):
        where.with_options(speed=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="is an option of functions"):
        where.with_options(max_batch_size=3)  # type: ignore[call-arg]
