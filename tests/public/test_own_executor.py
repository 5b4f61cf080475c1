"""A user's executor: what its runners are given, and when they are told of callers who leave."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, until

from director import Call, Director, JobAborted, JobTimeout, Model, RunnerEvents, SlotInfo, WorkerDied
from director.events import JobProgressed
from director.hooks import CallHook
from director.testing import TestClock, simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from director import Job


class Recording:
    """Makes calls on the slots' threads and notes what it is asked."""

    def __init__(self, run: Callable[[Call, Recording.Seat], Any] | None = None) -> None:
        self.make = run or _make
        self.slots: list[SlotInfo] = []
        self.calls: list[Call] = []
        self.abandoned: list[Call] = []
        self.threads: set[int] = set()
        self.closed = 0
        self.aborted = 0
        self.error: Exception | None = None  # raised by what the event loop calls

    def runner(self, slot: SlotInfo, events: RunnerEvents) -> Recording.Seat:
        self.slots.append(slot)
        return Recording.Seat(self, slot, events)

    class Seat:
        def __init__(self, executor: Recording, slot: SlotInfo, events: RunnerEvents) -> None:
            self.executor, self.slot, self.events = executor, slot, events

        def run(self, call: Call) -> Any:
            self.executor.calls.append(call)
            return self.executor.make(call, self)

        def abandon(self, call: Call) -> None:
            self.executor.abandoned.append(call)
            self.executor.threads.add(threading.get_ident())
            if self.executor.error is not None:
                raise self.executor.error

        def abort(self) -> bool:
            self.executor.aborted += 1
            if self.executor.error is not None:
                raise self.executor.error
            return False

        def close(self) -> None:
            self.executor.closed += 1


def _make(call: Call, seat: Recording.Seat) -> Any:
    args = call.args if call.items is None else (call.items,)
    return call.context.run(call.fn, seat.slot.device, *args, **call.kwargs)


def double(_device: Any, items: list[int]) -> list[int]:
    return [2 * item for item in items]


def count(_device: Any, end: int) -> Iterator[int]:
    yield from range(end)


async def test_slots_are_told_apart() -> None:
    executor = Recording()
    async with Director(simulated_devices(2), slots={0: 1, 1: 2}, executor=executor) as director:
        told = [(slot.number, slot.device, slot.position, slot.slots) for slot in executor.slots]
        first, second = director.devices
    assert told == [(0, first, 0, 1), (1, second, 1, 2), (2, second, 1, 2)]
    assert executor.closed == 0  # no slot has run anything


async def test_a_call_has_what_was_given() -> None:
    executor = Recording()
    async with Director("simulated:1", executor=executor) as director:
        assert await director.run(lambda _, *args: args, 1, 2) == (1, 2)
        assert await director.function(double, max_batch_size=2)(4) == 8
        assert [value async for value in director.stream(count, 3)] == [0, 1, 2]
    plain, batch, stream = executor.calls
    assert (plain.args, plain.items, plain.generator, plain.put) == ((1, 2), None, None, None)
    assert (batch.fn, batch.args, batch.items) == (double, (), [4])
    assert (stream.generator, stream.args, stream.items) == (count, (3,), None)
    assert stream.put is not None
    assert [len(call.jobs) for call in executor.calls] == [1, 1, 1]
    assert executor.closed == 1


async def test_a_runner_is_told_once_that_all_callers_have_left(gate: Gate) -> None:
    executor = Recording(lambda call, seat: gate(None, call.items))
    async with Director("simulated:1", executor=executor) as director:
        held = director.submit(double, [0])
        await gate.begun()
        function = director.function(double, max_batch_size=2)
        jobs = [function.submit(number) for number in (1, 2)]
        gate.let(1)
        await held
        await until(lambda: len(executor.calls) == 2)
        jobs[0].cancel()
        assert not executor.abandoned
        assert not executor.calls[1].cancelled()
        jobs[1].cancel()
        assert executor.abandoned == [executor.calls[1]]
        assert executor.calls[1].cancelled()
        assert executor.threads == {threading.get_ident()}
        gate.open()
    assert executor.abandoned == [executor.calls[1]]


