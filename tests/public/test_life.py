"""The life of a Director: start, drain, close, again; in haste, in a crowd, forgotten. Nothing is left behind."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import anyio
import pytest
from harness.gates import PATIENCE, Gate, outcome, turns, until

from director import Director, DirectorClosed, DirectorState, JobAborted, JobError, JobState, Model, PlacementError
from director._scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from director.testing import TestClock


def ours() -> list[str]:
    """Threads of Directors, but for those that have looked for devices: they end by themselves (see `conftest.py`)."""
    names = (thread.name for thread in threading.enumerate())
    return sorted(name for name in names if name.startswith("director:") and name != "director:discovery")


async def test_states_over_a_life(gate: Gate) -> None:
    director = Director("simulated:1")
    assert (director.state, director.healthy) == (DirectorState.NEW, False)
    await director.start()
    assert (director.state, director.healthy) == (DirectorState.OPEN, True)
    job = director.submit(gate)
    await gate.begun()
    closing = asyncio.create_task(director.close())
    await turns()
    assert (director.state, director.healthy) == (DirectorState.DRAINING, False)
    gate.open()
    await closing
    assert (director.state, director.healthy, job.state) == (DirectorState.CLOSED, False, JobState.SUCCEEDED)
    assert ours() == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_leaving_the_block_drains(gate: Gate) -> None:
    async with Director("simulated:2") as director:
        jobs = [director.submit(gate, item) for item in range(10)]
        gate.open()
    assert [job.result() for job in jobs] == list(range(10))
    assert ours() == []


async def test_nothing_runs_and_no_thread_is_there_at_rest() -> None:
    async with Director("simulated:8", slots=4):
        await until(lambda: ours() == [])


async def test_leaving_by_an_exception_fails_what_waits(gate: Gate) -> None:
    director = Director("simulated:1")
    jobs: list[Any] = []

    async def use() -> None:
        async with director:
            jobs.extend(director.submit(gate, item) for item in range(4))
            jobs[-1].add_done_callback(lambda _: gate.open())
            await gate.begun()
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        await use()
    assert [job.state for job in jobs] == [JobState.SUCCEEDED] + [JobState.FAILED] * 3  # what ran had time to end
    assert director.state is DirectorState.CLOSED
    assert gate.items == [0]
    assert ours() == []


async def test_leaving_by_cancellation_fails_what_waits(gate: Gate) -> None:
    jobs: list[Any] = []

    async def use() -> None:
        async with Director("simulated:1") as director:
            jobs.extend(director.submit(gate, item) for item in range(3))
            jobs[-1].add_done_callback(lambda _: gate.open())
            await asyncio.Event().wait()

    task = asyncio.create_task(use())
    await gate.begun()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert [job.state for job in jobs] == [JobState.SUCCEEDED, JobState.FAILED, JobState.FAILED]
    assert ours() == []


async def test_leaving_by_an_exception_does_not_wait_for_a_tests_clock(gate: Gate, clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    await director.start()
    director.submit(gate)
    await gate.begun()
    waiting = director.submit(gate)
    waiting.add_done_callback(lambda _: gate.open())
    async with asyncio.timeout(PATIENCE):
        await director.__aexit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert isinstance(waiting.exception(), DirectorClosed)


async def test_one_whose_caller_has_left_before_is_told_of_too(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    director = Director("simulated:1")
    await director.start()
    job = director.submit(gate, name="stuck")
    await gate.begun()
    job.cancel()
    await director.close(0, grace=0)
    assert caplog.text.count("abandoned") == 1
    assert "'stuck'" in caplog.text
    gate.open()
    await until(lambda: ours() == [])


async def test_a_call_that_does_not_end_is_left_behind_with_a_warning(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    unloaded: list[str] = []
    model = Model(lambda device: device.label, unload=unloaded.append)
    director = Director("simulated:2")
    await director.start()
    await director.load(model)
    job = director.submit(gate, devices=[1], name="stuck")
    await gate.begun()
    caller = asyncio.create_task(outcome(job))
    await director.close(0, grace=0.01)
    assert (director.state, job.state) == (DirectorState.CLOSED, JobState.FAILED)
    assert isinstance(await caller, JobAborted)
    assert "'stuck'" in caplog.text
    assert "abandoned" in caplog.text
    assert unloaded == ["simulated:0"]
    assert ours() == ["director:simulated:1/0"]
    gate.open()
    await until(lambda: ours() == [])  # it ends with its call


async def test_close_waits_so_long_and_no_longer(gate: Gate, clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    await director.start()
    running = director.submit(gate)
    await gate.begun()
    waiting = director.submit(gate)
    waiting.add_done_callback(lambda _: gate.open())
    closing = asyncio.create_task(director.close(timeout=10))
    await turns()
    clock.advance(9.9)
    await turns()
    assert waiting.state is JobState.QUEUED
    clock.advance(0.1)
    await closing
    assert (running.state, waiting.state) == (JobState.SUCCEEDED, JobState.FAILED)


async def test_close_within_its_timeout_drains(gate: Gate, clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    await director.start()
    jobs = [director.submit(gate, item) for item in range(3)]
    closing = asyncio.create_task(director.close(timeout=10))
    await turns()
    gate.open()
    await closing
    assert [job.result() for job in jobs] == [0, 1, 2]


async def test_cancelling_close_closes_at_once(gate: Gate) -> None:
    director = Director("simulated:1")
    await director.start()
    director.submit(gate)
    await gate.begun()
    waiting = director.submit(gate)
    waiting.add_done_callback(lambda _: gate.open())
    closing = asyncio.create_task(director.close())
    await turns()
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert (director.state, waiting.state) == (DirectorState.CLOSED, JobState.FAILED)
    assert ours() == []


async def test_a_cancel_scope_that_cancels_at_every_step_does_not_break_off_the_close(gate: Gate) -> None:
    unloaded: list[str] = []
    jobs: list[Any] = []
    with anyio.CancelScope() as scope:
        async with Director("simulated:1") as director:
            await director.load(Model(lambda device: device.label, unload=unloaded.append))
            jobs.extend(director.submit(gate) for _ in range(2))
            jobs[1].add_done_callback(lambda _: gate.open())
            await gate.begun()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert [job.state for job in jobs] == [JobState.SUCCEEDED, JobState.FAILED]
    assert (director.state, unloaded, ours()) == (DirectorState.CLOSED, ["simulated:0"], [])


IMPATIENT = """
import asyncio, threading
from director import Director, Model
def ours():
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("director"))
async def main():
    director = Director("simulated:1")
    await director.start()
    begun, end, unloaded = threading.Event(), threading.Event(), []
    model = Model(lambda device: device.label, unload=unloaded.append)
    job = director.submit(lambda replica: (begun.set(), end.wait(10)), model=model)
    while not begun.is_set():
        await asyncio.sleep(0.001)
    closing = asyncio.create_task(director.close())
    for _ in range(2):  # the first cancels the wait, the second must not break off the close
        await asyncio.sleep(0.01)
        closing.cancel()
    await asyncio.sleep(0.01)
    end.set()
    await asyncio.wait([closing])
    while ours():  # the test has a limit of time
        await asyncio.sleep(0.001)
    print(director.state.value, unloaded, ours())
