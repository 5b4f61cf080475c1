"""Whoever is cancelled, and whenever: the job is over for its caller, the slot is free when the thread has left it.

Every test ends with the check of its stage: all permits are back, and no thread is left after the close.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from harness.stage import PATIENCE, Stage

from director import Job, Model, check_cancelled
from director._jobs.state import JobState
from director._scheduler.slots import SlotState
from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from harness.stage import Gate

    Make = Callable[..., Awaitable[Stage]]


class HeldClock(TestClock):
    """Holds the next slot's thread that asks for the time."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.is_armed = False
        self.holds = threading.Event()
        self.go = threading.Event()

    def time(self) -> float:
        if self.is_armed and threading.current_thread().name.startswith("director:cpu"):
            self.is_armed = False
            self.holds.set()
            self.go.wait()
        return super().time()


# ---- who is cancelled, and when


async def run(stage: Stage, gate: Gate) -> Any:
    return await stage.director.run(gate)


async def function(stage: Stage, gate: Gate) -> Any:
    return await stage.director.function(gate)()


async def wait_for(stage: Stage, gate: Gate) -> Any:
    return await asyncio.wait_for(stage.director.run(gate), PATIENCE)


async def timeout(stage: Stage, gate: Gate) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await stage.director.run(gate)


async def gather(stage: Stage, gate: Gate) -> Any:
    return await asyncio.gather(stage.director.run(gate))


async def gather_of_a_job(stage: Stage, gate: Gate) -> Any:
    return await asyncio.gather(stage.director.submit(gate))


async def task_group(stage: Stage, gate: Gate) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(stage.director.run(gate))


async def cancel_scope(stage: Stage, gate: Gate) -> Any:
    with anyio.CancelScope():
        return await stage.director.run(gate)


async def map_(stage: Stage, gate: Gate) -> Any:
    return [result async for result in stage.director.map(lambda device, gate: gate(device), [gate])]


AT_ONCE = [run, function, timeout, gather, gather_of_a_job, cancel_scope]
A_TURN_LATER = [wait_for, task_group, map_]  # they cancel a task of their own, which cancels the job


async def submitted(stage: Stage, gate: Gate) -> None:
    """The job waits, and nobody has looked yet."""
    while not stage.director.stats().queued:  # noqa: ASYNC110 - not one turn of the loop more
        await asyncio.sleep(0)


async def hired(stage: Stage, gate: Gate) -> None:
    """A worker is on its way, and has not taken the job yet."""
    stage.clock.is_armed = True  # type: ignore[attr-defined]
    await stage.until(lambda: stage.slots[0].state is SlotState.STARTING)
    assert stage.clock.holds.wait(PATIENCE)  # type: ignore[attr-defined]


async def running(stage: Stage, gate: Gate) -> None:
    """The function has been called."""
    await stage.until(lambda: gate.is_blocking)


async def on_its_way(stage: Stage, gate: Gate) -> None:
    """The function has returned; the loop has not heard of it."""
    await running(stage, gate)
    gate.open("too late")
    stage.wait(lambda: stage.has_left(gate))


@pytest.mark.parametrize(
    ("caller", "step"),
    [
        *itertools.product(AT_ONCE, [submitted, hired, running, on_its_way]),
        *itertools.product(A_TURN_LATER, [hired, running]),
    ],
)
async def test_cancelling_the_caller_ends_the_job(make_stage: Make, caller: Any, step: Any) -> None:
    stage = await make_stage(clock=HeldClock())
    gate = stage.gate()
    task = asyncio.create_task(caller(stage, gate))
    await step(stage, gate)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled(stage)
    assert gate.calls == (step in (running, on_its_way))
    assert stage.director.stats().cancelled == 1
    await the_slot_waits_for_its_thread(stage, gate)


async def settled(stage: Stage) -> None:
    stage.clock.go.set()  # type: ignore[attr-defined]
    await stage.quiet()


async def the_slot_waits_for_its_thread(stage: Stage, gate: Gate) -> None:
    """The next job starts when `gate` is open, and not before."""
    following, job = stage.submit()
    await stage.quiet()
    assert following.is_blocking is not gate.is_blocking
    gate.open("nobody wants it any more")
    following.open("result")
    assert await job == "result"
    assert max(stage.crowd.most.values()) == 1


