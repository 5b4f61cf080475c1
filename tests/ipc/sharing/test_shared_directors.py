"""Directors that share slots; in one process, where every step can be arranged."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.gates import PATIENCE, Gate, rested, until

from director import DeviceLost, Director, DirectorState, Model, current_device
from director._ipc.sharing.lock_file import LockFile
from director._ipc.sharing.slot_lock import SharedSlots
from director._scheduler.slots import SlotState
from director.events import JobStarted
from director.testing import TestClock

if TYPE_CHECKING:
    from director._scheduler.slots import Slot


def slots(director: Director) -> list[Slot]:
    assert director._runtime is not None
    return director._runtime.scheduler.slots


def is_elsewhere(director: Director, number: int = 0) -> bool:
    return slots(director)[number].state is SlotState.WAITING_FOR_OTHERS


async def test_a_slot_is_used_by_one_at_a_time(gate: Gate) -> None:
    async with Director("simulated:1", shared="x") as one, Director("simulated:1", shared="x") as two:
        first = one.submit(gate, 1)
        await gate.begun()
        second = two.submit(gate, 2)
        await until(lambda: is_elsewhere(two))
        assert gate.items == [1]
        assert (two.stats().queued, two.stats().devices[0].busy) == (1, 0)
        assert [each.stats().devices[0].elsewhere for each in (one, two)] == [0, 1]
        gate.let(1)
        await first
        await gate.begun()
        assert gate.items == [1, 2]
        assert [each.stats().devices[0].elsewhere for each in (one, two)] == [0, 0]
        gate.let(1)
        await second


async def test_other_names_are_others(gate: Gate) -> None:
    async with Director("simulated:1", shared="x") as one, Director("simulated:1", shared="y") as two:
        jobs = [one.submit(gate), two.submit(gate)]
        await gate.begun(2)
        gate.open()
        await asyncio.gather(*jobs)


async def test_a_job_goes_to_the_device_that_is_free(gate: Gate) -> None:
    """The one that it was meant for is taken; it waits for none, and uses what it gets first."""
    async with Director("simulated:2", shared="x") as one, Director("simulated:2", shared="x") as two:
        other = Gate()
        busy = one.submit(other, devices=0)
        await other.begun()
        for number in range(4):  # ties rotate: some of them begin with the device that is taken
            job = two.submit(gate, number)
            await gate.begun()
            assert str(gate.calls[-1][0].label) == "simulated:1"
            gate.let(1)
            await job
        other.open()
        await busy


async def test_a_job_takes_the_slot_that_comes_first(gate: Gate) -> None:
    async with Director("simulated:2", shared="x") as one, Director("simulated:2", shared="x") as two:
        gates = [Gate(), Gate()]
        busy = [one.submit(gates[n], devices=n) for n in range(2)]
        for each in gates:
            await each.begun()
        job = two.submit(gate)
        await until(lambda: is_elsewhere(two, 0) and is_elsewhere(two, 1))
        gates[1].open()
        await busy[1]
        await gate.begun()
        assert gate.calls[0][0].label == "simulated:1"
        gate.open()
        await job
        gates[0].open()
        await busy[0]
        await until(lambda: not is_elsewhere(two, 0))


async def test_a_job_that_is_cancelled_meanwhile_never_runs(gate: Gate) -> None:
    async with Director("simulated:1", shared="x") as one, Director("simulated:1", shared="x") as two:
        busy = one.submit(gate, 1)
        await gate.begun()
        job = two.submit(gate, 2)
        await until(lambda: is_elsewhere(two))
        job.cancel()
        gate.open()
        await busy
        await until(lambda: not is_elsewhere(two))
        assert await two.run(gate, 3) == 3
    assert gate.items == [1, 3]


async def test_who_rests_holds_nothing(gate: Gate) -> None:
    """Though its worker is still parked."""
    gate.open()
    async with Director("simulated:1", shared="x") as one, Director("simulated:1", shared="x") as two:
        for _ in range(20):
            assert await one.run(gate) is await one.run(gate)
            await rested(one)
            await until(lambda: slots(one)[0].state in (SlotState.PARKED, SlotState.IDLE))
            assert await two.run(gate)
            await rested(two)


async def test_both_have_their_turns(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    """When one job is a turn: each waits for no more than one of the other's."""
    monkeypatch.setattr("director._runtime.worker_thread.shared_slot._TIME_SLICE", 0.0)
    who: list[int] = []

    def work(_device: object, number: int) -> None:
        who.append(number)
        while who.count(3 - number) < 10 and not look.is_wanted():
            time.sleep(0.001)

    async with Director("simulated:1", shared="x") as one, Director("simulated:1", shared="x") as two:
        look = SharedSlots("x").slot_lock(one.devices[0], 0)
        first = one.submit(gate)
        await gate.begun()
        jobs = [two.submit(work, 2) for _ in range(10)]
        await until(lambda: is_elsewhere(two))
        jobs += [one.submit(work, 1) for _ in range(10)]
        gate.let(1)
        await asyncio.gather(first, *jobs)
    assert who == [2, 1] * 10


