"""A device on which a model can't be loaded takes no jobs from the devices on which it can."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, Recorder, outcome, turns, until

from director import Device, DeviceLost, Director, Health, HealthRules, Model
from director.events import JobRetried, ModelFailed, WorkerReaped

if TYPE_CHECKING:
    from collections.abc import Callable

    from director.testing import TestClock


class Broken(Exception):
    pass


class Loader:
    """A loader that raises on some devices, and notes where it was called."""

    def __init__(self, *broken: int) -> None:
        self.broken = set(broken)
        self.calls: list[int] = []

    def __call__(self, device: Device) -> int:
        self.calls.append(device.index)
        if device.index in self.broken:
            raise Broken(device.index)
        return device.index


def where(index: int, *_args: Any) -> int:
    return index


async def test_a_job_whose_load_fails_goes_to_a_device_where_it_can_be_loaded() -> None:
    failed = threading.Event()
    broken = Loader(0)

    def load(device: Device) -> int:
        if device.index == 0:
            failed.set()
        else:
            assert failed.wait(PATIENCE), "the other device does not load it"
        return broken(device)

    recorder, model = Recorder(), Model(load, load_alone=False)
    async with Director("simulated:2", hooks=[recorder]) as director:
        jobs = [director.submit(where, model=model) for _ in range(24)]
        assert await asyncio.gather(*jobs) == [1] * 24
        stats = director.stats()
    assert (stats.succeeded, stats.failed) == (24, 0)
    assert [event.device.index for event in recorder.of(ModelFailed)] == [0]


async def test_it_is_no_attempt_and_needs_no_retries() -> None:
    recorder, model = Recorder(), Model(Loader(0))
    async with Director("simulated:2", hooks=[recorder]) as director:
        job = director.submit(where, model=model)  # an idle Director begins with the first device
        assert await job == 1
        assert job.attempts == 1
        assert job.device is not None
        assert job.device.index == 1
    assert [type(event.error) for event in recorder.of(JobRetried)] == [Broken]


async def test_only_where_no_device_is_left_it_fails_with_the_loaders_own_error() -> None:
    loader = Loader(0, 1, 2)
    model = Model(loader)
    async with Director("simulated:3") as director:
        jobs = [director.submit(where, model=model) for _ in range(8)]
        await asyncio.wait(jobs, timeout=PATIENCE)
        assert {type(job.exception()) for job in jobs} == {Broken}
    assert sorted(loader.calls) == [0, 1, 2]


async def test_a_loader_that_fails_twice_on_a_device_is_not_awaited_on_a_busy_one(clock: TestClock, gate: Gate) -> None:
    """The fault may be the loader's, and the busy device may be busy for hours."""
    loader, recorder = Loader(0, 1), Recorder()
    model = Model(loader)
    async with Director("simulated:2", clock=clock, hooks=[recorder]) as director:
        held = director.submit(gate, devices=[1])
        await gate.begun()
        jobs = [director.submit(where, model=model) for _ in range(3)]
        await until(lambda: recorder.of(JobRetried))  # the device backs off since the clock's present time
        await turns()
        assert loader.calls == [0]
        assert not any(job.done() for job in jobs)
        clock.advance(1.0)
        await asyncio.wait(jobs, timeout=PATIENCE)
        assert {type(job.exception()) for job in jobs} == {Broken}
        assert loader.calls == [0, 0]
        gate.open()
        await held


async def test_it_is_awaited_where_it_is_being_loaded(clock: TestClock) -> None:
    loads, go = Loader(0), threading.Event()

    def load(device: Device) -> int:
        index = loads(device)
        assert go.wait(PATIENCE)
        return index

    model = Model(load, load_alone=False)
    async with Director("simulated:2", clock=clock) as director:
        first = director.submit(where, model=model, devices=[1])
        await until(lambda: loads.calls == [1])
        job = director.submit(where, model=model)
        for failures in range(1, 5):
            await until(lambda failures=failures: loads.calls.count(0) == failures)
            await turns()
            assert not job.done()
            clock.advance(60)
        go.set()
        assert await job == await first == 1


