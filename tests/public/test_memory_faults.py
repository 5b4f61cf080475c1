"""Devices whose memory is full, and contexts that are broken. What frameworks raise is recognised by its words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from harness.gates import Gate, until

from director import DeviceLost, Director, Health
from director.testing import simulated_devices

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB"
BROKEN = "CUDA error: an illegal memory access was encountered"


class Network:
    """Stands in for one that runs batches of up to `room` items on a device, and notes their sizes."""

    def __init__(self, *rooms: int) -> None:
        self.rooms = list(rooms)
        self.sizes: list[int] = []

    def __call__(self, device: Any, items: list[int]) -> list[tuple[int, int]]:
        self.sizes.append(len(items))
        if len(items) > self.rooms[device.index]:
            raise RuntimeError(FULL)
        return [(device.index, item) for item in items]


async def filled(director: Director, function: Any, count: int) -> list[Any]:
    """The results of `count` items that have waited behind a gate, so that they make full batches."""
    gate = Gate()
    held = [director.submit(gate) for _ in range(sum(device.slots for device in director.stats().devices))]
    await gate.begun()
    jobs = [function.submit(item) for item in range(count)]
    gate.open()
    await asyncio.gather(*held)
    return await asyncio.gather(*jobs, return_exceptions=True)


async def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    network = Network(3)
    async with Director("simulated:1") as director:
        function = director.function(network, max_batch_size=8)
        assert await filled(director, function, 8) == [(0, item) for item in range(8)]
        assert network.sizes == [8, 4, 2, 2, 4, 2, 2]


async def test_the_size_that_fits_is_remembered_and_raised_slowly() -> None:
    network = Network(4)
    async with Director("simulated:1", max_queue=None) as director:
        function = director.function(network, max_batch_size=8)
        await filled(director, function, 8)
        network.sizes.clear()
        await filled(director, function, 16)
        assert network.sizes == [4] * 4
        network.rooms[0] = 8
        await filled(director, function, 4 * 40)
        assert 5 in network.sizes
        await filled(director, function, 2000)
        assert max(network.sizes) == 8


async def test_limits_are_those_of_a_batch_key() -> None:
    seen: list[tuple[str, int]] = []

    def run(_: Any, items: list[str]) -> list[str]:
        seen.append((items[0], len(items)))
        if items[0] == "wide" and len(items) > 2:
            raise RuntimeError(FULL)
        return items

    async with Director("simulated:1") as director:
        function = director.function(run, max_batch_size=4, batch_key=lambda item: item)
        for _ in range(2):
            seen.clear()
            gate = Gate()
            held = director.submit(gate)
            await gate.begun()
            jobs = [function.submit(item) for item in ["wide"] * 4 + ["narrow"] * 4]
            gate.open()
            await asyncio.gather(held, *jobs)
        assert sorted(seen) == [("narrow", 4), ("wide", 2), ("wide", 2)]


async def test_one_item_that_does_not_fit_is_tried_once_more_and_fails_with_the_sizes() -> None:
    network = Network(0)
    async with Director("simulated:1") as director:
        function = director.function(network, max_batch_size=4)
        with pytest.raises(RuntimeError, match="out of memory") as caught:
            await function(1)
        assert network.sizes == [1, 1]
        assert "full in calls with 1 items" in caught.value.__notes__[0]
        assert director.stats().devices[0].health is Health.HEALTHY


async def test_an_item_that_does_not_fit_goes_to_a_device_with_more_memory() -> None:
    small, large = simulated_devices(1, memory=2**30)[0], simulated_devices(2, memory=2**35)[1]
    network = Network(0, 10)
    async with Director([small, large]) as director:
        function = director.function(network, max_batch_size=4)
        for item in range(4):
            assert await function(item) == (1, item)
        with pytest.raises(RuntimeError, match="out of memory"):
            await function.with_options(devices=0)(1)


async def test_a_cancelled_item_is_not_in_the_halves() -> None:
    inside, seen = Gate(), []

    def run(device: Any, items: list[int]) -> list[int]:
        seen.append(items)
        if len(items) == 4:
            inside(device)
            raise RuntimeError(FULL)
        return items

    async with Director("simulated:1") as director:
        gate = Gate()
        held = director.submit(gate)
        await gate.begun()
        function = director.function(run, max_batch_size=4)
        jobs = [function.submit(item) for item in range(4)]
        gate.open()
        await held
        await inside.begun()
        jobs[1].cancel()
        inside.open()
        await asyncio.gather(*jobs, return_exceptions=True)
        assert [jobs[n].result() for n in (0, 2, 3)] == [0, 2, 3]
        assert seen == [[0, 1, 2, 3], [0], [2, 3]]


async def test_a_broken_context_closes_the_device_for_good() -> None:
    def crash(_: Any) -> None:
        raise RuntimeError(BROKEN)

    async with Director("simulated:2") as director:
        with pytest.raises(RuntimeError, match="illegal memory access"):
            await director.run(crash, devices=0)
        await until(lambda: director.stats().devices[0].health is Health.QUARANTINED)
        assert "restart" in (director.stats().devices[0].reason or "")
        assert {await director.run(lambda device: device.index) for _ in range(5)} == {1}
        with pytest.raises(DeviceLost):
            director.submit(crash, devices=0)


async def test_a_job_that_meets_a_broken_context_is_tried_elsewhere_if_it_may() -> None:
    def crash_on_first(device: Any) -> int:
        if device.index == 0:
            raise RuntimeError(BROKEN)
        return int(device.index)

    async with Director("simulated:2") as director:
        assert [await director.run(crash_on_first, retries=1) for _ in range(4)] == [1] * 4
