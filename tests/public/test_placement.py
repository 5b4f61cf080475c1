"""Which device a job goes to: the least loaded of those that may run it, ties in rotation, never over its slots."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, Recorder, rested, turns

from director import Device, Director, DirectorState, PlacementError
from director.events import WorkerReaped
from director.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Mapping


def where(device: Device) -> int:
    return device.index


async def begun_on(director: Director, gate: Gate, **options: Any) -> int:
    """Begin a job that holds its slot; the index of the device that it went to."""
    director.submit(gate, **options)
    await gate.begun()
    device: Device = gate.calls[-1][0]
    return device.index


async def test_the_least_loaded_device_first(gate: Gate) -> None:
    async with Director("simulated:3", slots=2) as director:
        first = [await begun_on(director, gate) for _ in range(3)]
        second = [await begun_on(director, gate) for _ in range(3)]
        assert sorted(first) == sorted(second) == [0, 1, 2]
        gate.open()


async def test_least_loaded_means_most_free_slots(gate: Gate) -> None:
    async with Director("simulated:2", slots={0: 1, 1: 3}) as director:
        assert [await begun_on(director, gate) for _ in range(2)] == [1, 1]
        assert sorted([await begun_on(director, gate) for _ in range(2)]) == [0, 1]
        gate.open()


async def test_a_burst_is_spread_too(gate: Gate) -> None:
    async with Director("simulated:4", slots=2) as director:
        for _ in range(8):
            director.submit(gate)
        await gate.begun(8)
        assert Counter(device.index for (device,) in gate.calls) == {0: 2, 1: 2, 2: 2, 3: 2}
        gate.open()


async def test_ties_rotate_between_jobs_that_are_awaited_in_turn() -> None:
    async with Director("simulated:3") as director:
        went = []
        for _ in range(9):
            went.append(await director.run(where))
            await rested(director)
    assert sorted(went[:3]) == [0, 1, 2]
    assert went == went[:3] * 3


async def test_ties_rotate_when_the_workers_have_left_in_between() -> None:
    recorder = Recorder()
    async with Director("simulated:3", hooks=[recorder]) as director:
        went = []
        for number in range(1, 7):
            went.append(await director.run(where))
            await recorder.seen(WorkerReaped, number)
    assert sorted(went[:3]) == [0, 1, 2]
    assert went == went[:3] * 2


async def test_a_job_is_bound_to_a_device_only_when_one_is_free(gate: Gate) -> None:
    async with Director("simulated:2") as director:
        for item in range(2):
            director.submit(gate, item)
        await gate.begun(2)
        waits = director.submit(where)
        await turns()
        assert waits.device is None
        on = {item: device.index for device, item in gate.calls}
        gate.let(1)  # whichever ends: its device takes the job, the other goes on
        went = await waits
        gate.open()
        assert went in on.values()
        assert director.stats().devices[went].jobs == 2


MAPPINGS: list[Mapping[Any, int]] = [
    {1: 3},
    {"SIM-1": 3},
    {"simulated:1": 3},
    {simulated_devices(2)[1]: 3},
    {0: 1, "SIM-1": 3},
]


@pytest.mark.parametrize("slots", MAPPINGS, ids=["index", "uuid", "name", "device", "both"])
async def test_slots_by_a_mapping_and_one_where_none_is_given(slots: Mapping[Any, int], gate: Gate) -> None:
    async with Director("simulated:2", slots=slots) as director:
        assert [device.slots for device in director.stats().devices] == [1, 3]
        for _ in range(6):
            director.submit(gate)
        await gate.begun(4)
        await turns()
        assert Counter(device.index for (device,) in gate.calls) == {0: 1, 1: 3}
        gate.open()


async def test_slots_for_a_device_that_is_not_there_are_refused_at_the_start() -> None:
    director = Director("simulated:2", slots={"GPU-8f2a": 2})
    with pytest.raises(PlacementError, match="GPU-8f2a"):
        await director.start()
    assert director.state is DirectorState.NEW


SUBSETS: list[Any] = [
    1,
    "SIM-1",
    "simulated:1",
    simulated_devices(3)[1],
    [1],
    ("SIM-1", 1),
    {1},
    pytest.param(iter([1]), id="iterator"),
]


@pytest.mark.parametrize("devices", SUBSETS, ids=str)
async def test_a_subset_by_index_uuid_name_or_device(devices: Any) -> None:
    async with Director("simulated:3") as director:
        jobs = [director.submit(where, devices=[1]) for _ in range(4)]
        jobs.append(director.submit(where, devices=devices))
        assert await asyncio.gather(*jobs) == [1] * 5


async def test_a_subset_of_two_uses_both_and_no_other(gate: Gate) -> None:
    async with Director("simulated:3") as director:
        jobs = [director.submit(gate, devices=[0, 2]) for _ in range(3)]
        await gate.begun(2)
        await turns()
        assert sorted(device.index for (device,) in gate.calls) == [0, 2]
        gate.open()
        await asyncio.gather(*jobs)
        assert {device.index for (device,) in gate.calls} == {0, 2}


async def test_all_devices_by_name_is_the_same_as_none_named() -> None:
    async with Director("simulated:2") as director:
        went = []
        for _ in range(4):
            went.append(await director.run(where, devices=["SIM-1", 0]))
            await rested(director)
    assert sorted(went) == [0, 0, 1, 1]


async def test_a_job_for_a_busy_device_holds_up_nobody_else(gate: Gate) -> None:
    async with Director("simulated:2") as director:
        await begun_on(director, gate, devices=[0])
        waits = [director.submit(where, devices=[0], priority=10) for _ in range(3)]
        assert await director.run(where) == 1
        assert await director.run(where, devices=[1]) == 1
        assert not any(job.done() for job in waits)
        gate.open()
        assert await asyncio.gather(*waits) == [0, 0, 0]


async def test_the_error_of_a_placement_that_can_never_be_names_what_there_is() -> None:
    async with Director("simulated:2") as director:
        with pytest.raises(PlacementError, match=r"'cuda:3'.*simulated:0.*simulated:1"):
            director.submit(where, devices=["cuda:3"])


async def test_a_device_never_runs_more_than_its_slots() -> None:
    lock = threading.Lock()
    running: Counter[int] = Counter()
    most: Counter[int] = Counter()

    def count(device: Device) -> None:
        with lock:
            running[device.index] += 1
            most[device.index] = max(most[device.index], running[device.index])
        threading.Event().wait(0.0002)
        with lock:
            running[device.index] -= 1

    choice = random.Random(7)
    async with Director("simulated:3", slots={0: 1, 1: 2, 2: 3}) as director:
        for _ in range(40):
            subsets = [None, [0], [1, 2], [0, 2]]
            jobs = [
                director.submit(count, devices=choice.choice(subsets), priority=choice.randrange(3)) for _ in range(10)
            ]
            await asyncio.sleep(0)
            for job in choice.sample(jobs, 3):
                job.cancel()
        await director.drain()
        stats = director.stats()
    assert all(most[index] <= slots for index, slots in enumerate([1, 2, 3]))
    assert stats.succeeded + stats.cancelled == 400
    assert [device.busy for device in stats.devices] == [0, 0, 0]
