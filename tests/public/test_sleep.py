"""`Model(sleep=, wake=)`: replicas that others need the room of go to host memory, and come back without a load."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any

import pytest
from harness.gates import PATIENCE, Gate, outcome, rested, turns, until

from director import Director, Model, WorkerDied
from director.testing import simulated_devices

GIB = 2**30


class Replica:
    """A replica that knows where it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.where = "device"


class Sleeper:
    """A model that sleeps, whose steps are noted."""

    def __init__(self, name: str, memory: Any = GIB, **options: Any) -> None:
        self.name = name
        self.steps: list[str] = []
        self.fails: str | None = None
        self.director: Director | None = None
        self.reserved: list[int] = []  # of the device, when it was unloaded
        functions = {"unload": self._unload, "sleep": self._sleep, "wake": self._wake}
        self.model = Model(self._load, memory=memory, name=name, **{**functions, **options})

    def _note(self, step: str) -> None:
        self.steps.append(step)
        if self.fails == step:
            raise ValueError(f"{step} failed")

    def _load(self, _device: Any) -> Replica:
        self._note("load")
        return Replica(self.name)

    def _unload(self, _replica: Replica) -> None:
        if self.director is not None:
            assert self.director._runtime is not None
            scheduler: Any = self.director._runtime.scheduler
            self.reserved = [here.reserved for here in scheduler.memory.devices.values()]
        self._note("unload")

    def _sleep(self, replica: Replica) -> None:
        self._note("sleep")
        replica.where = "host"

    def _wake(self, replica: Replica) -> None:
        self._note("wake")
        assert replica.where == "host"
        replica.where = "device"


def same(replica: Any) -> Any:
    return replica


def one(**options: Any) -> Director:
    return Director(simulated_devices(1, memory=GIB), **options)


def states(director: Director) -> dict[str, str]:
    return {each.model: each.state for each in director.stats().devices[0].memory.models}


async def test_a_model_whose_room_is_needed_sleeps_and_wakes_when_it_is_needed_again() -> None:
    first, second = Sleeper("first"), Sleeper("second")
    async with one() as director:
        replica = await director.run(same, model=first.model)
        await director.run(same, model=second.model)
        await rested(director)
        assert (first.steps, replica.where) == (["load", "sleep"], "host")
        assert states(director) == {"first": "asleep", "second": "resident"}
        memory = director.stats().devices[0].memory
        assert (memory.reserved, memory.replicas, memory.asleep) == (GIB, GIB, GIB)
        assert director.stats().devices[0].models == ("second",)
        assert await director.run(same, model=first.model) is replica
        await rested(director)
        assert replica.where == "device"
        assert (first.steps, second.steps) == (["load", "sleep", "wake"], ["load", "sleep"])
        assert states(director) == {"first": "resident", "second": "asleep"}
    assert (first.steps[-1], second.steps[-1]) == ("unload", "unload")


async def test_what_sleep_and_wake_return_is_the_replica_unless_it_is_none() -> None:
    model = Model(lambda _device: "on the device", sleep=lambda _: "in the host", wake=str.upper, memory=GIB)
    async with one() as director:
        assert await director.run(same, model=model) == "on the device"
        await director.run(same, model=Sleeper("other").model)
        assert await director.run(same, model=model) == "IN THE HOST"


async def test_without_room_in_host_memory_it_is_unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director._devices.host.usable_memory", lambda: 3 * GIB)
    sleepers = [Sleeper(name) for name in "abc"]
    async with one() as director:
        for each in sleepers:
            await director.run(same, model=each.model)
        await rested(director)
        assert [each.steps for each in sleepers] == [["load", "sleep"], ["load", "unload"], ["load"]]
        assert director.stats().devices[0].memory.asleep == GIB


async def test_a_wake_that_fails_is_undone_and_the_model_is_loaded_the_next_time() -> None:
    sleeper, other = Sleeper("model"), Sleeper("other")
    async with one() as director:
        replica = await director.run(same, model=sleeper.model)
        await director.run(same, model=other.model)
        sleeper.fails = "wake"
        with pytest.raises(ValueError, match="wake failed") as caught:
            await director.run(same, model=sleeper.model)
        assert "could not be loaded on simulated:0" in caught.value.__notes__[0]
        await rested(director)
        assert sleeper.steps == ["load", "sleep", "wake", "unload"]
        assert "model" not in states(director)
        assert director.stats().devices[0].memory.asleep == GIB  # of the other
        assert await director.run(same, model=sleeper.model) is not replica
        assert sleeper.steps[4:] == ["load"]


async def test_one_that_can_not_be_put_to_sleep_is_unloaded(caplog: pytest.LogCaptureFixture) -> None:
    sleeper = Sleeper("model")
    async with one() as director:
        await director.run(same, model=sleeper.model)
        sleeper.fails = "sleep"
        other = Sleeper("other")
        assert (await director.run(same, model=other.model)).name == "other"
        await rested(director)
        assert sleeper.steps == ["load", "sleep", "unload"]
        assert states(director) == {"other": "resident"}
        assert "putting model to sleep on simulated:0 failed" in caplog.text


