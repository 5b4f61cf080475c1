"""The bounded queue: `submit` says no and when to come back, `run` and `map` wait for room."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING

import pytest
from harness.gates import PATIENCE, Gate, rested, turns

from director import AdmissionError, Director, DirectorClosed, Job, JobState, QueueFull

if TYPE_CHECKING:
    from director.testing import TestClock


def answer(_device: object) -> int:
    return 42


async def test_a_full_queue_refuses_and_says_so(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=2) as director:
        director.submit(gate)
        await gate.begun()
        jobs = [director.submit(gate) for _ in range(2)]
        with pytest.raises(QueueFull) as caught:
            director.submit(gate)
        error = caught.value
        assert isinstance(error, AdmissionError)
        assert (error.limit, error.waiting, error.retry_after) == (2, 2, None)
        assert "2" in str(error)
        assert "when_full='wait'" in str(error)
        assert (director.stats().queued, director.stats().rejected) == (2, 1)
        gate.open()
        await asyncio.gather(*jobs)
        assert await director.submit(answer) == 42  # there is room again
    assert len(gate.calls) == 3


async def test_slots_that_are_free_take_jobs_beyond_the_bound(gate: Gate) -> None:
    async with Director("simulated:2", max_queue=3) as director:
        for _ in range(5):  # before the loop has turned
            director.submit(gate)
        with pytest.raises(QueueFull):
            director.submit(gate)
        await gate.begun(2)
        assert director.stats().queued == 3
        gate.open()


async def test_a_queue_of_none_at_all_takes_what_can_run_at_once(gate: Gate) -> None:
    async with Director("simulated:2", max_queue=0) as director:
        jobs = [director.submit(gate), director.submit(gate)]
        with pytest.raises(QueueFull) as caught:
            director.submit(gate)
        assert caught.value.limit == 0
        await gate.begun(2)
        with pytest.raises(QueueFull):
            director.submit(gate)
        gate.open()
        await asyncio.gather(*jobs)
        assert await director.submit(answer) == 42


async def test_a_queue_of_none_at_all_lets_run_wait_for_a_slot(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=0) as director:
        job = director.submit(gate)
        await gate.begun()
        patient = asyncio.create_task(director.run(answer))
        await turns()
        gate.open()
        await job
        try:
            async with asyncio.timeout(PATIENCE):
                assert await patient == 42
        finally:
            patient.cancel()


async def test_no_bound(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=None) as director:
        jobs = [director.submit(gate) for _ in range(3000)]
        assert director.stats().rejected == 0
        gate.open()
        gate.let(3000)
        await asyncio.gather(*jobs)


@pytest.mark.parametrize(
    ("max_queue", "error"), [(-1, ValueError), (1.5, TypeError), ("9", TypeError), (True, TypeError)]
)
def test_a_wrong_bound_is_refused(max_queue: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_queue"):
        Director("simulated:1", max_queue=max_queue)  # type: ignore[arg-type]


async def measured(director: Director, gate: Gate, clock: TestClock, seconds: float) -> None:
    """Have a job take so long."""
    job = director.submit(gate)
    await gate.begun()
    clock.advance(seconds)
    gate.let(1)
    await job
    await rested(director)


async def test_retry_after_is_measured(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", max_queue=3, clock=clock) as director:
        await measured(director, gate, clock, 1.0)
        await measured(director, gate, clock, 3.0)  # two seconds each
        for _ in range(4):
            director.submit(gate)
        await gate.begun()
        with pytest.raises(QueueFull) as caught:
            director.submit(gate)
        assert caught.value.retry_after == pytest.approx(3 * 2.0)
        assert "6" in str(caught.value)
        gate.open()


async def test_retry_after_counts_every_slot(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:2", max_queue=4, clock=clock) as director:
        await measured(director, gate, clock, 2.0)
        await measured(director, gate, clock, 2.0)  # on the other device
        for _ in range(6):
            director.submit(gate)
        await gate.begun(2)
        with pytest.raises(QueueFull) as caught:
            director.submit(gate)
        assert caught.value.retry_after == pytest.approx(4 * 2.0 / 2)
        gate.open()


def test_queue_full_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(QueueFull(8, 9, 1.5)))
    assert (error.limit, error.waiting, error.retry_after) == (8, 9, 1.5)


async def test_run_waits_for_room_and_is_served_in_order(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=1) as director:
        director.submit(gate, 0)
        await gate.begun()
        tasks = []
        for item in range(1, 6):
            tasks.append(asyncio.create_task(director.run(gate, item)))
            await turns()
        assert director.stats().queued == 5
        with pytest.raises(QueueFull):
            director.submit(answer)  # those who wait for room come first
        gate.open()
        assert await asyncio.gather(*tasks) == [1, 2, 3, 4, 5]
    assert gate.items == [0, 1, 2, 3, 4, 5]


async def test_those_who_wait_for_room_stand_in_the_same_order_of_service(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=1) as director:
        director.submit(gate, "first")
        await gate.begun()
        director.submit(gate, "second")
        tasks = [asyncio.create_task(director.run(gate, priority, priority=priority)) for priority in (0, 5, 3)]
        await turns()
        gate.open()
        await asyncio.gather(*tasks)
    assert gate.items == ["first", 5, 3, "second", 0]


async def test_an_urgent_run_overtakes_the_queue_though_it_is_full(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=2) as director:
        director.submit(gate, "first")
        await gate.begun()
        for _ in range(2):
            director.submit(gate, "low")
        urgent = asyncio.create_task(director.run(gate, "urgent", priority=10))
        await turns()
        gate.open()
        await urgent
    assert gate.items == ["first", "urgent", "low", "low"]


async def test_a_caller_that_leaves_while_waiting_for_room_never_runs(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=1) as director:
        director.submit(gate, 0)
        await gate.begun()
        tasks = [asyncio.create_task(director.run(gate, item)) for item in (1, 2, 3)]
        await turns()
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        assert director.stats().queued == 2
        gate.open()
        await asyncio.gather(tasks[0], tasks[2])
    assert gate.items == [0, 1, 3]


async def test_a_place_that_is_given_up_goes_to_who_waits_for_room(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=1) as director:
        director.submit(gate, 0)
        await gate.begun()
        gives_up = director.submit(gate, 1)
        patient = asyncio.create_task(director.run(gate, 2))
        await turns()
        gives_up.cancel()
        with pytest.raises(QueueFull):
            director.submit(gate, 3)  # the place is taken
        gate.open()
        assert await patient == 2


async def held_on_both(director: Director, gate: Gate) -> list[Job[object]]:
    held = [director.submit(gate, index, devices=[index]) for index in (0, 1)]
    await gate.begun(2)
    return held


async def test_the_bound_holds_for_jobs_that_no_free_slot_may_run(gate: Gate) -> None:
    async with Director("simulated:3", max_queue=1) as director:
        director.submit(gate, devices=[0])
        await gate.begun()
        try:
            director.submit(answer, devices=[0])
            with pytest.raises(QueueFull):
                director.submit(answer, devices=[0])
        finally:
            gate.open()


async def test_a_device_that_comes_free_serves_who_waits_for_room(gate: Gate) -> None:
    async with Director("simulated:2", max_queue=1) as director:
        held, one = Gate(), Gate()
        director.submit(held, devices=[0])
        job = director.submit(one, devices=[1])
        await held.begun()
        await one.begun()
        waits = director.submit(answer, devices=[0])  # fills the queue
        patient = asyncio.create_task(director.run(answer, devices=[1]))
        await turns()
        one.open()
        try:
            await asyncio.wait([patient], timeout=0.3)
            assert patient.done(), f"a device is idle: {director!r}"
        finally:
            held.open()
            await asyncio.wait([job, waits, patient])


async def test_a_free_device_serves_a_run_though_the_queue_is_full_for_others(gate: Gate) -> None:
    async with Director("simulated:2", max_queue=1) as director:
        director.submit(gate, devices=[0])
        await gate.begun()
        for _ in range(4):
            try:
                director.submit(answer, devices=[0])
            except QueueFull:
                break
        patient = asyncio.create_task(director.run(answer, devices=[1]))
        try:
            await asyncio.wait([patient], timeout=0.3)
            assert patient.done(), f"a device is idle: {director!r}"
        finally:
            gate.open()
            await asyncio.wait([patient])


async def test_map_within_a_smaller_queue(gate: Gate) -> None:
    async with Director("simulated:2", max_queue=1) as director:
        gate.let(20)
        results = [result async for result in director.map(gate, range(20), window=10)]
        assert results == list(range(20))
        assert director.stats().rejected == 0


async def test_leaving_in_haste_fails_who_waits_for_room(gate: Gate) -> None:
    director = Director("simulated:1", max_queue=1)
    await director.start()
    running = director.submit(gate, 0)
    await gate.begun()
    tasks = [asyncio.create_task(director.run(gate, item)) for item in (1, 2, 3)]
    await turns()
    tasks[0].add_done_callback(lambda _: gate.open())
    await director.close(0)
    assert {type(task.exception()) for task in tasks} == {DirectorClosed}
    assert running.state is JobState.SUCCEEDED
    assert gate.items == [0]


async def test_draining_serves_who_waits_for_room(gate: Gate) -> None:
    async with Director("simulated:1", max_queue=1) as director:
        director.submit(gate, 0)
        await gate.begun()
        tasks = [asyncio.create_task(director.run(gate, item)) for item in (1, 2, 3)]
        await turns()
        gate.open()
        await director.drain()
        assert await asyncio.gather(*tasks) == [1, 2, 3]
