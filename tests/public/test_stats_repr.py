"""`stats()` and the reprs: what a Director tells of itself adds up."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, outcome, rested, until

from director import Director, DirectorState, Model, QueueFull

if TYPE_CHECKING:
    from director import Stats
    from director.testing import TestClock


def counts(stats: Stats) -> tuple[int, ...]:
    return (stats.queued, stats.running, stats.succeeded, stats.failed, stats.cancelled, stats.rejected)


async def test_every_accepted_job_is_in_exactly_one_count(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:2", max_queue=2, clock=clock) as director:
        assert counts(director.stats()) == (0, 0, 0, 0, 0, 0)
        held = [director.submit(gate) for _ in range(2)]
        await gate.begun(2)
        waiting = [director.submit(gate), director.submit(gate, deadline=1)]
        with pytest.raises(QueueFull):
            director.submit(gate)
        assert counts(director.stats()) == (2, 2, 0, 0, 0, 1)
        clock.advance(1)
        assert counts(director.stats()) == (1, 2, 0, 1, 0, 1)
        waiting[0].cancel()
        assert counts(director.stats()) == (0, 2, 0, 1, 1, 1)
        held[0].cancel()
        assert counts(director.stats()) == (0, 1, 0, 1, 2, 1)
        assert sum(device.busy for device in director.stats().devices) == 2  # its thread is still there
        gate.open()
        await held[1]
        assert counts(director.stats()) == (0, 0, 1, 1, 2, 1)
        with pytest.raises(ZeroDivisionError):
            await director.run(lambda _: 1 // 0)
        assert counts(director.stats()) == (0, 0, 1, 2, 2, 1)
        assert isinstance(await outcome(waiting[1]), TimeoutError)


async def test_those_who_wait_for_room_are_queued(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=1) as director:
        tasks = [asyncio.create_task(director.run(gate)) for _ in range(5)]
        await gate.begun()
        assert counts(director.stats()) == (4, 1, 0, 0, 0, 0)
        gate.open()
        await asyncio.gather(*tasks)


async def test_a_job_whose_result_is_on_its_way_is_running_still() -> None:
    async with Director("simulated:1") as director:
        await director.run(lambda _: None)
        jobs = [director.submit(lambda _: None) for _ in range(50)]
        while not all(job.done() for job in jobs):
            stats = director.stats()
            assert stats.queued + stats.running + stats.succeeded == 51
            await asyncio.sleep(0)


async def test_each_device(gate: Gate, clock: TestClock) -> None:
    model = Model(lambda device: device, name="detector")
    async with Director("simulated:2", slots={0: 1, 1: 3}, clock=clock) as director:
        await director.run(lambda _: None, model=model, devices=[1])
        await rested(director)
        director.submit(gate, devices=[1])
        director.submit(gate, devices=[1])
        await gate.begun(2)
        clock.advance(2)
        first, second = director.stats().devices
        assert (first.device, first.slots, first.busy, first.jobs, first.models) == (director.devices[0], 1, 0, 0, ())
        assert (second.device, second.slots, second.busy, second.jobs) == (director.devices[1], 3, 2, 1)
        assert second.models == ("detector",)
        gate.open()
        await rested(director)
        assert [device.busy_seconds for device in director.stats().devices] == [0, 4]
        assert [device.jobs for device in director.stats().devices] == [0, 3]


async def test_it_is_a_frozen_snapshot(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        before = director.stats()
        await director.run(lambda _: None)
        assert before.succeeded == 0
        with pytest.raises(dataclasses.FrozenInstanceError):
            before.succeeded = 1  # type: ignore[misc]
        with pytest.raises(dataclasses.FrozenInstanceError):
            before.devices[0].jobs = 1  # type: ignore[misc]


async def test_before_the_start_and_after_the_close() -> None:
    director = Director("simulated:2")
    assert counts(director.stats()) == (0, 0, 0, 0, 0, 0)
    assert director.stats().devices == ()
    assert (director.devices, director.healthy) == ((), False)
    async with director:
        assert director.healthy
        await asyncio.gather(*[director.submit(lambda _: None) for _ in range(3)])
    last = director.stats()
    assert counts(last) == (0, 0, 3, 0, 0, 0)
    assert [device.busy for device in last.devices] == [0, 0]
    assert sum(device.jobs for device in last.devices) == 3
    assert not director.healthy


async def test_every_start_counts_anew() -> None:
    director = Director("simulated:1")
    for _ in range(2):
        async with director:
            await director.run(lambda _: None)
            assert counts(director.stats()) == (0, 0, 1, 0, 0, 0)


async def test_the_repr_is_a_status_line(gate: Gate) -> None:
    director = Director("simulated:2", slots=2)
    assert repr(director) == (
        "<Director new: 0 devices, 0/0 slots busy, 0 queued, 0 running, 0 succeeded, 0 failed, 0 cancelled>"
    )
    async with director:
        jobs = [director.submit(gate) for _ in range(5)]
        await gate.begun(4)
        jobs[4].cancel()
        director.submit(gate)
        assert repr(director) == (
            "<Director open: 2 devices, 4/4 slots busy, 1 queued, 4 running, 0 succeeded, 0 failed, 1 cancelled>"
        )
        gate.open()
    assert repr(director) == (
        "<Director closed: 2 devices, 0/4 slots busy, 0 queued, 0 running, 5 succeeded, 0 failed, 1 cancelled>"
    )


async def test_the_repr_has_the_name() -> None:
    async with Director("simulated:1", name="vision") as director:
        assert repr(director).startswith("<Director 'vision' open: ")
        assert director.name == "vision"
        assert "director:vision" in [task.get_name() for task in asyncio.all_tasks()]


async def test_reprs_of_what_belongs_to_it(gate: Gate) -> None:
    def detect(_device: Any) -> None: ...

    async with Director("simulated:1") as director:
        assert "'detect'" in repr(director.function(detect))
        assert repr(director.devices[0]).startswith("SimulatedDevice(index=0, uuid='SIM-0'")
        assert str(director.devices[0]) == "cpu"
        assert director.state is DirectorState.OPEN


async def test_threads_have_names_that_tell_device_and_slot() -> None:
    import threading

    async with Director("simulated:2", slots=2) as director:
        names = [director.submit(lambda _: threading.current_thread().name) for _ in range(20)]
        assert set(await asyncio.gather(*names)) <= {
            f"director:simulated:{device}/{slot}" for device in (0, 1) for slot in (0, 1)
        }


async def test_stats_may_be_asked_from_any_thread(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        director.submit(gate)
        await gate.begun()
        assert counts(await asyncio.to_thread(director.stats)) == (0, 1, 0, 0, 0, 0)
        assert "1 running" in await asyncio.to_thread(repr, director)
        gate.open()
        await until(lambda: director.stats().succeeded == 1)
