"""What others use of a device is taken off what models may have, and loads wait for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from harness.device_memory import GIB, DeviceMemory, ProcessMemory, metered
from harness.gates import Gate, Recorder, outcome, rested, turns, until

from director import Director, HealthRules, JobState, Model, PlacementError
from director.events import MemoryVeto
from director.testing import TestClock, simulated_devices

if TYPE_CHECKING:
    from director import Device


def same(resource: Any) -> Any:
    return resource


def sized(view: ProcessMemory, size: int, name: str = "model") -> Model[Any]:
    """A model that takes what it declares."""

    def load(device: Device) -> Device:
        view.allocate(size)
        return device

    return Model(load, memory=size, unload=lambda _: view.release(size), name=name)


def foreign(director: Director) -> int:
    return director.stats().devices[0].memory.foreign


async def test_what_others_use_is_known_before_the_first_load() -> None:
    devices, (view,) = metered()
    view.memory.foreign = 10 * GIB
    model = sized(view, 4 * GIB)
    async with Director(devices, clock=TestClock()) as director:
        await director.run(same, model=model)
        memory = director.stats().devices[0].memory
        assert (memory.foreign, memory.replicas, memory.free) == (10 * GIB, 4 * GIB, 2 * GIB)


async def test_a_foreign_process_that_grows_and_shrinks(clock: TestClock) -> None:
    devices, (view,) = metered()
    small, large = sized(view, GIB, "small"), sized(view, 10 * GIB, "large")
    async with Director(devices, clock=clock, slots=2) as director:
        await director.run(same, model=small)
        view.memory.foreign = 8 * GIB
        clock.advance(1.0)
        assert foreign(director) == 8 * GIB, "more is believed at once"
        waiting = director.submit(same, model=large)
        await turns()
        assert await director.run(same, model=small) is devices[0], "what is there runs on"
        assert waiting.state is JobState.QUEUED
        text = (await director.explain(waiting)).text
        assert "needs 10 GiB, and 7 GiB of 16 GiB are free" in text
        assert "others 8 GiB" in text
        view.memory.foreign = 2 * GIB
        clock.advance(5.0)
        await turns()
        assert (foreign(director), waiting.state) == (8 * GIB, JobState.QUEUED), "it may come back"
        view.memory.foreign = 3 * GIB
        clock.advance(0.5)
        view.memory.foreign = 2 * GIB
        clock.advance(1.0)
        assert await waiting is devices[0]
        assert foreign(director) <= 3 * GIB


async def test_a_veto_is_an_event_with_the_numbers_and_ends(clock: TestClock) -> None:
    devices, (view,) = metered()
    recorder, model = Recorder(), sized(view, 6 * GIB, "detector")
    view.memory.foreign = 12 * GIB
    async with Director(devices, clock=clock, hooks=[recorder]) as director:
        waiting = director.submit(same, model=model)
        await turns()
        assert not recorder.of(MemoryVeto), "our own caches are emptied first"
        clock.advance(1.0)
        event = await recorder.seen(MemoryVeto)
        assert (event.model, event.device, event.bytes, event.free) == ("detector", devices[0], 6 * GIB, 4 * GIB)
        clock.advance(10.0)
        await turns()
        assert len(recorder.of(MemoryVeto)) == 1
        view.memory.foreign = 0
        clock.advance(7.0)
        assert await waiting is devices[0]


async def test_a_veto_that_lasts_with_nothing_of_ours_running_is_an_error_with_the_numbers(clock: TestClock) -> None:
    devices, (view,) = metered()
    model = sized(view, 6 * GIB, "detector")
    view.memory.foreign = 12 * GIB
    async with Director(devices, clock=clock) as director:
        waiting = director.submit(same, model=model)
        await turns()
        clock.advance(59.0)
        await turns()
        assert waiting.state is JobState.QUEUED
        clock.advance(3.0)
        error = await outcome(waiting)
        assert isinstance(error, PlacementError)
        assert "detector needs 6 GiB of the memory of simulated:0, where others leave 4 GiB free" in str(error)


async def test_a_veto_lasts_while_something_of_ours_runs(clock: TestClock, gate: Gate) -> None:
    devices, (view,) = metered()
    model = sized(view, 6 * GIB)
    view.memory.foreign = 12 * GIB
    async with Director(devices, clock=clock, slots=2) as director:
        busy, waiting = director.submit(gate), director.submit(same, model=model)
        await gate.begun()
        clock.advance(100.0)
        await turns()
        assert waiting.state is JobState.QUEUED
        gate.open()
        await busy
        await rested(director)
        clock.advance(62.0)
        assert isinstance(await outcome(waiting), PlacementError)


async def test_jobs_that_may_go_elsewhere_are_not_failed(clock: TestClock, gate: Gate) -> None:
    devices, views = metered(2)
    by_device = dict(zip(devices, views, strict=True))
    views[0].memory.foreign = 12 * GIB
    model = Model(lambda device: by_device[device].allocate(6 * GIB), memory=6 * GIB)
    async with Director(devices, clock=clock) as director:
        busy = director.submit(gate, devices=1)
        await gate.begun()
        waiting = director.submit(same, model=model)
        clock.advance(100.0)
        await turns()
        assert waiting.state is JobState.QUEUED
        gate.open()
        await asyncio.gather(busy, waiting)
        assert waiting.device is devices[1]


async def test_our_own_caches_are_emptied_before_a_load_waits_for_them(clock: TestClock) -> None:
    devices, (view,) = metered()
    recorder, first, second = Recorder(), sized(view, 2 * GIB, "first"), sized(view, 6 * GIB, "second")
    async with Director(devices, clock=clock, hooks=[recorder]) as director:
        await director.run(same, model=first)
        view.allocate(12 * GIB)  # a call's, which leaves it in the pool
        view.release(12 * GIB)
        clock.advance(1.0)
        job = director.submit(same, model=second)
        await turns()
        clock.advance(1.0)
        await until(lambda: view.pool == 2 * GIB)
        clock.advance(1.0)
        assert await job is devices[0]
        assert not recorder.of(MemoryVeto)


async def test_two_directors_are_others_to_each_other(clock: TestClock) -> None:
    memory = DeviceMemory(16 * GIB)
    views = [memory.process() for _ in range(2)]
    devices = [view.attach(simulated_devices(1, memory=16 * GIB)[0]) for view in views]
    mine, theirs = (sized(view, 10 * GIB, name) for view, name in zip(views, ("mine", "theirs"), strict=True))
    options: dict[str, Any] = {"shared": f"memory-{id(memory)}", "clock": clock}
    async with Director([devices[0]], **options) as first, Director([devices[1]], **options) as second:
        await first.run(same, model=mine)
        waiting = second.submit(same, model=theirs)
        await turns()
        assert (foreign(second), waiting.state) == (10 * GIB, JobState.QUEUED)
        await first.unload(mine)
        clock.advance(7.0)
        assert await waiting is devices[1]
        clock.advance(1.0)
        assert foreign(first) == 10 * GIB


async def test_a_full_device_is_no_veto_where_a_model_can_leave(clock: TestClock) -> None:
    devices, (view,) = metered(total=4 * GIB)
    recorder, models = Recorder(), [sized(view, 3 * GIB, name) for name in "ab"]
    async with Director(devices, clock=clock, hooks=[recorder]) as director:
        for model in (*models, *models):
            await director.run(same, model=model)
            await rested(director)
            for _ in range(2):
                clock.advance(1.0)
        assert not recorder.of(MemoryVeto)


async def test_without_models_with_memory_nothing_is_read(clock: TestClock) -> None:
    devices, (view,) = metered()
    model = Model(same)
    async with Director(devices, clock=clock) as director:
        await director.run(same, model=model)
        await director.run(same, priority=1)
        clock.advance(10.0)
        assert view.memory.reads == 0


async def test_a_device_that_can_not_be_read_is_served_by_the_ledger(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("director._runtime.devices.memory_monitor.read_free", lambda _device: None)
    devices, (view,) = metered()
    model = sized(view, 4 * GIB)
    async with Director(devices) as director:
        assert await director.run(same, model=model) is devices[0]
    assert "the free memory can't be read" in caplog.text


# ---- GPUs, whose answers come from other threads


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Any]]:
    """A GPU that is none, and the answers of its driver; an event is waited for first."""
    from director import Device

    answers: list[Any] = []

    def read(_device: Device) -> Any:
        return (answers[0], 16 * GIB) if answers else None

    monkeypatch.setattr("director._runtime.devices.memory_monitor.read_free", read)
    return Device(0, "GPU-0", "card", "cuda", 16 * GIB), answers


async def test_a_gpu_is_read_on_a_thread_of_its_own(gpu: tuple[Any, list[Any]]) -> None:
    device, answers = gpu
    answers.append(6 * GIB)
    model = Model(same, memory="8GiB")
    async with Director([device], health=HealthRules(interval=5.0), memory_limit="100%") as director:
        waiting = director.submit(same, model=model)
        await until(lambda: foreign(director) == 10 * GIB)
        assert waiting.state is JobState.QUEUED
        waiting.cancel()
        await outcome(waiting)


async def test_without_nvml_a_gpu_is_served_by_the_ledger(gpu: tuple[Any, list[Any]]) -> None:
    device, answers = gpu
    answers.append(0)
    model = Model(same, memory="8GiB")
    async with Director([device], health=HealthRules(interval=None)) as director:
        assert await director.run(same, model=model) is device


# ---- processes


def load_here(device: Device) -> Device:
    device._memory.allocate(2 * GIB)  # type: ignore[attr-defined]
    return device


async def test_the_context_of_a_child_is_charged_once_and_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    devices, _ = metered()
    free = iter([(16 * GIB, 16 * GIB), (13 * GIB, 16 * GIB)])  # before the first load, and after: a context of 1 GiB
    after = (11 * GIB, 16 * GIB)
    monkeypatch.setattr("director._executors.process.runner.free_memory", lambda _device: next(free, after)[0])
    models = [Model(load_here, memory=2 * GIB, name=name) for name in "ab"]
    async with Director(devices, executor="process") as director:
        for model in models:
            await director.run(same, model=model)
            memory = director.stats().devices[0].memory
            assert memory.context == GIB
        assert memory.replicas == 4 * GIB
        assert memory.reserved - memory.foreign == 5 * GIB
        assert all(each.bytes == 2 * GIB for each in memory.models), "it is no part of a model's figure"