async def test_a_turn_holds_several_short_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director._runtime.worker_thread.shared_slot._TIME_SLICE", 3600.0)
    who: list[int] = []
    gate = Gate()
    async with Director("simulated:1", shared="x") as one, Director("simulated:1", shared="x") as two:
        first = one.submit(gate)
        await gate.begun()
        others = [two.submit(lambda _: who.append(2)) for _ in range(3)]
        await until(lambda: is_elsewhere(two))
        jobs = [one.submit(lambda _: who.append(1)) for _ in range(10)]
        gate.open()
        await asyncio.gather(first, *jobs, *others)
    assert who == [1] * 10 + [2] * 3


@pytest.mark.serial
async def test_the_time_in_the_line_is_waiting_and_not_running(gate: Gate) -> None:
    """The worker's clock: the end of one job is not the beginning of the next when others were in between."""
    async with Director("simulated:1", shared="x") as one, Director("simulated:1", shared="x") as two:
        busy = one.submit(gate)
        await gate.begun()
        job = two.submit(lambda _: None)
        await until(lambda: is_elsewhere(two))
        await asyncio.sleep(0.3)
        gate.open()
        await asyncio.gather(busy, job)
        await rested(two)
        assert job.waited is not None
        assert job.ran is not None
        assert job.waited >= 0.3
        assert job.ran < 0.3
        assert two.stats().devices[0].busy_seconds < 0.3


async def test_batches_share_too(gate: Gate) -> None:
    async with Director("simulated:1", shared="x") as one, Director("simulated:1", shared="x") as two:

        @two.function(max_batch_size=8)
        def double(_device: object, items: list[int]) -> list[int]:
            sizes.append(len(items))
            return [2 * item for item in items]

        sizes: list[int] = []
        busy = one.submit(gate)
        await gate.begun()
        jobs = [double.submit(n) for n in range(8)]
        await until(lambda: is_elsewhere(two))
        gate.open()
        assert await asyncio.gather(*jobs) == [2 * n for n in range(8)]
        await busy
        assert sizes == [8], "late binding: the batch is formed when the slot is there"


async def test_who_is_alone_keeps_the_slot() -> None:
    """And does not lose it for a moment between two jobs."""
    moves = []
    async with Director("simulated:1", shared="x", hooks=[moves.append]) as director:
        await asyncio.gather(*[director.submit(lambda _: None) for _ in range(1000)])
        assert len([move for move in moves if isinstance(move, JobStarted)]) == 1000
        assert director.stats().devices[0].jobs == 1000


async def test_a_close_does_not_wait_for_other_processes(gate: Gate) -> None:
    async with Director("simulated:1", shared="x") as one:
        busy = one.submit(gate)
        await gate.begun()
        two = Director("simulated:1", shared="x")
        await two.start()
        job = two.submit(gate)
        await until(lambda: is_elsewhere(two))
        job.cancel()
        async with asyncio.timeout(PATIENCE):
            await two.close()
        assert two.state is DirectorState.CLOSED
        async with asyncio.timeout(PATIENCE):  # and again, beside the thread that still stands in the line
            async with two:
                waiting = asyncio.create_task(two.run(gate, "again"))
                await until(lambda: is_elsewhere(two))
                gate.open()
                assert await waiting == "again"
        await busy


async def test_a_drain_waits_for_the_jobs(gate: Gate) -> None:
    async with Director("simulated:1", shared="x") as one, Director("simulated:1", shared="x") as two:
        busy = one.submit(gate, 1)
        await gate.begun()
        job = two.submit(gate, 2)
        await until(lambda: is_elsewhere(two))
        draining = asyncio.create_task(two.drain())
        await asyncio.sleep(0.01)
        assert not draining.done()
        gate.open()
        await draining
        assert job.done()
        await busy


async def test_a_drain_that_finds_all_done_elsewhere_ends(gate: Gate) -> None:
    """The worker got into the line when nothing was left to do; nobody may wait for it."""
    async with Director("simulated:2", shared="x") as one, Director("simulated:2", shared="x") as two:
        busy = one.submit(gate, devices=0)
        await gate.begun()
        await asyncio.gather(*[two.submit(lambda _: None) for _ in range(50)])
        async with asyncio.timeout(PATIENCE):
            await two.drain()
        gate.open()
        await busy


async def test_a_lease_holds_the_slot_against_others(gate: Gate) -> None:
    gate.open()
    async with Director("simulated:1", shared="x") as one, Director("simulated:1", shared="x") as two:
        async with one.lease():
            job = two.submit(gate)
            await until(lambda: is_elsewhere(two))
            assert gate.calls == []
        await job


async def test_models_are_loaded_in_the_own_turn(gate: Gate) -> None:
    """So that four processes don't load at the same time on the same device."""
    model = Model(gate)
    async with Director("simulated:1", shared="x") as one, Director("simulated:1", shared="x") as two:
        loads = [asyncio.create_task(director.load(model)) for director in (one, two)]
        await gate.begun()
        await until(lambda: is_elsewhere(one) or is_elsewhere(two))
        assert len(gate.calls) == 1
        gate.open()
        await asyncio.gather(*loads)