@pytest.mark.parametrize("step", [submitted, hired, running, on_its_way])
async def test_cancelling_a_job(make_stage: Make, step: Any) -> None:
    stage = await make_stage(clock=HeldClock())
    gate, job = stage.submit()
    await step(stage, gate)
    assert job.cancel()
    assert not job.cancel()
    assert job.cancelled()
    assert job.state is JobState.CANCELLED
    await settled(stage)
    assert stage.director.stats().cancelled == 1
    await the_slot_waits_for_its_thread(stage, gate)


async def test_cancelling_an_ended_job_changes_nothing(make_stage: Make) -> None:
    stage = await make_stage()
    gate, job = stage.submit()
    gate.open("result")
    assert await job == "result"
    assert not job.cancel()
    assert await job == "result"


class Stepper:
    """Stops the thread of a slot before one chosen instruction of what starts a job."""

    def __init__(self, stage: Stage) -> None:
        from director._executors.thread import ThreadRunner
        from director._runtime.worker_thread.worker import Worker

        self.codes = {Worker._run.__code__, ThreadRunner.run.__code__}
        self.changed = stage.watch.changed
        self.stop_at = 0
        self.steps = 0
        self.is_stopped = False

    def install(self, _device: Any) -> Any:
        """Trace this thread; what traced it before."""
        sys._getframe().f_trace_opcodes = True  # Python 3.12 counts instructions if a frame has asked before `settrace`
        return sys_settrace(self.trace)

    def begin(self, stop_at: int) -> None:
        self.steps, self.stop_at, self.is_stopped = 0, stop_at, False

    def trace(self, frame: Any, event: str, arg: Any) -> Any:
        if frame.f_code not in self.codes:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self.step

    def step(self, frame: Any, event: str, arg: Any) -> Any:
        if event == "opcode":
            self.steps += 1
            if self.steps == self.stop_at:
                self.stop()
        return self.step

    def stop(self) -> None:
        with self.changed:
            self.is_stopped = True
            self.changed.notify_all()
            while self.is_stopped:
                self.changed.wait()

    def go_on(self) -> None:
        with self.changed:
            self.is_stopped = False
            self.changed.notify_all()


async def test_cancelling_at_every_instruction_of_the_start(make_stage: Make) -> None:
    """A function is called with its own arguments or not at all, and the worker survives."""
    stage = await make_stage()
    stepper = Stepper(stage)
    calls: list[Any] = []
    before = await stage.director.submit(stepper.install)
    await stage.director.run(lambda device: None)  # Python 3.13 counts instructions from a function's second call on
    for instruction in range(1, 10_000):
        stepper.begin(instruction)
        job = stage.director.submit(lambda device, *args: calls.append(args), "its own")
        await stage.until(lambda job=job: stepper.is_stopped or job.done())
        if job.done():
            break
        job.cancel()
        stepper.go_on()
        await stage.quiet()
    stepper.begin(0)
    await stage.director.run(lambda device: sys_settrace(before))
    assert instruction > 20
    assert set(calls) == {("its own",)}
    assert stage.director.stats().cancelled == instruction - 1


def sys_settrace(trace: Any) -> Any:
    """Trace the calling thread from its next call on; returns what traced it before (coverage, perhaps)."""
    before = sys.gettrace()
    sys.settrace(trace)
    return before


# ---- one caller among others


async def test_cancelling_a_task_that_awaits_a_job_cancels_it_for_all(make_stage: Make) -> None:
    stage = await make_stage()
    gate, job = stage.submit()

    async def wait() -> Any:
        return await job

    one, other = asyncio.create_task(wait()), asyncio.create_task(wait())
    await stage.quiet()
    one.cancel()
    await stage.quiet()
    assert one.cancelled()
    assert other.cancelled()
    assert job.state is JobState.CANCELLED
    gate.open("result")


async def test_a_shielded_job_goes_on(make_stage: Make) -> None:
    stage = await make_stage()
    gate, job = stage.submit()

    async def wait() -> Any:
        return await asyncio.shield(job)

    one, other = asyncio.create_task(wait()), asyncio.create_task(wait())
    await stage.quiet()
    one.cancel()
    await stage.quiet()
    assert one.cancelled()
    assert job.state is JobState.RUNNING
    gate.open("result")
    assert await other == "result"
    assert await job == "result"