asyncio.run(main())
"""


def test_cancelling_close_twice_still_closes(python: Callable[[str], str]) -> None:
    assert "closed ['simulated:0'] []" in python(IMPATIENT)


async def test_closing_twice_and_before_the_start_is_nothing() -> None:
    director = Director("simulated:1")
    await director.close()
    assert director.state is DirectorState.NEW
    await director.start()
    await asyncio.gather(director.close(), director.close(), director.close())
    await director.close()
    assert director.state is DirectorState.CLOSED


async def test_closing_in_a_crowd(gate: Gate) -> None:
    director = Director("simulated:2")
    await director.start()
    job = director.submit(gate)
    await gate.begun()
    closing = [asyncio.create_task(director.close()) for _ in range(3)]
    closing.append(asyncio.create_task(director.drain()))
    await turns()
    gate.open()
    await asyncio.gather(*closing)
    assert job.done()
    assert ours() == []


async def test_a_patient_close_and_a_hasty_one(gate: Gate) -> None:
    director = Director("simulated:1")
    await director.start()
    job = director.submit(gate)
    await gate.begun()
    patient = asyncio.create_task(director.close())
    await turns()
    await director.close(0, grace=0)  # abandons the call
    assert isinstance(job.exception(), JobAborted)
    gate.open()
    async with asyncio.timeout(PATIENCE):
        await patient


async def test_drain_by_hand(gate: Gate) -> None:
    director = Director("simulated:1")
    with pytest.raises(DirectorClosed):
        await director.drain()
    await director.start()
    jobs = [director.submit(gate, item) for item in range(3)]
    draining = asyncio.create_task(director.drain())
    await turns()
    assert not draining.done()
    gate.open()
    await draining
    assert [job.result() for job in jobs] == [0, 1, 2]
    assert director.state is DirectorState.DRAINING
    with pytest.raises(DirectorClosed):
        director.submit(gate)
    await director.drain()  # again
    await director.close()
    with pytest.raises(DirectorClosed):
        await director.drain()


async def test_cancelling_drain_goes_on_draining(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        job = director.submit(gate, 42)
        draining = asyncio.create_task(director.drain())
        await turns()
        draining.cancel()
        await asyncio.wait([draining])
        assert director.state is DirectorState.DRAINING
        gate.open()
        await director.drain()
        assert job.result() == 42


async def test_starting_twice_is_refused_and_again_after_the_close_is_not() -> None:
    director = Director("simulated:1")
    async with director:
        with pytest.raises(RuntimeError, match="open"):
            await director.start()
        with pytest.raises(RuntimeError, match="open"):
            await director.__aenter__()
        assert await director.run(lambda _: 1) == 1
    async with director:
        assert await director.run(lambda _: 2) == 2


async def test_starting_in_a_crowd() -> None:
    director = Director("simulated:1")
    results = await asyncio.gather(director.start(), director.start(), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["NoneType", "RuntimeError"]
    await director.close()


def test_on_another_loop_after_the_close() -> None:
    async def once() -> int:
        async with director:
            return await director.run(lambda _: 42)

    director = Director("simulated:1")
    assert [asyncio.run(once()) for _ in range(3)] == [42] * 3


async def test_a_start_that_fails_can_be_tried_again() -> None:
    slots: dict[Any, int] = {"SIM-7": 2}
    director = Director("simulated:1", slots=slots)
    for _ in range(2):
        with pytest.raises(PlacementError):
            await director.start()
        assert director.state is DirectorState.NEW
    slots.clear()
    async with director:
        assert await director.run(lambda _: 42) == 42


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"slots": 0}, ValueError),
        ({"slots": -1}, ValueError),
        ({"slots": 1.5}, TypeError),
        ({"slots": True}, TypeError),
        ({"slots": "2"}, TypeError),
        ({"slots": {0: 0}}, ValueError),
        ({"slots": {0: "2"}}, TypeError),
        ({"executor": "processes"}, ValueError),
        ({"executor": 5}, ValueError),
        ({"hooks": 5}, TypeError),
        ({"clock": 5}, TypeError),
        ({"clock": Mock()}, TypeError),
        ({"gpus": 2}, TypeError),
    ],
    ids=lambda value: re.sub(r" id='\d+'", "", str(value)),  # the same in all processes of a run
)
def test_a_wrong_argument_is_refused_when_it_is_made(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Director("simulated:1", **options)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="name"):
        Director("simulated:1", name=5)  # type: ignore[arg-type]


async def test_another_loop_is_told() -> None:
    async with Director("simulated:1") as director:

        def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="loop"):
                asyncio.run(director.drain())

        await asyncio.to_thread(elsewhere)
        assert await director.run(lambda _: 42) == 42


async def test_another_loop_can_not_close_it() -> None:
    async with Director("simulated:1") as director:

        def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="loop"):
                asyncio.run(director.close())

        await asyncio.to_thread(elsewhere)
        assert await director.run(lambda _: 42) == 42


CANCEL_ALL = """
import asyncio, os, threading, warnings
from director import Director, Model
warnings.simplefilter("always")
def ours():
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("director"))
unloaded = []
async def app():
    async with Director("simulated:2") as director:
        await director.load(Model(lambda device: device.label, unload=unloaded.append))
        ready.set()
        await asyncio.Event().wait()