async def test_a_job_with_a_model_leaves_its_loaded_slot_when_that_is_elsewhere(gate: Gate) -> None:
    model = Model(lambda device: device.label)
    async with Director("simulated:2", shared="x") as one, Director("simulated:2", shared="x") as two:
        await two.run(lambda replica: replica, model=model, devices=0)
        busy = one.submit(gate, devices=0)
        await gate.begun()
        async with asyncio.timeout(PATIENCE):
            assert await two.run(lambda replica: replica, model=model) == "simulated:1"
        gate.open()
        await busy


async def test_several_slots_are_shared_one_by_one(gate: Gate) -> None:
    async with (
        Director("simulated:1", slots=2, shared="x") as one,
        Director("simulated:1", slots=2, shared="x") as two,
    ):
        jobs = [director.submit(gate) for director in (one, two) for _ in range(2)]
        await gate.begun(2)
        await asyncio.sleep(0.02)
        assert len(gate.calls) == 2
        gate.open()
        await asyncio.gather(*jobs)


def in_child(_device: object, marks: str) -> int:
    """A job that fails if another one is there, in whatever process."""
    mark = Path(marks, "here")
    mark.touch(exist_ok=False)
    time.sleep(0.002)
    mark.unlink()
    return os.getpid()


async def test_worker_processes_take_turns_too(tmp_path: Path) -> None:
    async with (
        Director("simulated:1", executor="process", shared="x") as one,
        Director("simulated:1", executor="process", shared="x") as two,
    ):
        jobs = [director.submit(in_child, str(tmp_path)) for _ in range(20) for director in (one, two)]
        assert len(set(await asyncio.gather(*jobs))) == 2


async def test_what_goes_wrong_with_the_files_fails_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object) -> bool:
        raise OSError("no locks available")

    monkeypatch.setattr("director._ipc.sharing.slot_lock.SlotLock.try_enter", broken)
    clock = TestClock()
    async with Director("simulated:1", shared="x", clock=clock) as director:
        job = director.submit(lambda _: current_device())
        await until(lambda: not director.healthy)
        assert director.stats().queued == 1  # nothing of it ran: the slot is tried again
        clock.advance(31.0)
        with pytest.raises(DeviceLost, match="no locks available"):
            await job


# ---- loads


class SlowLoad:
    """A model of each of two Directors; the first load goes on until the second is about to wait for the device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, locks: int) -> None:
        self.is_awaited = threading.Event()
        self.calls = 0
        self.most = self._inside = 0
        self._locked = 0
        lock = LockFile.lock

        def note(file: LockFile) -> None:
            if file.path.suffix == ".load":
                self._locked += 1
                if self._locked == locks:
                    self.is_awaited.set()
            lock(file)

        monkeypatch.setattr(LockFile, "lock", note)

    def __call__(self, _device: object) -> str:
        self.calls += 1
        self._inside += 1
        self.most = max(self.most, self._inside)
        assert self.is_awaited.wait(PATIENCE), "the other load does not wait for the device"
        self._inside -= 1
        return "replica"


@pytest.mark.parametrize(("load_alone", "locks"), [(False, 2), (None, 2), (True, 1)])  # alone, the others are paused
async def test_loads_on_a_device_take_turns_in_all_processes(
    monkeypatch: pytest.MonkeyPatch, load_alone: bool | None, locks: int
) -> None:
    load = SlowLoad(monkeypatch, locks)
    models = [Model(load, load_alone=load_alone, name=name) for name in "ab"]
    async with Director("simulated:1", slots=2, shared="x") as one, Director("simulated:1", slots=2, shared="x") as two:
        async with asyncio.timeout(PATIENCE):
            jobs = [director.submit(same, model=model) for director, model in zip((one, two), models, strict=True)]
            assert await asyncio.gather(*jobs) == ["replica"] * 2
        assert (load.calls, load.most) == (2, 1)
        assert await one.run(same, model=models[0]) == "replica"
        assert load._locked == 2, "what is loaded needs no lock"


async def test_loads_on_other_devices_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    load = SlowLoad(monkeypatch, 2)
    async with Director("simulated:2", shared="x") as one, Director("simulated:2", shared="x") as two:
        models = [Model(load, load_alone=False) for _ in range(2)]
        jobs = [
            director.submit(same, model=model, devices=[index])
            for index, (director, model) in enumerate(zip((one, two), models, strict=True))
        ]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*jobs)
        assert load.calls == 2


async def test_a_failed_load_gives_the_device_to_the_next() -> None:
    def fail(_device: object) -> None:
        raise ValueError("broken")

    async with Director("simulated:1", shared="x") as one, Director("simulated:1", shared="x") as two:
        with pytest.raises(ValueError, match="broken"):
            await one.run(same, model=Model(fail))
        async with asyncio.timeout(PATIENCE):
            assert await two.run(same, model=Model(lambda _device: "replica")) == "replica"


def same(resource: object) -> object:
    return resource
