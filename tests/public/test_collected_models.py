"""A `Model` to which nothing refers any more: its replicas are unloaded, and the Director keeps nothing of it."""

from __future__ import annotations

import asyncio
import copy
import gc
import threading
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
from harness.gates import PATIENCE, Gate, Recorder, outcome, turns, until

from director import Director, Model
from director.events import ModelUnloaded
from director.testing import simulated_devices

if TYPE_CHECKING:
    from director import Device

EXECUTORS = ["thread", "process"]


def load(_device: Device) -> int:
    return threading.get_ident()


def load_in_vain(_device: Device) -> int:
    raise FileNotFoundError("no weights")


def same(replica: int, *_args: Any) -> int:
    return replica


def batch(replica: int, items: list[int]) -> list[int]:
    return [replica] * len(items)


def is_forgotten(director: Director) -> bool:
    """Nothing of any model is left."""
    gc.collect()
    runtime: Any = director._runtime
    residency, memory = runtime.residency, runtime.scheduler.memory
    if any(device.models for device in director.stats().devices):
        return False
    return not (residency._on_device or residency._resident or residency._watched or memory.models)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("limit", [None, 100])
async def test_its_replicas_are_unloaded(executor: Any, limit: int | None) -> None:
    recorder = Recorder()
    async with Director("cpu:2", executor=executor, memory_limit=limit, hooks=[recorder]) as director:
        model = Model(load, memory=60)
        await director.load(model)
        for _ in range(3):  # from the second one on the Director knows the options
            await director.run(same, model=model)
        assert [device.models for device in director.stats().devices] == [("load",), ("load",)]
        del model
        await until(lambda: is_forgotten(director))
        assert len(recorder.of(ModelUnloaded)) == 2
        assert isinstance(await director.run(same, model=Model(load, memory=60)), int), "there is room"


async def test_it_is_unloaded_on_the_thread_that_has_loaded_it() -> None:
    threads: list[int] = []

    def unload(replica: int) -> None:
        threads.extend((replica, threading.get_ident()))

    async with Director("cpu") as director:
        await director.run(same, model=Model(load, unload=unload))
        await until(lambda: is_forgotten(director))
        assert len(threads) == 2
        assert threads[0] == threads[1]


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_one_for_each_request_leaves_nothing(executor: Any) -> None:
    async with Director("cpu:2", executor=executor) as director:
        for _ in range(20):
            await asyncio.gather(*(director.run(same, model=Model(load)) for _ in range(4)))
        await until(lambda: is_forgotten(director))


async def test_one_that_is_used_once_needs_no_collection_of_cycles() -> None:
    gc.collect()
    gc.disable()
    try:
        async with Director("cpu") as director:
            model = Model(load)
            await director.run(same, model=model)
            gone = ref(model)
            del model
            await until(lambda: gone() is None)
            await until(lambda: director.stats().devices[0].models == ())
    finally:
        gc.enable()


@pytest.mark.parametrize(("fn", "options"), [(same, {}), (batch, {"max_batch_size": 4})])
async def test_a_function_keeps_it(fn: Any, options: Any) -> None:
    recorder = Recorder()
    async with Director("cpu", hooks=[recorder]) as director:
        function = director.function(fn, model=Model(load), **options)
        first = await function(1)
        gc.collect()
        assert await function(1) == first
        assert not recorder.of(ModelUnloaded)
        del function
        await until(lambda: is_forgotten(director))


async def test_a_job_that_waits_keeps_it() -> None:
    gate, recorder = Gate(), Recorder()
    async with Director("cpu", hooks=[recorder]) as director:
        running = director.submit(gate)
        await gate.begun()
        waiting = director.submit(same, model=Model(load))
        gc.collect()
        gate.open()
        await running
        assert isinstance(await waiting, int)
        gc.collect()
        assert not recorder.of(ModelUnloaded), "the job is still held"
        del waiting
        await until(lambda: is_forgotten(director))


async def test_one_that_can_not_be_loaded_is_forgotten() -> None:
    async with Director("cpu") as director:
        assert isinstance(await outcome(director.run(same, model=Model(load_in_vain))), FileNotFoundError)
        await until(lambda: is_forgotten(director))


async def test_it_may_go_on_any_thread() -> None:
    async with Director("cpu") as director:
        holder = [Model(load)]
        await director.run(same, model=holder[0])
        thread = threading.Thread(target=holder.clear)
        thread.start()
        await asyncio.to_thread(thread.join)
        await until(lambda: is_forgotten(director))


async def test_one_that_outlives_its_director_is_of_no_concern() -> None:
    model = Model(load)
    async with Director("cpu") as director:
        await director.run(same, model=model)
    del model
    gc.collect()
    async with Director("cpu") as director:
        assert isinstance(await director.run(same, model=Model(load)), int)


async def test_a_copy_is_another_model() -> None:
    async with Director("cpu") as director:
        model = Model(load)
        other = copy.copy(model)
        await director.run(same, model=model)
        await director.run(same, model=other)
        assert director.stats().devices[0].models == ("load", "load")


async def test_a_model_that_is_collected_while_it_is_evicted_leaves_no_reservation() -> None:
    loop, unloading, may_unload = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def unload(_replica: object) -> None:
        loop.call_soon_threadsafe(unloading.set)
        assert may_unload.wait(PATIENCE)

    model, other = Model(lambda device: device, memory=2**30, unload=unload), Model(lambda device: device, memory=2**30)
    async with Director(simulated_devices(1, memory=2**30)) as director:
        await director.run(lambda replica: replica, model=model)
        waiting = director.submit(lambda replica: replica, model=other)
        await unloading.wait()
        del model
        gc.collect()
        await turns()
        may_unload.set()
        async with asyncio.timeout(PATIENCE):
            assert await waiting is director.devices[0]
