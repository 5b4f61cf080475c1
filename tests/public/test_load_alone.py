"""`Model(load_alone=)`: loads of one process take turns, one is beside others, or alone in the process."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from harness.gates import PATIENCE, Gate, outcome, turns, until

from director import Device, Director, Model


class Loads:
    """A loader that stands until it is told to go on; counts those that are inside, and the most there were."""

    def __init__(self, go: bool = False) -> None:
        self._lock = threading.Lock()
        self._passes = threading.Semaphore(1000 if go else 0)
        self.inside = self.most = self.begun = 0

    def __call__(self, device: Device) -> int:
        with self._lock:
            self.inside += 1
            self.begun += 1
            self.most = max(self.most, self.inside)
        assert self._passes.acquire(timeout=PATIENCE)
        with self._lock:
            self.inside -= 1
        return device.index

    def go(self, count: int = 1) -> None:
        self._passes.release(count)


async def test_loads_take_turns() -> None:
    loads = Loads()
    async with Director("simulated:4") as director:
        loading = asyncio.create_task(director.load(Model(loads)))
        for count in range(1, 5):
            await until(lambda count=count: loads.begun == count)
            await turns()
            assert loads.inside == 1
            loads.go()
        await loading
    assert (loads.begun, loads.most) == (4, 1)


async def test_loads_of_all_directors_of_the_process_take_turns() -> None:
    loads = Loads()
    async with Director("simulated:1") as one, Director("simulated:1") as other:
        loading = asyncio.gather(one.load(Model(loads)), other.load(Model(loads)))
        await until(lambda: loads.begun == 1)
        await turns()
        assert loads.begun == 1
        loads.go(2)
        await loading
    assert loads.most == 1


async def test_false_is_loaded_beside_other_loads() -> None:
    loads, turned = Loads(), Loads()
    async with Director("simulated:4") as director:
        loading = asyncio.create_task(director.load(Model(loads, load_alone=False, devices=[0, 1, 2])))
        other = asyncio.create_task(director.load(Model(turned, devices=[3])))
        await until(lambda: (loads.inside, turned.inside) == (3, 1))
        loads.go(3)
        turned.go()
        await asyncio.gather(loading, other)


async def test_jobs_run_beside_a_load() -> None:
    loads = Loads()
    async with Director("simulated:2") as director:
        loading = asyncio.create_task(director.load(Model(loads, devices=[0])))
        await until(lambda: loads.inside)
        assert await director.run(lambda device: device.index) == 1
        loads.go()
        await loading


async def test_true_is_loaded_when_what_runs_has_ended_and_nothing_begins(gate: Gate) -> None:
    loads = Loads()
    async with Director("simulated:2") as director, Director("simulated:1") as other:
        held = [director.submit(gate, devices=[1]), other.submit(gate)]
        for _ in held:
            await gate.begun()
        loading = asyncio.create_task(director.load(Model(loads, load_alone=True, devices=[0])))
        await until(lambda: director.stats().devices[0].busy)
        await turns()
        waits = [director.submit(lambda device: device.index, devices=[1]), other.submit(lambda _: "other")]
        await turns()
        assert loads.begun == 0
        gate.open()
        await until(lambda: loads.inside)
        await asyncio.gather(*held)
        await turns()
        assert [job.done() for job in waits] == [False, False]
        late = director.submit(lambda _: "late")
        await turns()
        assert not late.done()
        loads.go()
        await loading
        assert await asyncio.gather(*waits, late) == [1, "other", "late"]


async def test_two_that_are_alone_do_not_wait_for_each_other() -> None:
    loads = Loads(go=True)
    async with Director("simulated:3", slots=2) as director:
        models = [Model(loads, load_alone=True) for _ in range(2)]
        jobs = [director.submit(lambda index: index, model=model) for _ in range(12) for model in models]
        await asyncio.gather(*jobs)
    assert loads.most == 1


@pytest.mark.parametrize("alone", [None, True])
async def test_a_load_that_fails_ends_its_turn(alone: bool | None) -> None:
    def load(device: Device) -> int:
        if device.index == 0:
            raise ValueError
        return device.index

    async with Director("simulated:2") as director:
        model = Model(load, load_alone=alone)
        assert isinstance(await outcome(director.load(model)), ValueError)
        assert await director.run(lambda index: index, model=model) == 1
        assert await director.run(lambda device: device.index, devices=[0]) == 0


async def test_jobs_that_wait_for_a_load_that_is_alone_begin_after_the_next_one_too() -> None:
    """Slots that wait for one load, when the next one is alone: its loader sees none of their calls."""
    inside, seen = 0, []
    lock = threading.Lock()

    def load(device: Device) -> int:
        seen.append(inside)
        return device.index

    def infer(index: int) -> int:
        nonlocal inside
        with lock:
            inside += 1
        with lock:
            inside -= 1
        return index

    async with Director("simulated:2", slots=4) as director:
        models = [Model(load, load_alone=True) for _ in range(6)]
        jobs = [director.submit(infer, model=model) for _ in range(8) for model in models]
        await asyncio.gather(*jobs)
    assert set(seen) == {0}


async def test_a_director_that_opens_meanwhile_waits_too() -> None:
    loads = Loads()
    async with Director("simulated:1") as director:
        loading = asyncio.create_task(director.load(Model(loads, load_alone=True)))
        await until(lambda: loads.inside)
        async with Director("simulated:1") as other:
            job = other.submit(lambda _: 1)
            await turns()
            assert not job.done()
            loads.go()
            assert await job == 1
        await loading


async def test_a_device_that_is_closed_meanwhile_stays_closed() -> None:
    loads = Loads()
    async with Director("simulated:2") as director:
        loading = asyncio.create_task(director.load(Model(loads, load_alone=True, devices=[0])))
        await until(lambda: loads.inside)
        runtime = director._runtime
        runtime.health.registry.quarantine(runtime.device_slots[1], "on purpose")  # type: ignore[union-attr]
        loads.go()
        await loading
        assert {await director.run(lambda device: device.index) for _ in range(4)} == {0}


@pytest.mark.parametrize("value", [0, 1, "yes"])
def test_it_is_true_false_or_none(value: Any) -> None:
    with pytest.raises(TypeError, match="load_alone"):
        Model(lambda device: device, load_alone=value)
