"""What a model takes is measured when it is loaded, and charged if it declares less or nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

from harness.device_memory import GIB, DeviceMemory, ProcessMemory, metered
from harness.gates import PATIENCE, Gate, rested, turns

from director import Director, JobState, Model
from director.testing import TestClock, simulated_devices

if TYPE_CHECKING:
    import pytest

    from director import Device


def same(resource: Any) -> Any:
    return resource


def sized(view: ProcessMemory, size: int, declared: Any = None, *, beside: int = 0, **options: Any) -> Model[Any]:
    """A model whose loader allocates `size` bytes, and `beside` more that it frees again."""

    def load(device: Device) -> Device:
        view.allocate(size + beside)
        view.release(beside)
        return device

    def unload(_replica: Any) -> None:
        view.release(size)

    return Model(load, memory=declared, unload=unload, name=options.pop("name", "model"), **options)


def replicas(director: Director) -> list[tuple[str, int, int | None, int | None]]:
    """Of the first device: the models, what is reserved for them, what they declare, and what was measured."""
    return [
        (each.model, each.bytes, each.declared, each.measured) for each in director.stats().devices[0].memory.models
    ]


async def test_declared_and_measured_stand_side_by_side() -> None:
    devices, (view,) = metered()
    model = sized(view, 3 * GIB, "4GiB")
    async with Director(devices) as director:
        await director.run(same, model=model)
        assert replicas(director) == [("model", 4 * GIB, 4 * GIB, 3 * GIB)]


async def test_the_most_that_a_load_and_its_warm_up_had_is_shown_and_not_reserved() -> None:
    devices, (view,) = metered()

    def warm_up(_replica: object) -> None:
        view.allocate(2 * GIB)
        view.release(2 * GIB)

    model = sized(view, 3 * GIB, beside=GIB, warmup=warm_up)
    later = sized(view, GIB, GIB, name="later")
    async with Director(devices, memory_limit="100%") as director:
        for each in (model, later):
            await director.load(each)
        memory = director.stats().devices[0].memory
        assert [(each.model, each.measured, each.peak) for each in memory.models] == [
            ("model", 3 * GIB, 5 * GIB),
            ("later", GIB, GIB),
        ]
        assert memory.reserved == 4 * GIB


async def test_a_peak_is_not_known_where_no_framework_tells() -> None:
    devices, (view,) = metered(tells=False)
    async with Director(devices) as director:
        await director.load(sized(view, 3 * GIB, "3GiB"))
        (replica,) = director.stats().devices[0].memory.models
        assert (replica.measured, replica.peak) == (3 * GIB, None)


async def test_less_than_was_declared_changes_nothing_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    devices, views = metered(2)
    by_device = dict(zip(devices, views, strict=True))

    def load(device: Device) -> Device:
        by_device[device].allocate(2 * GIB)
        return device

    model = Model(load, memory="6GiB", unload=lambda device: by_device[device].release(2 * GIB), name="wide")
    async with Director(devices) as director:
        for _ in range(2):
            await director.load(model)
            assert replicas(director) == [("wide", 6 * GIB, 6 * GIB, 2 * GIB)]
            await director.unload(model)
    told = [record.getMessage() for record in caplog.records if record.name == "director"]
    assert [text for text in told if "wide declares 6 GiB of memory and takes 2 GiB on simulated:0" in text] == [
        text for text in told if "simulated:0" in text
    ]
    assert len([text for text in told if "declares" in text]) == 2, "once for each kind of device"


async def test_what_is_about_right_is_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    devices, (view,) = metered()
    model = sized(view, 4 * GIB, 4 * GIB + GIB // 10)
    async with Director(devices) as director:
        await director.run(same, model=model)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_more_than_was_declared_is_charged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    devices, (view,) = metered(total=8 * GIB)
    model = sized(view, 5 * GIB, GIB, name="large")
    async with Director(devices, slots=2) as director:
        await director.run(same, model=model)
        assert replicas(director) == [("large", 5 * GIB, GIB, 5 * GIB)]
        assert "large declares 1 GiB of memory and takes 5 GiB on simulated:0" in caplog.text
        assert director.stats().devices[0].memory.free == 3 * GIB
        other = sized(view, 4 * GIB, 4 * GIB, name="other")
        await director.run(same, model=other)
        await rested(director)
        assert [name for name, *_ in replicas(director)] == ["other"], "they don't fit beside each other"


async def test_the_next_load_is_charged_with_what_the_last_one_took() -> None:
    devices, (view,) = metered(total=8 * GIB)
    large, other = sized(view, 5 * GIB, GIB, name="large"), sized(view, 4 * GIB, "4GiB", name="other")
    async with Director(devices, slots=2) as director:
        for model in (large, other, large):
            await director.run(same, model=model)
            await rested(director)
        assert [name for name, *_ in replicas(director)] == ["large"]
        assert view.memory.users[0].peak <= 8 * GIB


async def test_what_takes_more_than_the_limit_is_loaded_alone_and_not_refused_for_ever() -> None:
    devices, (view,) = metered(total=8 * GIB)
    large, other = sized(view, 5 * GIB, "2GiB", name="large"), sized(view, GIB, GIB, name="other")
    async with Director(devices, memory_limit="4GiB") as director:
        for model in (large, other, large, other):
            await director.run(same, model=model)
            await rested(director)
            assert len(replicas(director)) == 1


async def test_a_model_that_says_nothing_is_learned_where_there_is_a_limit() -> None:
    devices, (view,) = metered(total=8 * GIB)
    models = [sized(view, 3 * GIB, name=f"m{i}") for i in range(3)]
    async with Director(devices, memory_limit="100%") as director:
        for model in models:
            await director.run(same, model=model)
        assert sum(size for _, size, _, _ in replicas(director)) == 9 * GIB, "nobody knew what the third would take"
        await director.run(same, model=models[0])
        for model in (*models, *models):
            await director.run(same, model=model)
            await rested(director)
            assert sum(size for _, size, _, _ in replicas(director)) <= 8 * GIB
        assert {measured for *_, measured in replicas(director)} == {3 * GIB}


async def test_the_first_load_of_unknown_size_has_the_rest_of_the_device_to_itself() -> None:
    devices, (view,) = metered(total=8 * GIB)
    may_load, loading = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def load(device: Device) -> Device:
        loop.call_soon_threadsafe(loading.set)
        assert may_load.wait(PATIENCE)
        view.allocate(2 * GIB)
        return device

    unknown, known = Model(load, name="unknown"), sized(view, GIB, GIB, name="known", load_alone=False)
    async with Director(devices, slots=3, memory_limit="7GiB") as director:
        first = director.submit(same, model=unknown)
        await loading.wait()
        assert replicas(director) == [("unknown", 7 * GIB, None, None)]
        waiting, call = director.submit(same, model=known), director.submit(same, memory="1GiB")
        plain = await director.run(same)
        await turns()
        assert plain is devices[0]
        assert (waiting.state, call.state) == (JobState.QUEUED, JobState.QUEUED)
        may_load.set()
        await asyncio.gather(first, waiting, call)
        await rested(director)
        assert sorted(replicas(director))[1] == ("unknown", 2 * GIB, None, 2 * GIB)


async def test_where_nothing_can_measure_it_an_unknown_model_is_charged_nothing_as_before() -> None:
    models = [Model(same, name=f"m{i}") for i in range(3)]
    async with Director(simulated_devices(1, memory=GIB), memory_limit="1GiB") as director:
        for model in models:
            await director.run(same, model=model)
        assert [size for _, size, _, _ in replicas(director)] == [0, 0, 0]


async def test_without_a_framework_that_tells_it_is_the_free_memory_before_and_after() -> None:
    devices, (view,) = metered(tells=False)
    model = sized(view, 3 * GIB, "1GiB")
    async with Director(devices) as director:
        await director.run(same, model=model)
        assert replicas(director) == [("model", 3 * GIB, GIB, 3 * GIB)]


async def test_two_loads_at_once_are_not_told_apart_by_free_memory(gate: Gate) -> None:
    devices, (view,) = metered(tells=False)
    both = threading.Barrier(2)

    def load(device: Device) -> Device:
        both.wait(PATIENCE)
        view.allocate(GIB)
        both.wait(PATIENCE)
        return device

    models = [Model(load, memory=GIB, name=name, per_slot=True, load_alone=False) for name in "ab"]
    async with Director(devices, slots=2) as director:
        await asyncio.gather(*(director.run(same, model=model) for model in models))
        assert sorted(replicas(director)) == [("a", GIB, GIB, None), ("b", GIB, GIB, None)]


async def test_a_load_beside_which_others_have_moved_is_not_measured_by_free_memory(clock: TestClock) -> None:
    devices, (view,) = metered(tells=False)
    loading, may_load, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def load(device: Device) -> Device:
        loop.call_soon_threadsafe(loading.set)
        assert may_load.wait(PATIENCE)
        view.allocate(GIB)
        return device

    model = Model(load, memory=GIB)
    async with Director(devices, clock=clock) as director:
        job = director.submit(same, model=model)
        await loading.wait()
        view.memory.foreign = 10 * GIB
        clock.advance(1.0)
        may_load.set()
        await job
        assert replicas(director) == [(model.name, GIB, GIB, None)]


async def test_what_is_freed_during_the_load_is_not_part_of_it() -> None:
    devices, (view,) = metered()
    model = sized(view, 2 * GIB, "2GiB", beside=5 * GIB)
    async with Director(devices) as director:
        await director.run(same, model=model)
        assert replicas(director) == [("model", 2 * GIB, 2 * GIB, 2 * GIB)]


async def test_a_director_without_models_with_memory_measures_nothing() -> None:
    devices, (view,) = metered()
    model = sized(view, 2 * GIB)
    async with Director(devices) as director:
        await director.run(same, model=model)
        await director.run(same)
        assert view.memory.reads == 0


# ---- in processes


def load_here(device: Device) -> Device:
    """In a child: it has what it allocates."""
    device._memory.allocate(3 * GIB)  # type: ignore[attr-defined]
    return device


async def test_a_child_tells_what_it_has_allocated() -> None:
    devices, _ = metered()
    model = Model(load_here, memory="1GiB", name="model")
    async with Director(devices, executor="process") as director:
        await director.run(same, model=model)
        assert replicas(director) == [("model", 3 * GIB, GIB, 3 * GIB)]


def test_the_memory_of_a_simulated_device_is_no_part_of_what_it_is() -> None:
    (device,) = simulated_devices(1)
    other = DeviceMemory(GIB).process().attach(simulated_devices(1)[0])
    assert (device, hash(device), repr(device)) == (other, hash(other), repr(other))
