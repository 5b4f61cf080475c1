"""A load, or a call, that runs out of memory though the ledger had room: what is idle leaves, then one more try."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from harness.gates import PATIENCE, Gate, Recorder, outcome, until

from director import Director, Model
from director.events import ModelEvicted, ModelFailed
from director.testing import TestClock, simulated_devices

GIB = 2**30
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB"


class Card:
    """Stands in for a device whose memory holds `room` replicas."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.held: list[str] = []
        self.tries: list[str] = []
        self.kept: list[Model[Any]] = []  # what nothing refers to is unloaded

    def model(self, name: str, memory: Any = None, **options: Any) -> Model[Any]:
        def load(_device: Any) -> str:
            self.tries.append(name)
            if len(self.held) >= self.room:
                raise RuntimeError(FULL)
            self.held.append(name)
            return name

        model = Model(load, unload=self.held.remove, memory=memory, name=name, **options)
        self.kept.append(model)
        return model


def same(resource: Any) -> Any:
    return resource


def device() -> Any:
    return simulated_devices(1, memory=16 * GIB)


@pytest.mark.parametrize("memory", [None, "1GiB"])
@pytest.mark.parametrize("slots", [1, 2])
async def test_what_is_idle_leaves_and_the_load_is_tried_again(memory: Any, slots: int) -> None:
    card, recorder = Card(2), Recorder()
    async with Director(device(), slots=slots, hooks=[recorder]) as director:
        for name in ("a", "b"):
            await director.run(same, model=card.model(name, memory))
        kept = [card.model(name, memory) for name in ("c", "d")]
        async with asyncio.timeout(PATIENCE):
            assert await director.run(same, model=kept[0]) == "c"
            assert await director.run(same, model=kept[1]) == "d"
        assert card.held == ["c", "d"]
        assert card.tries == ["a", "b", "c", "c", "d"]
        assert sorted(event.model for event in recorder.of(ModelEvicted)) == ["a", "b"]
        assert {event.wanted for event in recorder.of(ModelEvicted)} == {"c"}
        assert director.stats().devices[0].models == ("c", "d")


async def test_what_is_pinned_or_in_use_stays_and_the_error_has_the_numbers(gate: Gate) -> None:
    card = Card(2)
    async with Director(device(), slots=2) as director:
        await director.run(same, model=card.model("pinned", "3GiB", pin=True))
        busy = director.submit(gate, model=card.model("busy", "2GiB"))
        await gate.begun()
        with pytest.raises(RuntimeError, match="out of memory") as caught:
            await director.run(same, model=card.model("new", "4GiB"))
        note = caught.value.__notes__[-1] + caught.value.__notes__[0]
        for words in ("simulated:0", "new, which needs 4 GiB", "of 16 GiB", "pinned has 3 GiB (pinned)"):
            assert words in note
        assert "busy has 2 GiB (in use)" in note
        assert card.tries == ["pinned", "busy", "new"], "nothing could leave, so another try would be the same"
        gate.open()
        assert await busy == "busy"
        assert card.held == ["pinned", "busy"]


async def test_it_is_tried_again_once_and_then_backs_off(caplog: pytest.LogCaptureFixture) -> None:
    card, clock = Card(1), TestClock()
    caplog.set_level(logging.WARNING)
    async with Director(device(), clock=clock) as director:
        first = card.model("first", "1GiB")
        await director.run(same, model=first)
        card.room = 0
        model = card.model("large", "1GiB")
        jobs = [director.submit(same, model=model) for _ in range(3)]
        outcomes = [await outcome(job) for job in jobs]
        assert {str(error) for error in outcomes} == {FULL}, "those that wait get the loader's own error"
        assert card.tries == ["first", "large", "large"]
        assert card.held == []
        assert "the memory of simulated:0 was full when large, which needs 1 GiB, was loaded" in "".join(
            outcomes[0].__notes__
        )
        card.room = 1
        assert await director.run(same, model=model) == "large"


async def test_with_several_devices_what_was_tried_twice_goes_elsewhere() -> None:
    card = Card(1)
    recorder = Recorder()
    async with Director(simulated_devices(2, memory=16 * GIB), hooks=[recorder]) as director:
        await director.run(same, model=card.model("a", "1GiB"))
        model = card.model("b", "1GiB")
        assert await director.run(same, model=model) == "b"
        assert card.held == ["b"]
        assert len(recorder.of(ModelFailed)) in (1, 2)  # of the idle device, perhaps, and of that of a