async def test_jobs_wait_for_a_device_that_has_it_though_it_is_busy(clock: TestClock, gate: Gate) -> None:
    loader = Loader(0)
    model = Model(loader)
    async with Director("simulated:2", clock=clock, health=HealthRules(failures=100)) as director:
        held = director.submit(gate, model=model, devices=[1])
        await gate.begun()
        jobs = [director.submit(where, model=model) for _ in range(5)]
        for failures in range(1, 5):
            await until(lambda failures=failures: loader.calls == [1, *[0] * failures])
            await turns()
            clock.advance(60)
        await turns()
        assert [job.done() for job in jobs] == [False] * 5
        gate.open()
        assert await asyncio.gather(*jobs) == [1] * 5
        await held


async def test_a_free_device_in_back_off_takes_other_jobs(gate: Gate) -> None:
    loader = Loader(0)
    model = Model(loader)
    async with Director("simulated:2") as director:
        held = director.submit(gate, model=model, devices=[1])
        await gate.begun()
        waits = director.submit(where, model=model)
        await until(lambda: loader.calls == [1, 0])
        assert await director.run(lambda device: device.index) == 0
        assert await director.run(where, model=Model(lambda device: device.index)) == 0
        assert not waits.done()
        gate.open()
        assert await waits == 1
        await held
    assert loader.calls == [1, 0]


@pytest.mark.parametrize("failures", [1, 2, 3, 8])
async def test_the_back_off_is_one_second_then_two_and_at_most_sixty(
    clock: TestClock, gate: Gate, failures: int
) -> None:
    loader = Loader(0)
    model = Model(loader)
    async with Director("simulated:2", clock=clock, health=HealthRules(failures=100)) as director:
        for _ in range(failures - 1):
            await outcome(director.run(where, model=model, devices=[0]))
        held = director.submit(gate, model=model, devices=[1])
        await gate.begun()
        clock.advance(3600)
        waits = director.submit(where, model=model)
        await until(lambda: loader.calls.count(0) == failures)
        await turns()
        delay = min(60, 2 ** (failures - 1))
        clock.advance(delay - 0.01)
        await turns()
        assert loader.calls.count(0) == failures
        loader.broken.clear()
        clock.advance(0.02)
        assert await waits == 0
        gate.open()
        await held


async def test_a_load_that_succeeds_ends_the_back_off(clock: TestClock, gate: Gate) -> None:
    loader = Loader(0)
    model = Model(loader)
    async with Director("simulated:2", clock=clock) as director:
        await outcome(director.run(where, model=model, devices=[0]))
        loader.broken.clear()
        assert await director.run(where, model=model, devices=[0]) == 0
        held = director.submit(gate, model=model, devices=[1])
        await gate.begun()
        assert await director.run(where, model=model) == 0
        gate.open()
        await held


def quarantine(director: Director, index: int) -> None:
    runtime = director._runtime
    runtime.health.registry.quarantine(runtime.device_slots[index], "on purpose")  # type: ignore[union-attr]


async def test_a_device_in_quarantine_is_none_that_is_left() -> None:
    model = Model(Loader(0))
    async with Director("simulated:2") as director:
        quarantine(director, 1)
        with pytest.raises(Broken):
            await director.run(where, model=model)


async def test_a_closed_device_wakes_one_that_backs_off(clock: TestClock, gate: Gate) -> None:
    """Its call never ends, so its own worker wakes nobody."""
    loader, recorder = Loader(0), Recorder()
    model = Model(loader)
    async with Director("simulated:2", clock=clock, hooks=[recorder]) as director:
        held = director.submit(gate, model=model, devices=[1])
        await gate.begun()
        waits = director.submit(where, model=model)
        await recorder.seen(WorkerReaped)
        assert loader.calls == [1, 0]
        loader.broken.clear()
        quarantine(director, 1)
        assert await asyncio.wait_for(waits, PATIENCE) == 0
        gate.open()
        await held


async def test_health_counts_it_where_the_model_is_loaded_elsewhere(clock: TestClock) -> None:
    model = Model(Loader(1))
    async with Director("simulated:2", clock=clock, health=HealthRules(failures=3)) as director:
        await director.run(where, model=model)
        for expected in (Health.HEALTHY, Health.HEALTHY, Health.QUARANTINED):
            assert isinstance(await outcome(director.run(where, model=model, devices=[1])), Broken)
            await until(lambda expected=expected: director.stats().devices[1].health is expected)
        assert [device.health for device in director.stats().devices] == [Health.HEALTHY, Health.QUARANTINED]
        assert "Loader" in (director.stats().devices[1].reason or "")