async def main():
    global ready
    ready = asyncio.Event()
    task = asyncio.create_task(app())
    await ready.wait()
    others = asyncio.all_tasks() - {{asyncio.current_task()}}
    for each in sorted(others, key=lambda task: task.get_name().startswith("director"), reverse={director_first}):
        each.cancel()  # what many applications do to end themselves; the set has any order
    await asyncio.wait([task], timeout=10)
    for _ in range(500):
        if ours():
            await asyncio.sleep(0.01)
    print(sorted(unloaded), ours(), "cancelled" if task.cancelled() else task, flush=True)
    os._exit(0)
asyncio.run(main())
"""


@pytest.mark.parametrize("director_first", [True, False])
def test_an_application_that_cancels_all_tasks_leaves_nothing_behind(
    director_first: bool, python: Callable[[str], str]
) -> None:
    printed = python(CANCEL_ALL.format(director_first=director_first))
    assert "['simulated:0', 'simulated:1'] [] cancelled" in printed
    assert "never closed" not in printed


FORGOTTEN = """
import asyncio, threading, warnings
from director import Director
warnings.simplefilter("always")
async def main():
    director = Director("simulated:1", name="forgotten")
    await director.start()
    waiting = [director.submit({call}) for _ in range(3)]
    await asyncio.sleep(0.05)
