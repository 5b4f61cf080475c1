"""`as_executor` from any thread, `resource=`, what libraries read of it; `current_replica`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator  # noqa: TC003 - of functions that children import
from typing import Any

import pytest
from harness.gates import PATIENCE

import director as package
from director import Device, Director, DirectorClosed, Model, PlacementError, current_device, current_replica

EXECUTORS = ["thread", "process"]


def load(device: Device) -> str:
    return f"replica on {device.index}"


def asks() -> tuple[int, str]:
    return current_device().index, current_replica()


def asks_too(_replica: str, *_args: Any) -> str:
    return str(current_replica())


def asks_each(_replica: str, items: list[int]) -> list[str]:
    return [current_replica()] * len(items)


def asks_and_yields(_replica: str) -> Iterator[str]:
    yield current_replica()


def asks_without(_device: Any = None) -> str:
    try:
        return str(current_replica())
    except RuntimeError as error:
        return str(error)


def given(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return args, kwargs


def numbers() -> Iterator[int]:
    yield 1


async def suspended() -> int:
    return 1


async def async_numbers() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_it_is_made_and_used_on_any_thread(executor: Any) -> None:
    async with Director("simulated:2", executor=executor) as director:

        def use() -> Any:
            with director.as_executor(priority=1) as calls:
                return list(calls.map(abs, [-1, -2, -3], timeout=4 * PATIENCE))

        assert await asyncio.to_thread(use) == [1, 2, 3]


async def test_threads_may_make_many_at_once() -> None:
    async with Director("simulated:2", slots=2) as director:
        results: list[int] = []

        def use(number: int) -> None:
            for each in range(20):
                executor = director.as_executor(tenant=f"{number}-{each}", model=Model(load))
                results.append(executor.submit(lambda: number).result(PATIENCE))

        threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
    assert sorted(results) == sorted(list(range(4)) * 20)


async def test_one_that_is_not_open_refuses() -> None:
    director = Director("simulated:1")
    with pytest.raises(DirectorClosed):
        director.as_executor()
    async with director:
        pass
    with pytest.raises(DirectorClosed):
        await asyncio.to_thread(director.as_executor)


async def test_libraries_can_read_how_many_it_runs_at_once() -> None:
    async with Director("simulated:3", slots=2) as director:
        assert director.as_executor()._max_workers == 6
        assert director.as_executor(devices=[0, 2])._max_workers == 4
        assert director.as_executor(model=Model(load, replicas=1))._max_workers == 2
        with pytest.raises(PlacementError):
            director.as_executor(devices="cuda:7")


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_with_resource_the_replica_or_device_comes_first(executor: Any) -> None:
    async with Director("simulated:1", executor=executor) as director:

        async def call(model: Model[str] | None, resource: bool) -> Any:
            calls = director.as_executor(model=model, resource=resource)
            return await asyncio.wrap_future(calls.submit(given, 1, key=2))

        device = director.devices[0]
        assert await call(Model(load), True) == (("replica on 0", 1), {"key": 2})
        assert await call(None, True) == ((device, 1), {"key": 2})
        assert await call(Model(load), False) == ((1,), {"key": 2})


@pytest.mark.parametrize("resource", [1, None, "yes"])
async def test_resource_is_a_bool(resource: Any) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match="resource"):
            director.as_executor(resource=resource)


async def test_functions_return_what_they_like() -> None:
    async with Director("simulated:1") as director:
        calls = director.as_executor()
        assert next(await asyncio.wrap_future(calls.submit(numbers))) == 1
        assert await (await asyncio.wrap_future(calls.submit(suspended))) == 1
        assert await anext(await asyncio.wrap_future(calls.submit(async_numbers))) == 1


async def test_it_refuses_a_function() -> None:
    async with Director("simulated:1") as director:
        function = director.function(given)
        with pytest.raises(TypeError, match="__wrapped__"):
            director.as_executor().submit(function, 1)


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_a_call_knows_its_replica(executor: Any) -> None:
    model = Model(load)
    async with Director("simulated:1", executor=executor) as director:
        assert await asyncio.wrap_future(director.as_executor(model=model).submit(asks)) == (0, "replica on 0")
        for _ in range(3):
            assert await director.run(asks_too, 1, model=model) == "replica on 0"
        batches = director.function(asks_each, model=model, max_batch_size=2)
        assert await asyncio.gather(batches(1), batches(2)) == ["replica on 0"] * 2
        assert [each async for each in director.stream(asks_and_yields, model=model)] == ["replica on 0"]


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_a_call_without_a_model_has_none(executor: Any) -> None:
    async with Director("simulated:1", executor=executor) as director:
        assert "has none" in await director.run(asks_without)
        assert "has none" in await asyncio.wrap_future(director.as_executor().submit(asks_without))


def test_outside_of_a_job_there_is_none() -> None:
    with pytest.raises(RuntimeError, match="for jobs"):
        current_replica()
    assert "current_replica" in package.__all__