async def test_unload_unloads_what_sleeps() -> None:
    sleeper, other = Sleeper("model"), Sleeper("other")
    async with one() as director:
        await director.run(same, model=sleeper.model)
        await director.run(same, model=other.model)
        await rested(director)
        sleeper.director = director
        async with asyncio.timeout(PATIENCE):
            await director.unload(sleeper.model)
        assert sleeper.reserved == [GIB], "it has nothing of the device"
        assert sleeper.steps == ["load", "sleep", "unload"]
        assert director.stats().devices[0].memory.asleep == 0
        async with asyncio.timeout(PATIENCE):
            await director.unload(other.model)
        assert other.steps == ["load", "unload"], "what the user wants unloaded does not sleep"


async def test_a_model_that_nothing_refers_to_is_unloaded_in_its_sleep() -> None:
    steps: list[str] = []
    model = Model(
        lambda _device: "replica",
        unload=lambda _: steps.append("unload"),
        sleep=lambda _: steps.append("sleep"),
        wake=same,
        memory=GIB,
    )
    async with one() as director:
        await director.run(same, model=model)
        await director.run(same, model=Sleeper("other").model)
        await rested(director)
        assert steps == ["sleep"]
        del model
        gc.collect()
        await until(lambda: steps == ["sleep", "unload"])


async def test_slots_of_a_device_wake_it_once(gate: Gate) -> None:
    sleeper = Sleeper("model")
    async with one(slots=3) as director:
        await director.run(same, model=sleeper.model)
        await director.run(same, model=Sleeper("other").model)
        await rested(director)
        jobs = [director.submit(gate, model=sleeper.model) for _ in range(3)]
        await gate.begun(3)
        gate.open()
        await asyncio.gather(*jobs)
        assert sleeper.steps == ["load", "sleep", "wake"]


async def test_director_load_wakes_it() -> None:
    sleeper, other = Sleeper("model"), Sleeper("other")
    async with one() as director:
        await director.run(same, model=sleeper.model)
        await director.load(other.model)
        await director.load(sleeper.model)
        assert sleeper.steps == ["load", "sleep", "wake"]
        assert director.stats().devices[0].models == ("model",)


async def test_what_is_pinned_does_not_sleep() -> None:
    sleeper, other = Sleeper("model", pin=True), Sleeper("other")
    async with one() as director:
        await director.run(same, model=sleeper.model)
        job = director.submit(same, model=other.model)
        await turns()
        assert sleeper.steps == ["load"]
        job.cancel()
        await outcome(job)


@pytest.mark.parametrize("options", [{"sleep": print}, {"wake": print}])
def test_one_without_the_other_is_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="sleep and wake belong together"):
        Model(same, **options)


@pytest.mark.parametrize("option", ["sleep", "wake"])
def test_they_are_blocking_functions_of_a_replica(option: str) -> None:
    async def later(_replica: Any) -> None: ...

    functions = {"sleep": print, "wake": print}
    with pytest.raises(TypeError, match=f"{option} must be a callable"):
        Model(same, **{**functions, option: 3})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"{option} must be a blocking function"):
        Model(same, **{**functions, option: later})  # type: ignore[arg-type]


# ---- in processes


def load_in_child(device: Any) -> list[Any]:
    return [os.getpid(), "loaded"]


def sleep_in_child(replica: list[Any]) -> None:
    replica.append("slept")


def wake_in_child(replica: list[Any]) -> list[Any]:
    return [*replica, "woken"]


def fail_in_child(_replica: list[Any]) -> None:
    raise ValueError("no")


def in_child(name: str, **options: Any) -> Model[Any]:
    functions = {"sleep": sleep_in_child, "wake": wake_in_child}
    return Model(load_in_child, memory=GIB, name=name, **{**functions, **options})


def end(_replica: Any) -> None:
    os._exit(3)


async def test_a_child_puts_models_to_sleep_and_wakes_them() -> None:
    first, second = in_child("first"), in_child("second")
    async with one(executor="process") as director:
        pid, *_ = await director.run(same, model=first)
        await director.run(same, model=second)
        await rested(director)
        assert states(director) == {"first": "asleep", "second": "resident"}
        assert await director.run(same, model=first) == [pid, "loaded", "slept", "woken"]
        await director.unload(second)
        assert states(director) == {"first": "resident"}
        assert director.stats().devices[0].memory.asleep == 0


async def test_a_childs_failures_of_these_leave_it_unloaded() -> None:
    first, second = in_child("first", wake=fail_in_child), in_child("second", sleep=fail_in_child)
    async with one(executor="process") as director:
        await director.run(same, model=first)
        await director.run(same, model=second)
        with pytest.raises(ValueError, match="no"):
            await director.run(same, model=first)
        await rested(director)
        assert states(director) == {}
        assert (await director.run(same, model=first))[1:] == ["loaded"]


async def test_what_sleeps_in_a_child_is_gone_with_it() -> None:
    first, second = in_child("first"), in_child("second")
    async with one(executor="process") as director:
        await director.run(same, model=first)
        assert isinstance(await outcome(director.submit(end, model=second)), WorkerDied)
        await rested(director)
        assert director.stats().devices[0].memory.asleep == 0
        assert (await director.run(same, model=first))[1:] == ["loaded"]
