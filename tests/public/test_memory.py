"""`Model(memory=)`, the job option `memory` and `Director(memory_limit=)`: nobody runs out of memory."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest
from harness.device_memory import ProcessMemory, metered
from harness.gates import PATIENCE, Gate, outcome, rested, turns, until

from director import Device, Director, JobState, Model, PlacementError, WorkerDied
from director._scheduler.slots import SlotState
from director.testing import TestClock, simulated_devices

GIB = 2**30


class Counted:
    """A model whose replicas are counted."""

    def __init__(self, name: str, memory: Any = GIB, **options: Any) -> None:
        self.loads: list[int] = []
        self.unloads: list[tuple[int, int]] = []
        self.model = Model(self._load, unload=self._unload, memory=memory, name=name, **options)

    def _load(self, device: Device) -> Device:
        self.loads.append(device.index)
        return device

    def _unload(self, device: Device) -> None:
        self.unloads.append((device.index, threading.get_ident()))


def same(resource: Any) -> Any:
    return resource


@pytest.mark.parametrize(
    ("memory", "expected"),
    [(5, 5), ("7", 7), ("6GiB", 6 * GIB), ("6 gib", 6 * GIB), ("1.5 GiB", 3 * GIB // 2), ("2MB", 2_000_000)],
)
def test_sizes_are_bytes_or_a_text_with_a_unit(memory: Any, expected: int) -> None:
    assert Model(same, memory=memory).memory == expected


def test_the_memory_of_simulated_devices_is_such_a_size_too() -> None:
    assert [device.total_memory for device in simulated_devices(2, memory="6GiB")] == [6 * GIB] * 2
    with pytest.raises(ValueError, match="memory"):
        simulated_devices(2, memory="6 apples")


@pytest.mark.parametrize("memory", ["6 apples", "", "GiB", "-1GiB", "90%", -1, "1e9"])
def test_what_is_no_size_is_refused(memory: Any) -> None:
    with pytest.raises(ValueError, match="memory"):
        Model(same, memory=memory)


@pytest.mark.parametrize("memory", [1.5, object(), True, [1]])
def test_what_is_no_text_and_no_int_is_a_type_error(memory: Any) -> None:
    with pytest.raises(TypeError, match="memory"):
        Model(same, memory=memory)


@pytest.mark.parametrize("limit", ["0%", "101%", "a lot", -1])
def test_a_limit_that_makes_no_sense_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="memory_limit"):
        Director("cpu", memory_limit=limit)


async def test_a_share_of_an_unknown_total_is_refused_at_the_start() -> None:
    with pytest.raises(PlacementError, match="not known"):
        await Director("cpu", memory_limit="90%").start()


async def test_a_limit_for_a_device_that_is_not_there_is_refused_at_the_start() -> None:
    with pytest.raises(PlacementError, match="memory_limit names 7"):
        await Director("cpu", memory_limit={7: "1GiB"}).start()


async def test_a_model_that_can_never_fit_is_refused_with_the_numbers() -> None:
    async with Director(simulated_devices(2, memory=4 * GIB)) as director:
        with pytest.raises(PlacementError, match=r"needs 6 GiB .* simulated:0 4 GiB, simulated:1 4 GiB"):
            director.submit(same, model=Model(same, memory="6GiB"))
        with pytest.raises(PlacementError, match=r"needs 5 GiB .*2 GiB for the call"):
            await director.run(same, model=Model(same, memory="3GiB"), memory="2GiB")
        with pytest.raises(PlacementError, match="may have at most"):
            director.submit(same, memory="5GiB")
        assert director.stats().queued == 0


async def test_it_goes_to_the_device_that_is_large_enough() -> None:
    small, large = simulated_devices(1, memory=4 * GIB)[0], simulated_devices(2, memory=8 * GIB)[1]
    async with Director([small, large]) as director:
        model = Model(same, memory="6GiB")
        assert [await director.run(same, model=model) for _ in range(3)] == [large] * 3


@pytest.mark.parametrize(("limit", "fits"), [(None, 4), ("50%", 2), ("3GiB", 3), ({0: GIB}, 1), ("9GiB", 4)])
async def test_the_limit_says_how_many_replicas_stay(limit: Any, fits: int) -> None:
    models = [Counted(f"m{i}") for i in range(5)]
    async with Director(simulated_devices(1, memory=4 * GIB), memory_limit=limit) as director:
        for each in models:
            await director.run(same, model=each.model)
        await rested(director)
        assert len(director.stats().devices[0].models) == fits
        assert sum(len(each.unloads) for each in models) == 5 - fits


async def test_without_any_limit_nothing_is_unloaded() -> None:
    models = [Counted(f"m{i}", "60GiB") for i in range(5)]
    async with Director("cpu") as director:
        for each in models:
            await director.run(same, model=each.model)
        assert len(director.stats().devices[0].models) == 5


async def test_a_victim_is_unloaded_on_a_slots_thread_before_the_other_is_loaded() -> None:
    order: list[str] = []
    threads: set[int] = set()

    def model(name: str) -> Model[Any]:
        def load(_device: Device) -> str:
            order.append(f"load {name}")
            return name

        def unload(_replica: Any) -> None:
            order.append(f"unload {name}")
            threads.add(threading.get_ident())

        return Model(load, unload=unload, memory=GIB, name=name)

    async with Director(simulated_devices(1, memory=GIB)) as director:
        for each in (model("a"), model("b")):
            threads.add(await director.run(lambda _: threading.get_ident(), model=each))
        await rested(director)
        assert order == ["load a", "unload a", "load b"]
    assert len(threads) == 1


async def test_a_pinned_model_is_never_unloaded_for_others(gate: Gate) -> None:
    pinned, other = Counted("pinned", pin=True), Counted("other")
    async with Director(simulated_devices(1, memory=GIB)) as director:
        await director.run(same, model=pinned.model)
        waiting = director.submit(same, model=other.model)
        assert await director.run(same, model=pinned.model) is director.devices[0]
        await turns()
        assert waiting.state is JobState.QUEUED
        assert not pinned.unloads
        waiting.cancel()


async def test_a_model_in_use_is_not_unloaded_before_its_call_has_ended(gate: Gate) -> None:
    first, second = Counted("first"), Counted("second")
    async with Director(simulated_devices(1, memory=GIB), slots=2) as director:
        busy = director.submit(gate, model=first.model)
        await gate.begun()
        waiting = director.submit(same, model=second.model)
        await turns()
        assert (waiting.state, first.unloads, second.loads) == (JobState.QUEUED, [], [])
        gate.open()
        assert await busy == await waiting == director.devices[0]
        assert (len(first.unloads), second.loads) == (1, [0])


async def test_jobs_take_memory_while_they_run(gate: Gate) -> None:
    async with Director(simulated_devices(1, memory=4 * GIB), slots=4) as director:
        jobs = [director.submit(gate, memory="1.5GiB") for _ in range(4)]
        await gate.begun(2)
        await turns()
        assert sorted(job.state.value for job in jobs) == ["queued", "queued", "running", "running"]
        plain = director.submit(same)
        assert await plain is director.devices[0], "a job that needs none runs beside them"
        gate.let(1)
        await gate.begun(1)
        gate.open()
        await asyncio.gather(*jobs)


async def test_a_jobs_memory_makes_idle_models_leave() -> None:
    model = Counted("m", "3GiB")
    async with Director(simulated_devices(1, memory=4 * GIB)) as director:
        await director.run(same, model=model.model)
        await director.run(same, memory="2GiB")
        assert len(model.unloads) == 1
        assert await director.run(same, model=model.model, memory="1GiB") is director.devices[0]
        assert model.loads == [0, 0]


async def test_a_failed_load_leaves_no_reservation() -> None:
    def fail(_device: Device) -> None:
        raise ValueError("broken")

    async with Director(simulated_devices(1, memory=GIB)) as director:
        job = director.submit(same, model=Model(fail, memory=GIB))
        assert isinstance(await outcome(job), ValueError)
        await director.run(same, model=Counted("good").model)


async def test_a_load_delays_no_jobs_of_resident_models_on_other_slots() -> None:
    may_load = threading.Event()

    def load(device: Device) -> Device:
        assert may_load.wait(PATIENCE)
        return device

    resident = Counted("resident")
    async with Director(simulated_devices(1, memory=2 * GIB), slots=2) as director:
        await director.run(same, model=resident.model)
        slow = Model(load, memory=GIB)
        loading = [director.submit(same, model=slow) for _ in range(3)]
        for _ in range(5):
            await director.run(same, model=resident.model)
        may_load.set()
        await asyncio.gather(*loading)
        assert resident.unloads == []


async def test_unload_unloads_it_everywhere_and_waits() -> None:
    model = Counted("m")
    async with Director(simulated_devices(2, memory=GIB)) as director:
        await director.load(model.model)
        assert sorted(model.loads) == [0, 1]
        await director.unload(model.model)
        assert sorted(index for index, _ in model.unloads) == [0, 1]
        assert [device.models for device in director.stats().devices] == [(), ()]
        await director.run(same, model=model.model)
        assert len(model.loads) == 3


async def test_unload_works_for_a_model_without_memory_and_waits_for_its_call(gate: Gate) -> None:
    model = Counted("m", None)
    async with Director("simulated:1", slots=2) as director:
        busy = director.submit(gate, model=model.model)
        await gate.begun()
        unloading = asyncio.ensure_future(director.unload(model.model))
        await turns()
        assert not unloading.done()
        gate.open()
        await busy
        await unloading
        assert len(model.unloads) == 1
        assert await director.run(same) is director.devices[0]


async def test_unload_of_what_is_loaded_nowhere_returns_at_once() -> None:
    async with Director("simulated:1") as director:
        await director.unload(Model(same))


async def test_a_model_that_says_nothing_of_its_memory_is_unloaded_too() -> None:
    unloaded: list[object] = []
    model = Model(same, unload=unloaded.append)
    async with Director("simulated:1") as director:
        await director.run(same, model=model)
        await director.unload(model)
        assert unloaded == [director.devices[0]]
        await director.run(same, model=model)


async def test_a_cancelled_unload_stops_waiting_and_nothing_else(gate: Gate) -> None:
    model = Counted("m")
    async with Director(simulated_devices(1, memory=GIB)) as director:
        busy = director.submit(gate, model=model.model)
        await gate.begun()
        unloading = asyncio.ensure_future(director.unload(model.model))
        await turns()
        unloading.cancel()
        assert isinstance(await outcome(unloading), asyncio.CancelledError)
        gate.open()
        await busy
        await rested(director)
        assert len(model.unloads) == 1


async def test_a_cancelled_job_gives_what_it_waited_for_to_others(gate: Gate) -> None:
    busy, large, small = Counted("busy", "3GiB"), Counted("large", "4GiB"), Counted("small", "2GiB")
    async with Director(simulated_devices(1, memory=5 * GIB), slots=2) as director:
        running = director.submit(gate, model=busy.model)
        await gate.begun()
        first = director.submit(same, model=large.model)  # it waits until the other one has ended, and drains it
        second = director.submit(same, model=small.model)
        await turns()
        # A worker that is about to leave would look once more.
        slots = director._runtime.scheduler.slots  # type: ignore[union-attr]
        await until(lambda: any(slot.state is SlotState.IDLE for slot in slots))
        assert (first.state, second.state) == (JobState.QUEUED, JobState.QUEUED)
        first.cancel()
        async with asyncio.timeout(PATIENCE):
            assert await second is director.devices[0], "beside the call that runs there is room for it"
        gate.open()
        await running


# ---- in processes


def load_name(device: Device) -> str:
    return device.label


def process_of(_replica: Any) -> int:
    return os.getpid()


async def test_children_unload_models_for_others_and_live_on() -> None:
    models = [Model(load_name, memory=GIB, name=f"m{i}") for i in range(4)]
    async with Director(simulated_devices(1, memory=2 * GIB), executor="process") as director:
        children = {await director.run(process_of, model=model) for model in [*models, *models]}
        await rested(director)
        resident = director.stats().devices[0].models
        assert len(resident) == 2  # what was dearest to load, and the last
        assert "m3" in resident
        await director.unload(models[3])
        assert "m3" not in director.stats().devices[0].models
    assert len(children) == 1


async def test_a_slot_unloads_in_its_child_for_another_slot_of_the_device() -> None:
    small = [Model(load_name, memory=GIB, name=f"small {i}") for i in range(2)]
    large = Model(load_name, memory=2 * GIB, name="large")
    async with Director(simulated_devices(1, memory=2 * GIB), executor="process", slots=2) as director:
        await asyncio.gather(*(director.run(process_of, model=model) for model in small))
        await rested(director)
        await director.run(process_of, model=large)
        await rested(director)
        assert director.stats().devices[0].models == ("large",)


async def test_a_child_that_dies_gives_its_memory_back() -> None:
    model = Model(load_name, memory=GIB)
    async with Director(simulated_devices(1, memory=GIB), executor="process") as director:
        await director.run(process_of, model=model)
        assert isinstance(await outcome(director.submit(end, model=model)), WorkerDied)
        await director.run(process_of, model=Model(load_name, memory=GIB, name="other"))
        await rested(director)
        assert director.stats().devices[0].models == ("other",)


def end(_replica: Any) -> None:
    os._exit(3)


# ---- pins, and memory that does not come back


async def test_a_pinned_set_that_leaves_no_room_is_an_error_at_load_with_the_numbers() -> None:
    pinned = [Model(same, memory="3GiB", pin=True, name=name) for name in ("first", "second")]
    async with Director(simulated_devices(1, memory=4 * GIB)) as director:
        await director.load(pinned[0])
        with pytest.raises(PlacementError, match=r"needs 3 GiB, and models with pin=True .* 3 GiB of 4 GiB"):
            await director.load(pinned[1])
        await director.unload(pinned[0])
        await director.load(pinned[1])


async def test_require_any_is_satisfied_with_the_device_that_has_room() -> None:
    pinned, other = Model(same, memory="3GiB", pin=True, devices=[0]), Model(same, memory="3GiB")
    async with Director(simulated_devices(2, memory=4 * GIB)) as director:
        await director.load(pinned)
        with pytest.raises(PlacementError, match="pin=True"):
            await director.load(other)
        async with asyncio.timeout(PATIENCE):
            await director.load(other, require="any")


def holding(view: ProcessMemory, size: int, kept: int, name: str) -> Model[Any]:
    """A model of `size` bytes, of which `kept` are still allocated after its unload."""

    def load(device: Device) -> Device:
        view.allocate(size)
        return device

    return Model(load, memory=size, unload=lambda _: view.release(size - kept), name=name)


async def test_what_does_not_come_back_stays_reserved_and_is_named(
    clock: TestClock, caplog: pytest.LogCaptureFixture
) -> None:
    devices, (view,) = metered(total=4 * GIB)
    leaky, other = holding(view, 3 * GIB, 3 * GIB - 2**20, "leaky"), Model(same, memory="2GiB", name="other")
    async with Director(devices, clock=clock) as director:
        await director.run(same, model=leaky)
        await director.unload(leaky)
        memory = director.stats().devices[0].memory
        assert (memory.replicas, memory.leaked, memory.free) == (3 * GIB - 2**20, 0, GIB + 2**20), "it may still come"
        job = director.submit(same, model=other)
        await turns()
        assert "leaky 3 GiB (unloaded, and not back yet)" in (await director.explain(job)).text
        clock.advance(6.0)
        memory = director.stats().devices[0].memory
        assert (memory.replicas, memory.leaked, memory.free) == (0, 3 * GIB - 2**20, GIB + 2**20)
        await turns()
        assert job.state is JobState.QUEUED
        assert "leaked by leaky 3 GiB" in (await director.explain(job)).text
        assert "leaky was unloaded from simulated:0, and 3 GiB of its 3 GiB did not come back" in caplog.text
        job.cancel()
        await outcome(job)


class Weights:
    """A replica that can be referred to weakly."""


KEPT: list[Weights] = []


def keep(weights: Weights) -> None:
    KEPT.append(weights)


async def test_the_log_says_what_holds_a_replica_that_leaks(clock: TestClock, caplog: pytest.LogCaptureFixture) -> None:
    devices, (view,) = metered(total=4 * GIB)

    def load(_device: Device) -> Weights:
        view.allocate(3 * GIB)
        return Weights()

    model = Model(load, memory="3GiB", name="leaky")
    try:
        async with Director(devices, clock=clock) as director:
            await director.run(keep, model=model)
            await director.unload(model)
            await turns()
            clock.advance(6.0)
            assert "Its replica is held by a list" in caplog.text
    finally:
        KEPT.clear()


async def test_memory_that_comes_back_slowly_is_free_as_soon_as_it_is_seen(clock: TestClock) -> None:
    devices, (view,) = metered(total=4 * GIB)
    slow, other = holding(view, 3 * GIB, 3 * GIB, "slow"), Model(same, memory="2GiB", name="other")
    async with Director(devices, clock=clock) as director:
        await director.run(same, model=slow)
        await director.unload(slow)
        job = director.submit(same, model=other)
        await turns()
        view.release(GIB // 2)
        view.free_caches()
        clock.advance(1.0)
        await turns()
        assert job.state is JobState.QUEUED, "what is missing stays charged"
        view.release(5 * GIB // 2)
        view.free_caches()
        clock.advance(2.0)
        assert await job is devices[0]
        clock.advance(10.0)
        assert director.stats().devices[0].memory.leaked == 0


async def test_what_is_loaded_meanwhile_is_no_leak(clock: TestClock) -> None:
    devices, (view,) = metered(total=8 * GIB)
    slow, other = holding(view, 3 * GIB, 3 * GIB, "slow"), holding(view, 2 * GIB, 0, "other")
    async with Director(devices, clock=clock) as director:
        await director.run(same, model=slow)
        await director.unload(slow)
        await director.run(same, model=other)
        await turns()
        view.release(3 * GIB)
        clock.advance(1.0)
        memory = director.stats().devices[0].memory
        assert (memory.replicas, memory.leaked) == (2 * GIB, 0)


def leave(device: Device) -> Device:
    device._memory.allocate(2 * GIB)  # type: ignore[attr-defined]
    return device


async def test_a_child_that_keeps_the_memory_of_a_model_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    devices, _ = metered(total=4 * GIB)
    model = Model(leave, memory="2GiB", name="leaky")
    async with Director(devices, executor="process") as director:
        first = await director.run(process_of, model=model)
        await director.unload(model)
        memory = director.stats().devices[0].memory
        assert (memory.replicas, memory.leaked) == (0, 0)
        assert "leaky was unloaded from simulated:0, and its process still has 2 GiB of its memory" in caplog.text
        assert await director.run(process_of, model=model) != first


async def test_what_comes_back_for_the_most_part_is_not_leaked() -> None:
    devices, (view,) = metered(total=4 * GIB)
    model = holding(view, 3 * GIB, GIB // 2, "model")
    async with Director(devices) as director:
        await director.run(same, model=model)
        await director.unload(model)
        assert director.stats().devices[0].memory.leaked == 0