async def test_health_does_not_count_a_loader_that_fails_everywhere() -> None:
    model = Model(Loader(0, 1))
    async with Director("simulated:2", health=HealthRules(failures=1)) as director:
        for _ in range(5):
            assert isinstance(await outcome(director.run(where, model=model)), Broken)
        await turns()
        assert [device.health for device in director.stats().devices] == [Health.HEALTHY] * 2


async def test_the_log_says_where_it_failed(caplog: pytest.LogCaptureFixture) -> None:
    model = Model(Loader(0), name="detector")
    with caplog.at_level(logging.WARNING, "director"):
        async with Director("simulated:2") as director:
            assert await director.run(where, model=model) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"loading detector on {director.devices[0].label if director.devices else 'simulated:0'} failed; "
        "for 1 s its jobs go to other devices, if there are any: Broken: 0"
    ]


async def test_a_batch_whose_load_fails_goes_elsewhere_as_a_batch() -> None:
    sizes: list[int] = []

    def infer(index: int, items: list[int]) -> list[int]:
        sizes.append(len(items))
        return [index] * len(items)

    loader = Loader(0)
    async with Director("simulated:2") as director:
        function = director.function(infer, model=Model(loader), max_batch_size=8)
        assert await asyncio.gather(*[function(n) for n in range(4)]) == [1] * 4
    assert sum(sizes) == 4


async def test_a_stream_whose_load_fails_goes_elsewhere() -> None:
    def values(index: int) -> Any:
        yield from (index, index)

    async with Director("simulated:2") as director:
        assert [value async for value in director.stream(values, model=Model(Loader(0)))] == [1, 1]


async def test_a_lease_whose_load_fails_goes_elsewhere() -> None:
    async with Director("simulated:2") as director, director.lease(model=Model(Loader(0))) as leased:
        assert director.stats().devices[1].busy == 1
        assert leased is not None


async def test_of_several_slots_that_wait_for_one_load_each_job_goes_elsewhere() -> None:
    begun, go = threading.Semaphore(0), threading.Event()

    def load(device: Device) -> int:
        begun.release()
        if device.index == 0:
            assert go.wait(PATIENCE)
            raise Broken
        return device.index

    model = Model(load)
    async with Director("simulated:2", slots=3) as director:
        jobs = [director.submit(where, model=model) for _ in range(6)]
        await asyncio.to_thread(begun.acquire)
        await turns()
        go.set()
        assert await asyncio.gather(*jobs) == [1] * 6


async def test_a_job_that_was_cancelled_meanwhile_stays_cancelled() -> None:
    begun, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def load(device: Device) -> int:
        if device.index == 0:
            loop.call_soon_threadsafe(begun.set)
            assert go.wait(PATIENCE)
            raise Broken
        return device.index

    model = Model(load)
    async with Director("simulated:2") as director:
        job = director.submit(where, model=model)
        await begun.wait()
        job.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert await director.run(where, model=model) == 1


async def test_the_users_retries_are_left_for_the_users_faults() -> None:
    calls: list[int] = []

    def fails_once(index: int) -> int:
        calls.append(index)
        if len(calls) == 1:
            raise KeyError
        return index

    async with Director("simulated:2") as director:
        job = director.submit(fails_once, model=Model(Loader(0)), retries=1, retry_on=KeyError)
        assert await job == 1
        assert job.attempts == 2


# ---- in child processes


def load_in_child(device: Device) -> int:
    if device.index == 0:
        raise Broken(device.index)
    return device.index


async def test_in_child_processes_too() -> None:
    async with Director("simulated:2", executor="process") as director:
        jobs = [director.submit(where, model=Model(load_in_child)) for _ in range(6)]
        assert await asyncio.gather(*jobs) == [1] * 6
        assert [job.attempts for job in jobs] == [1] * 6


async def test_in_child_processes_the_back_off_is_that_of_the_device() -> None:
    """The other slots of the device don't load it one after the other."""
    recorder = Recorder()
    model = Model(load_in_child)
    async with Director("simulated:2", slots=3, executor="process", hooks=[recorder]) as director:
        assert await director.run(where, model=model, devices=[1]) == 1
        assert isinstance(await outcome(director.run(where, model=model, devices=[0])), Broken)
        before = len(recorder.of(ModelFailed))
        assert await asyncio.gather(*[director.run(where, model=model) for _ in range(9)]) == [1] * 9
        assert len(recorder.of(ModelFailed)) == before