asyncio.run(main())
print("the loop is gone")
"""


def test_a_forgotten_close_warns(python: Callable[[str], str]) -> None:
    printed = python(FORGOTTEN.format(call="lambda device: None"))
    assert "ResourceWarning" in printed
    assert "'forgotten'" in printed
    assert "never closed" in printed
    assert "the loop is gone" in printed


def test_the_threads_of_a_forgotten_director_end_with_its_loop(python: Callable[[str], str]) -> None:
    source = """
import time
while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("director")]:
    time.sleep(0.001)
print(left)
"""
    assert "[]" in python(FORGOTTEN.format(call="lambda device: None") + source)


def test_leaving_the_interpreter_does_not_wait_for_a_stuck_job(python: Callable[[str], str]) -> None:
    printed = python(FORGOTTEN.format(call="lambda device: threading.Event().wait()"))
    assert "the loop is gone" in printed
    assert "Traceback" not in printed


def test_leaving_the_interpreter_while_jobs_come_and_go_is_quiet(python: Callable[[str], str]) -> None:
    printed = python(FORGOTTEN.format(call="lambda device: threading.Event().wait(0.06)"))
    assert "Traceback" not in printed


class Poison(BaseException):
    """What nobody catches."""


async def test_if_the_director_itself_fails_every_open_job_does(
    gate: Gate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Poison("a bug of ours")

    monkeypatch.setattr(Scheduler, "pick_slots_to_start", fail)
    director = Director("simulated:1")
    await director.start()
    jobs = [director.submit(gate) for _ in range(3)]
    results = [await outcome(job) for job in jobs]
    assert [type(result) for result in results] == [JobError] * 3
    assert all(isinstance(result.__cause__, Poison) for result in results)
    assert (director.state, director.healthy) == (DirectorState.FAILED, False)
    assert "the Director failed" in caplog.text
    with pytest.raises(DirectorClosed) as caught:
        director.submit(gate)
    assert caught.value.state == "failed"
    gate.open()
    await director.close()
    assert director.state is DirectorState.CLOSED
    assert ours() == []


async def test_close_from_the_callback_of_a_job(gate: Gate) -> None:
    director = Director("simulated:1")
    await director.start()
    closing: list[asyncio.Task[None]] = []
    job = director.submit(gate)
    job.add_done_callback(lambda _: closing.append(asyncio.create_task(director.close())))
    gate.open()
    await job
    await turns(3)
    await closing[0]
    assert director.state is DirectorState.CLOSED


@pytest.mark.every_loop
async def test_a_whole_life_on_every_loop() -> None:
    async with Director("simulated:2", slots=2) as director:
        jobs = [director.submit(lambda device, n: (device.index, n), n) for n in range(100)]
        assert [n for _, n in await asyncio.gather(*jobs)] == list(range(100))
        assert [n async for n in director.map(lambda _, n: n, range(100))] == list(range(100))
    assert ours() == []


@pytest.mark.every_loop
async def test_ten_thousand_jobs_and_random_cancels_leave_every_slot_free() -> None:
    import random

    choice = random.Random(11)
    async with Director("simulated:2", slots=2, max_queue=None) as director:
        jobs = []
        for number in range(10_000):
            jobs.append(director.submit(lambda _: None))
            if choice.random() < 0.3:
                choice.choice(jobs).cancel()
            if number % 500 == 0:
                await asyncio.sleep(0)
        await director.drain()
        stats = director.stats()
        assert all(job.done() for job in jobs)
        assert stats.succeeded + stats.cancelled == 10_000
        assert [device.busy for device in stats.devices] == [0, 0]
    assert ours() == []