async def test_a_load_in_advance_makes_room_too() -> None:
    card = Card(1)
    async with Director(device()) as director:
        await director.run(same, model=card.model("a"))
        async with asyncio.timeout(PATIENCE):
            await director.load(card.model("b"))
        assert card.held == ["b"]


async def test_one_that_was_cancelled_between_the_tries_has_another_one_later(gate: Gate) -> None:
    card = Card(1)
    async with Director(device(), slots=2) as director:
        await director.run(same, model=card.model("first"))
        model = card.model("second")
        for _ in range(3):
            job = director.submit(same, model=model)
            await until(lambda: len(card.tries) > 1)
            job.cancel()
            await outcome(job)
        async with asyncio.timeout(PATIENCE):
            assert await director.run(same, model=model) == "second"


# ---- calls


class Network:
    """A batch function that fits while nothing idle is beside it; items of `wide` never fit together."""

    def __init__(self, card: Card, most: int = 8) -> None:
        self.card = card
        self.most = most
        self.sizes: list[int] = []

    def __call__(self, replica: str, items: list[int]) -> list[int]:
        self.sizes.append(len(items))
        if len(self.card.held) > 1 or len(items) > self.most:
            raise RuntimeError(FULL)
        return items


async def filled(director: Director, function: Any, gate: Gate, count: int = 4) -> list[Any]:
    held = director.submit(gate)
    await gate.begun()
    jobs = [function.submit(item) for item in range(count)]
    gate.open()
    await held
    return await asyncio.gather(*jobs, return_exceptions=True)


@pytest.mark.parametrize("memory", [None, "1GiB"])
async def test_a_batch_is_made_again_whole_after_idle_models_have_left(gate: Gate, memory: Any) -> None:
    card, recorder = Card(9), Recorder()
    network = Network(card)
    async with Director(device(), hooks=[recorder]) as director:
        for name in ("a", "b"):
            await director.run(same, model=card.model(name, memory))
        function = director.function(network, model=card.model("own", memory), max_batch_size=4)
        assert await filled(director, function, gate) == [0, 1, 2, 3]
        assert network.sizes == [4, 4]
        assert card.held == ["own"]
        assert len({event.wanted for event in recorder.of(ModelEvicted)}) == 1


async def test_only_then_it_is_halved(gate: Gate) -> None:
    card = Card(9)
    network = Network(card, most=2)
    async with Director(device()) as director:
        await director.run(same, model=card.model("a"))
        function = director.function(network, model=card.model("own"), max_batch_size=4)
        assert await filled(director, function, gate) == [0, 1, 2, 3]
        assert network.sizes == [4, 4, 2, 2]


async def test_a_call_with_retries_has_room_at_the_next_attempt() -> None:
    card = Card(9)
    calls: list[int] = []

    def compute(replica: str) -> str:
        calls.append(len(card.held))
        if len(card.held) > 1:
            raise RuntimeError(FULL)
        return replica

    async with Director(device()) as director:
        await director.run(same, model=card.model("a"))
        own = card.model("own")
        with pytest.raises(RuntimeError, match="out of memory"):
            await director.run(compute, model=own)
        assert card.held == ["a", "own"], "without retries nothing leaves for it"
        assert await director.run(compute, model=own, retries=1) == "own"
        assert calls == [2, 2, 1]


# ---- in processes


def load_once(device: Any) -> Any:
    """Runs out of memory while this process has another replica."""
    if replicas():
        raise RuntimeError(FULL)
    return load_any(device)


def load_any(device: Any) -> Any:
    replicas().append(device.label)
    return device.label


def replicas() -> list[Any]:
    """Those of this process."""
    import builtins

    return builtins.__dict__.setdefault("_replicas", [])  # type: ignore[no-any-return]


def drop(replica: Any) -> None:
    replicas().remove(replica)


async def test_a_child_unloads_what_is_idle_there() -> None:
    idle, model = Model(load_any, unload=drop, name="idle"), Model(load_once, unload=drop, name="model")
    async with Director(device(), executor="process") as director:
        await director.run(same, model=idle)
        async with asyncio.timeout(PATIENCE):
            assert await director.run(same, model=model) == "simulated:0"
        assert director.stats().devices[0].models == ("model",)