# ---- `Director.load`


async def test_load_wants_all_and_its_error_names_the_device() -> None:
    model = Model(Loader(1), name="detector")
    async with Director("simulated:3") as director:
        label = director.devices[1].label
        with pytest.raises(Broken) as caught:
            await director.load(model)
        assert caught.value.__notes__ == [f"director: detector could not be loaded on {label}"]
        assert [len(device.models) for device in director.stats().devices] == [1, 0, 1]


async def test_the_first_of_several_errors_names_the_others() -> None:
    model = Model(Loader(0, 2), name="detector")
    async with Director("simulated:3") as director:
        first, _, last = (device.label for device in director.devices)
        with pytest.raises(Broken) as caught:
            await director.load(model)
        assert caught.value.__notes__ == [
            f"director: detector could not be loaded on {first}",
            f"director: detector could not be loaded on {last} either: Broken: 2",
        ]


async def test_an_error_object_that_is_raised_everywhere_has_a_note_for_each_device() -> None:
    error = Broken()

    def load(_device: Device) -> int:
        raise error

    async with Director("simulated:2") as director:
        for _ in range(3):
            with pytest.raises(Broken):
                await director.load(Model(load, name="detector"))
        notes = [f"director: detector could not be loaded on {device.label}" for device in director.devices]
    assert sorted(error.__notes__) == sorted(notes)


async def test_one_device_is_enough_if_any_is() -> None:
    model = Model(Loader(0, 2))
    async with Director("simulated:3") as director:
        await director.load(model, require="any")
        assert [len(device.models) for device in director.stats().devices] == [0, 1, 0]


async def test_any_does_not_wait_for_the_others() -> None:
    go = threading.Event()

    def load(device: Device) -> int:
        if device.index:
            assert go.wait(PATIENCE)
        return device.index

    model = Model(load, load_alone=False)  # in turns, the one that waits may be the first
    async with Director("simulated:2") as director:
        await director.load(model, require="any")
        assert [len(device.models) for device in director.stats().devices] == [1, 0]
        go.set()
        await until(lambda: director.stats().devices[1].models)


async def test_any_fails_where_all_fail(loop_errors: list[dict[str, Any]]) -> None:
    async with Director("simulated:2") as director:
        with pytest.raises(Broken):
            await director.load(Model(Loader(0, 1)), require="any")
        await director.load(Model(Loader(1)), require="any")
    assert loop_errors == []


@pytest.mark.parametrize("require", ["one", None, 1, ["all"]])
async def test_require_is_all_or_any(require: Any) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(ValueError, match="'all' or 'any'"):
            await director.load(Model(Loader()), require=require)


async def test_load_says_that_a_device_is_in_quarantine() -> None:
    model = Model(Loader())
    async with Director("simulated:2") as director:
        quarantine(director, 1)
        await director.load(model, require="any")
        with pytest.raises(DeviceLost):
            await director.load(model)


def test_a_sync_director_loads_as_much(python: Callable[[str], str]) -> None:
    printed = python("""
from director import Model, SyncDirector
def load(device):
    if device.index:
        raise ValueError("here")
with SyncDirector("simulated:2") as director:
    model = Model(load)
    director.load(model, require="any")
    try:
        director.load(model)
    except ValueError as error:
        print(error.__notes__)
""")
    assert "could not be loaded on" in printed


async def test_other_slots_take_jobs_as_soon_as_a_device_has_loaded_what_it_could_not_load_before(
    clock: TestClock, gate: Gate
) -> None:
    broken = {0}

    def load(device: Device) -> str:
        if device.index in broken:
            raise OSError("not yet")
        return device.label

    model = Model(load)
    async with Director("simulated:2", slots=2, clock=clock) as director:
        with pytest.raises(OSError, match="not yet"):
            await director.run(str, model=model, devices=0)
        broken.clear()
        held = [director.submit(gate, model=model, devices=1) for _ in range(2)]
        await gate.begun(2)
        waiting = director.submit(str, model=model)  # the other device has failed, and backs off
        held.append(director.submit(gate, model=model, devices=0))
        await gate.begun()

        assert await asyncio.wait_for(waiting, PATIENCE) == "simulated:0"
        gate.open()
        await asyncio.gather(*held)
