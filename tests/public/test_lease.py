"""`lease`: one slot held by code that offloads by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from harness.gates import Gate, turns, until

from director import Device, Director, DirectorClosed, JobState, Model


def where(device: Device) -> int:
    return device.index


async def test_it_gives_a_device_and_holds_its_slot() -> None:
    async with Director("simulated:2") as director:
        async with director.lease() as device:
            assert device in director.devices
            assert director.stats().devices[device.index].busy == 1
            assert director.stats().running == 1
            other = 1 - device.index
            assert [await director.run(where) for _ in range(3)] == [other] * 3
            waits = director.submit(where, devices=[device])
            await turns()
            assert waits.state is JobState.QUEUED
        assert await waits == device.index
        await until(lambda: director.stats().devices[device.index].busy == 0)
        assert director.stats().running == 0


async def test_with_a_model_it_gives_the_replica() -> None:
    model = Model(lambda device: f"replica on {device.label}")
    async with Director("simulated:1") as director, director.lease(model=model) as replica:
        assert replica == "replica on simulated:0"


async def test_its_options_count() -> None:
    async with Director("simulated:2") as director, director.lease(devices=["SIM-1"], priority=2) as device:
        assert device.index == 1


@pytest.mark.parametrize("option", ["deadline", "timeout"])
async def test_it_takes_no_time_limits_and_says_what_to_do(option: str) -> None:
    options: dict[str, Any] = {option: 1}
    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match=r"asyncio\.timeout"):
            director.lease(**options)


async def test_the_slot_comes_back_when_the_block_fails() -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(ZeroDivisionError):
            async with director.lease():
                raise ZeroDivisionError
        assert await director.run(where) == 0


async def test_cancelled_while_it_waits_it_gives_up_its_place(gate: Gate) -> None:
    async def hold() -> None:
        async with director.lease():
            raise AssertionError("it should never get here")

    async with Director("simulated:1") as director:
        director.submit(gate)
        await gate.begun()
        holder = asyncio.create_task(hold())
        await turns()
        assert director.stats().queued == 1
        holder.cancel()
        await asyncio.wait([holder])
        assert holder.cancelled()
        assert director.stats().queued == 0
        gate.open()
        assert await director.run(where) == 0


async def test_cancelled_inside_the_block_it_gives_the_slot_back() -> None:
    async def hold() -> None:
        async with director.lease():
            held.set()
            await asyncio.Event().wait()

    held = asyncio.Event()
    async with Director("simulated:1") as director:
        holder = asyncio.create_task(hold())
        await held.wait()
        holder.cancel()
        await asyncio.wait([holder])
        assert holder.cancelled()
        assert await director.run(where) == 0


async def test_leases_are_served_with_the_jobs_by_priority(gate: Gate) -> None:
    async def hold(priority: int) -> None:
        async with director.lease(priority=priority):
            order.append(priority)

    order: list[int] = []
    async with Director("simulated:1") as director:
        director.submit(gate)
        await gate.begun()
        holders = []
        for priority in (1, 3, 2):
            holders.append(asyncio.create_task(hold(priority)))
            await turns()
        gate.open()
        await asyncio.gather(*holders)
    assert order == [3, 2, 1]


async def test_it_waits_for_room_in_the_queue(gate: Gate) -> None:
    async def hold() -> int:
        async with director.lease() as device:
            return int(device.index)

    async with Director("simulated:1", max_queue=1) as director:
        director.submit(gate)
        await gate.begun()
        director.submit(gate)
        holder = asyncio.create_task(hold())
        await turns()
        assert not holder.done()
        gate.open()
        assert await holder == 0


async def test_it_is_used_once_and_says_so() -> None:
    async with Director("simulated:1") as director:
        lease = director.lease()
        async with lease:
            pass
        with pytest.raises(RuntimeError, match="once"):
            await lease.__aenter__()


async def test_one_that_is_never_entered_holds_nothing() -> None:
    async with Director("simulated:1") as director:
        director.lease()
        assert await director.run(where) == 0
        assert director.stats().queued == 0


async def test_a_model_that_does_not_load_fails_it_with_the_loaders_error() -> None:
    def load(_device: Device) -> None:
        raise MemoryError("too big")

    async with Director("simulated:1") as director:
        with pytest.raises(MemoryError, match="too big"):
            async with director.lease(model=Model(load)):
                raise AssertionError("it should never get here")
        assert await director.run(where) == 0


async def test_draining_waits_for_the_holder() -> None:
    async def hold() -> None:
        async with director.lease():
            held.set()
            await leave.wait()

    held, leave = asyncio.Event(), asyncio.Event()
    async with Director("simulated:1") as director:
        holder = asyncio.create_task(hold())
        await held.wait()
        draining = asyncio.create_task(director.drain())
        await turns()
        assert not draining.done()
        leave.set()
        await asyncio.gather(holder, draining)


async def test_closing_in_haste_fails_who_waits_for_one() -> None:
    async def hold() -> None:
        async with director.lease():
            held.set()
            await leave.wait()

    held, leave = asyncio.Event(), asyncio.Event()
    director = Director("simulated:1")
    await director.start()
    holder, waits = asyncio.create_task(hold()), asyncio.create_task(hold())
    await held.wait()
    waits.add_done_callback(lambda _: leave.set())
    await director.close(0)
    await asyncio.wait([holder, waits])
    assert isinstance(waits.exception(), DirectorClosed)
    assert not holder.cancelled()