async def test_cancelling_the_job_cancels_all_who_await_it(make_stage: Make) -> None:
    stage = await make_stage()
    _, job = stage.submit()
    tasks = [asyncio.ensure_future(asyncio.wait([job])) for _ in range(2)]
    await stage.quiet()
    job.cancel("enough")
    await stage.quiet()
    assert all(task.done() for task in tasks)
    with pytest.raises(asyncio.CancelledError):
        await job


async def test_one_caller_among_others(make_stage: Make) -> None:
    stage = await make_stage("cpu:2")
    gates = [stage.gate() for _ in range(6)]
    tasks = [asyncio.create_task(stage.director.run(gate)) for gate in gates]
    await stage.quiet()
    for index in (0, 3):  # one that runs, one that waits
        tasks[index].cancel()
    for gate in gates:
        gate.open(gate)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for index, result in enumerate(results):
        assert isinstance(result, asyncio.CancelledError) if index in (0, 3) else result is gates[index]
    assert gates[3].calls == 0


async def test_a_patient_caller_gives_up(make_stage: Make) -> None:
    """While it waits for room in a full queue."""
    stage = await make_stage(max_queue=1)
    (first, first_job), (second, second_job) = stage.submit(), stage.submit()
    await stage.quiet()
    gates = [stage.gate() for _ in range(3)]
    tasks = [asyncio.create_task(stage.director.run(gate)) for gate in gates]
    await stage.quiet()
    tasks[1].cancel()
    second_job.cancel()
    await stage.quiet()
    assert tasks[1].cancelled()
    for gate in (first, gates[0], gates[2]):
        gate.open(gate)
    assert await asyncio.gather(tasks[0], tasks[2]) == [gates[0], gates[2]]
    assert await first_job is first
    assert (second.calls, gates[1].calls) == (0, 0)


# ---- what the function and the model learn


async def test_check_cancelled_in_the_job(make_stage: Make) -> None:
    stage = await make_stage()
    gate = stage.gate()
    raised: list[BaseException] = []

    def work(device: Any) -> None:
        check_cancelled()
        gate(device)
        try:
            check_cancelled()
        except asyncio.CancelledError as error:
            raised.append(error)
            raise

    task = asyncio.create_task(stage.director.run(work))
    await stage.until(lambda: gate.is_blocking)
    task.cancel()
    await stage.quiet()
    gate.open()
    await stage.quiet()
    assert task.cancelled()
    assert len(raised) == 1
    assert stage.director.stats().cancelled == 1


async def test_cancelled_while_its_model_loads(make_stage: Make) -> None:
    """The load goes on, for the next job wants the model too."""
    stage = await make_stage()
    loading = stage.gate()
    loads: list[Any] = []

    def load(device: Any) -> str:
        loads.append(device)
        loading(device)
        return "replica"

    model = Model(load)
    task = asyncio.create_task(stage.director.run(lambda replica: replica, model=model))
    await stage.until(lambda: loading.is_blocking)
    task.cancel()
    following = stage.director.submit(lambda replica: replica, model=model)
    await stage.quiet()
    assert task.cancelled()
    assert following.state is JobState.QUEUED
    loading.open()
    assert await following == "replica"
    assert len(loads) == 1


@pytest.mark.parametrize("outcome", ["loaded", ValueError("not loaded")], ids=repr)
async def test_cancelled_while_another_slot_loads_its_model(make_stage: Make, outcome: Any) -> None:
    """Two slots of a device share one load; who waits for it may leave, and the others get what becomes of it."""
    stage = await make_stage(slots=3)
    loading = stage.gate()
    model = Model(loading)
    jobs = [stage.director.submit(lambda replica: replica, model=model) for _ in range(3)]
    await stage.until(lambda: all(slot.job is not None for slot in stage.slots))
    await stage.until(lambda: loading.is_blocking)
    loader = next(job for job in jobs if not loading_elsewhere(stage, job, loading))
    one, other = (job for job in jobs if job is not loader)
    one.cancel()
    loading.open(outcome)
    await asyncio.wait(jobs)
    await stage.quiet()
    assert one.cancelled()
    for job in (loader, other):
        assert (job.exception() or job.result()) is outcome
    assert loading.calls == 1
    assert stage.director.stats().cancelled == 1


def loading_elsewhere(stage: Stage, job: Job[Any], loading: Gate) -> bool:
    """The job waits for the load that another one has begun."""
    slot = next(slot for slot in stage.slots if slot.job is job)
    return slot.thread._thread is not loading.thread