@pytest.mark.parametrize("raises", [False, True])
async def test_a_runner_is_told_that_the_director_closes(gate: Gate, raises: bool) -> None:
    """One that raises keeps no other from being told, nor the close from its end."""
    executor = Recording(lambda call, seat: gate(None, call.args))
    executor.error = KeyError("in the runner") if raises else None
    director = Director("simulated:2", executor=executor)
    await director.start()
    jobs = [director.submit(double, [n]) for n in range(2)]
    await gate.begun(2)
    assert not any(call.cancelled() for call in executor.calls)
    await director.close(0, grace=0.01)
    assert all(call.cancelled() for call in executor.calls)
    assert sorted(map(id, executor.abandoned)) == sorted(map(id, executor.calls))
    assert executor.aborted == 2
    assert {type(job.exception()) for job in jobs} == {JobAborted}
    gate.open()


async def test_a_runner_is_told_that_time_is_up(clock: TestClock, gate: Gate) -> None:
    executor = Recording(lambda call, seat: gate(None, call.args))
    async with Director("simulated:1", executor=executor, clock=clock) as director:
        job = director.submit(double, [0], timeout=5)
        await gate.begun()
        clock.advance(6)
        with pytest.raises(JobTimeout):
            await job
        assert executor.abandoned == executor.calls
        gate.open()


async def test_progress_that_a_runner_reports_is_that_of_the_jobs() -> None:
    def make(call: Call, seat: Recording.Seat) -> Any:
        seat.events.progressed(call.jobs, 0.5)
        return _make(call, seat)

    events: list[Any] = []
    async with Director("simulated:1", executor=Recording(make), hooks=[events.append]) as director:
        job = director.submit(double, [1])
        await job
    assert job.progress == 0.5
    assert [event.progress for event in events if isinstance(event, JobProgressed)] == [0.5]


async def test_call_hooks_enclose_the_calls_of_a_runner() -> None:
    class Enclosing:
        wants = ()

        def __init__(self) -> None:
            self.jobs: list[Job[Any]] = []

        def __call__(self, event: Any) -> None: ...

        def around_call(self, jobs: Sequence[Job[Any]]) -> AbstractContextManager[object]:
            self.jobs += jobs
            return threading.Lock()

    hook = Enclosing()
    assert isinstance(hook, CallHook)
    async with Director("simulated:1", executor=Recording(), hooks=[hook]) as director:
        assert await director.run(double, [1]) == [2]
    assert len(hook.jobs) == 1


async def test_only_the_loss_of_its_own_device_is_a_loss() -> None:
    other = simulated_devices(2)[1]
    losses: list[Any] = [other, None]

    def make(call: Call, seat: Recording.Seat) -> Any:
        if losses:
            device = losses.pop()
            raise WorkerDied(None, device or seat.slot.device)
        return _make(call, seat)

    async with Director("simulated:1", executor=Recording(make)) as director:
        with pytest.raises(WorkerDied) as caught:
            await director.run(double, [1], retries=5, backoff=0)
        assert caught.value.device is other
        assert await director.run(double, [1]) == [2]


async def test_a_coroutine_function_is_refused() -> None:
    async def sleeping(_device: Any) -> None: ...

    awaitable: Any = sleeping

    async with Director("simulated:1", executor=Recording()) as director:
        with pytest.raises(TypeError, match="is a coroutine function"):
            await director.run(awaitable)


@pytest.mark.parametrize("loads", [True, False])
async def test_a_load_that_is_limited_is_a_call_of_its_own(loads: bool) -> None:
    """So that the function is not called when the time to begin is up; a runner that reports its loads gets it once."""

    def make(call: Call, seat: Recording.Seat) -> Any:
        assert call.model is not None
        if loads and call.model not in loaded:
            loaded.append(call.model)
            seat.events.loaded(call.model, seat.slot, 0.0)
        return call.fn("replica", *call.args)

    loaded: list[Model[Any]] = []
    executor = Recording(make)
    model = Model(str)
    async with Director("simulated:1", executor=executor) as director:
        for number in range(2):
            assert await director.run(lambda replica, n: (replica, n), number, model=model, start_within=50) == (
                "replica",
                number,
            )
        assert await director.run(lambda replica: replica, model=model) == "replica"
    assert [len(call.args) for call in executor.calls] == ([0, 1, 1, 0] if loads else [0, 1, 0, 1, 0])
