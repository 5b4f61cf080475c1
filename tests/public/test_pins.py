"""Pinned models that don't fit together: an error at `load`, with the numbers, whatever comes first."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from harness.gates import PATIENCE, Gate, outcome

from director import Director, Model, PlacementError
from director.testing import simulated_devices

GIB = 2**30
NO_ROOM = r"needs 3 GiB, and models with pin=True leave no room for it on simulated:0: they have 3 GiB of 4 GiB"


def same(resource: Any) -> Any:
    return resource


def pinned(name: str, load: Any = same, **options: Any) -> Model[Any]:
    return Model(load, memory="3GiB", pin=True, name=name, **options)


def one_device() -> Any:
    return simulated_devices(1, memory=4 * GIB)


async def together(*awaitables: Any) -> list[Any]:
    """What they return or raise."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*awaitables, return_exceptions=True)


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_of_two_loads_at_once_one_is_an_error(executor: Any) -> None:
    async with Director(one_device(), executor=executor) as director:
        models = [pinned("first"), pinned("second")]  # kept: a model that is collected is unloaded
        first, second = await together(*map(director.load, models))
        assert first is None
        with pytest.raises(PlacementError, match=NO_ROOM):
            raise second
        assert director.stats().devices[0].models == ("first",)
        assert director.stats().queued == 0


@pytest.mark.parametrize("is_second_pinned", [True, False])
async def test_a_load_that_waits_is_one_when_a_job_loads_a_pinned_model(gate: Gate, is_second_pinned: bool) -> None:
    second = Model(same, memory="3GiB", pin=is_second_pinned)
    async with Director(one_device()) as director:
        busy = director.submit(gate)
        await gate.begun()
        job = director.submit(same, model=pinned("first"), priority=2**40)  # before any load
        loading = asyncio.ensure_future(director.load(second))
        await asyncio.sleep(0)
        gate.open()
        *results, error = await together(busy, job, loading)
        assert results == [director.devices[0]] * 2
        with pytest.raises(PlacementError, match=NO_ROOM):
            raise error


async def test_jobs_of_a_model_without_room_still_wait(gate: Gate) -> None:
    first, other = pinned("first"), Model(same, memory="3GiB")
    async with Director(one_device()) as director:
        busy = director.submit(gate)
        await gate.begun()
        job, loading = director.submit(same, model=other), asyncio.ensure_future(director.load(first))
        await asyncio.sleep(0)
        gate.open()
        await together(busy, loading)
        await director.unload(first)
        assert await job is director.devices[0]


async def test_with_several_devices_any_is_enough_and_all_is_not() -> None:
    first, second = pinned("first", devices=[0]), pinned("second")
    async with Director(simulated_devices(2, memory=4 * GIB)) as director:
        assert await together(director.load(first), director.load(second, require="any")) == [None, None]
        assert [device.models for device in director.stats().devices] == [("first",), ("second",)]
        third = pinned("third")
        with pytest.raises(PlacementError, match="leave no room"):
            await director.load(third)
        assert is_placement(await outcome(director.load(third, require="any")))


def is_placement(error: Any) -> bool:
    return isinstance(error, PlacementError)


async def test_of_three_at_once_the_two_that_fit_are_loaded() -> None:
    models = [Model(same, memory="2GiB", pin=True, name=name) for name in "abc"]
    async with Director(one_device(), slots=2) as director:
        outcomes = await together(*map(director.load, models))
        assert outcomes[:2] == [None, None]
        with pytest.raises(PlacementError, match="they have 4 GiB of 4 GiB"):
            raise outcomes[2]


async def test_one_that_is_pinned_for_more_slots_than_fit_is_an_error() -> None:
    model = pinned("model", per_slot=True)
    async with Director(one_device(), slots=2) as director:
        with pytest.raises(PlacementError, match="needs 6 GiB on 2 slots"):
            await director.load(model)
        async with asyncio.timeout(PATIENCE):
            await director.load(model, require="any")
        assert director.stats().devices[0].models == ("model",)


async def test_a_failed_load_of_a_pinned_model_leaves_the_room_to_later_ones() -> None:
    may_fail = threading.Event()

    def fail(_device: Any) -> None:
        assert may_fail.wait(PATIENCE)
        raise ValueError("broken")

    async with Director(one_device()) as director:
        broken = asyncio.ensure_future(director.load(pinned("broken", fail)))
        assert is_placement(await outcome(director.load(pinned("good"))))
        may_fail.set()
        assert isinstance(await outcome(broken), ValueError)
        await director.load(pinned("better"))
        assert director.stats().devices[0].models == ("better",)
