"""Slots that can't begin: no thread, no process. What waits goes elsewhere, and nothing takes job after job."""

from __future__ import annotations

import asyncio
import errno
import threading
from contextvars import Context
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import until
from harness.stage import PATIENCE, Stage

from director import Call, DeviceLost, DirectorClosed, DirectorState, Health, Model, RunnerEvents, SlotInfo
from director._executors.base import NeverStarted
from director._jobs.state import JobState
from director.events import DeviceQuarantined, DeviceRestored, Event, JobRetried

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Make = Callable[..., Awaitable[Stage]]
    Scarcity = set[str]


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Scarcity:
    """Names of threads that can't be started, as long as they are in it; those that begin with them too."""
    names: set[str] = set()
    start = threading.Thread.start

    def start_or_not(thread: threading.Thread) -> None:
        if any(thread.name.startswith(name) for name in names):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    return names


def health(stage: Stage) -> list[Health]:
    return [device.health for device in stage.director.stats().devices]


class Unready:
    """An executor on the slots' threads of which some slots can't begin.

    Args:
        numbers: Of these slots; read at each call.
        cause: What their start raises.
    """

    def __init__(self, *numbers: int, cause: Exception | None = None) -> None:
        self.numbers = set(numbers)
        self.tries: list[int] = []  # slots, in the order of their failed starts
        self.cause = cause or OSError(errno.EMFILE, "Too many open files")

    def runner(self, slot: SlotInfo, _events: RunnerEvents) -> Unready.Seat:
        return Unready.Seat(slot, self)

    class Seat:
        def __init__(self, slot: SlotInfo, executor: Unready) -> None:
            self.slot, self.executor = slot, executor

        def _begin(self) -> None:
            if self.slot.number in self.executor.numbers:
                self.executor.tries.append(self.slot.number)
                raise NeverStarted(self.slot.device, str(self.executor.cause)) from self.executor.cause

        def run(self, call: Call) -> Any:
            self._begin()
            if call.items is not None:
                return call.fn(self.slot.device, call.items)
            return Context().run(call.fn, self.slot.device, *call.args)

        def close(self) -> None: ...

        def abandon(self, call: Call) -> None: ...

        def abort(self) -> bool:
            return False


# ---- threads


async def test_one_thread_that_cannot_be_started_stops_nobody(make_stage: Make, scarce: Scarcity) -> None:
    stage = await make_stage("simulated:3")
    scarce.add("director:simulated:1")
    gates = [stage.submit()[0] for _ in range(5)]
    await stage.quiet()
    assert [gate.is_blocking for gate in gates] == [True, True, False, False, False]
    assert stage.director.state is DirectorState.OPEN
    assert stage.director.healthy
    assert health(stage) == [Health.HEALTHY, Health.QUARANTINED, Health.HEALTHY]
    scarce.clear()
    await stage.advance(0.1)
    assert [gate.is_blocking for gate in gates] == [True, True, True, False, False]
    assert health(stage) == [Health.HEALTHY] * 3


async def test_jobs_wait_until_a_thread_can_be_started(make_stage: Make, scarce: Scarcity) -> None:
    events: list[Event] = []
    stage = await make_stage("simulated:2", hooks=[events.append])
    scarce.add("director:simulated")
    gate, job = stage.submit()
    for _ in range(5):
        await stage.advance(1.0)
        assert job.state is JobState.QUEUED
    assert not stage.director.healthy
    assert "can't start new thread" in str(stage.director.stats().devices[0].reason)
    assert len([each for each in events if isinstance(each, DeviceQuarantined)]) == 2
    scarce.clear()
    await stage.advance(10.0)
    assert gate.is_blocking
    assert stage.director.healthy
    assert [each.device for each in events if isinstance(each, DeviceRestored)] == [job.device]
    assert job.attempts == 1


async def test_no_thread_for_long_fails_what_waits_with_the_cause_and_what_helps(
    make_stage: Make, scarce: Scarcity
) -> None:
    stage = await make_stage("simulated:2")
    scarce.add("director:simulated")
    _, first = stage.submit()
    await stage.quiet()
    await stage.advance(29.0)
    _, second = stage.submit()
    assert not first.done()
    await stage.advance(10.0)
    error = first.exception()
    assert isinstance(error, DeviceLost)
    assert "can't start new thread" in str(error)
    assert "ulimit -u" in str(error)
    assert second.state is JobState.QUEUED  # it has waited for ten seconds only
    scarce.clear()
    await stage.advance(10.0)
    assert second.state is JobState.RUNNING
    stats = stage.director.stats()
    assert (stats.queued, stats.running, stats.failed) == (0, 1, 1)


async def test_a_job_that_may_run_on_one_device_only_waits_for_that_one(make_stage: Make, scarce: Scarcity) -> None:
    stage = await make_stage("simulated:2")
    scarce.add("director:simulated:1")
    _, job = stage.submit(devices=1)
    gate, other = stage.submit()
    await stage.quiet()
    assert gate.is_blocking
    await stage.advance(45.0)
    assert isinstance(job.exception(), DeviceLost)
    assert other.state is JobState.RUNNING


async def test_slots_rest_longer_each_time(make_stage: Make, scarce: Scarcity, monkeypatch: pytest.MonkeyPatch) -> None:
    moments: list[float] = []
    stage = await make_stage("simulated:1")
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        moments.append(stage.clock.time())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    scarce.add("director:simulated")
    _, job = stage.submit()
    await stage.quiet()
    for rest in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0):
        await stage.advance(rest * 0.99)
        tried = len(moments)
        await stage.advance(rest * 0.01)
        assert len(moments) == tried + 1
    job.cancel()


@pytest.mark.parametrize("how", ["drain", "close", "haste"])
async def test_a_director_closes_while_its_slots_rest(make_stage: Make, scarce: Scarcity, how: str) -> None:
    stage = await make_stage("simulated:2")
    scarce.add("director:simulated")
    _, job = stage.submit()
    await stage.quiet()
    if how == "drain":
        closing = asyncio.ensure_future(stage.director.drain())
        await asyncio.sleep(0)
        scarce.clear()
        stage.open_gates()
        await stage.advance(10.0)
        await asyncio.wait_for(closing, PATIENCE)
        assert job.state is JobState.SUCCEEDED
    else:
        await asyncio.wait_for(stage.director.close(timeout=0), PATIENCE)
        assert isinstance(job.exception(), DirectorClosed)
    await asyncio.wait_for(stage.director.close(), PATIENCE)
    scarce.clear()
    await stage.open()
    gate, again = stage.submit()
    gate.open(1)
    assert await again == 1


# ---- what an executor can't start


async def test_slots_that_cannot_begin_swallow_no_jobs(make_stage: Make) -> None:
    executor = Unready(1, 2, 3, 4, 5, 6, 7)
    stage = await make_stage("cpu:8", executor=executor)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*(stage.director.run(_second, i) for i in range(100))) == list(range(100))
    assert len(executor.tries) <= 7  # each once, for the clock stands still
    stats = stage.director.stats()
    assert (stats.succeeded, stats.failed) == (100, 0)
    assert stage.director.healthy
    assert sum(each is Health.HEALTHY for each in health(stage)) >= 1


async def test_what_never_began_costs_no_retry_and_no_attempt(make_stage: Make) -> None:
    events: list[Event] = []
    executor = Unready(0)
    stage = await make_stage("cpu", executor=executor, hooks=[events.append])
    gate, job = stage.submit(retries=0)
    await stage.quiet()
    await stage.advance(0.1)
    assert (job.state, job.attempts, len(executor.tries)) == (JobState.QUEUED, 0, 2)
    executor.numbers.clear()
    await stage.advance(0.2)
    assert (gate.is_blocking, job.attempts) == (True, 1)
    assert len([each for each in events if isinstance(each, JobRetried)]) == 2
    assert health(stage) == [Health.PROBATION]
    gate.open()
    await job
    second, _ = stage.submit()
    await stage.until(lambda: second.is_blocking)
    await stage.quiet()
    assert health(stage) == [Health.HEALTHY]


async def test_nothing_can_be_started_for_long(make_stage: Make) -> None:
    executor = Unready(0, 1)
    stage = await make_stage("cpu:2", executor=executor)
    _, job = stage.submit()
    await stage.quiet()
    for _ in range(100):
        await stage.advance(0.5)
    error = job.exception()
    assert isinstance(error, DeviceLost)
    assert "Too many open files" in str(error)
    assert "ulimit -n" in str(error)
    assert len(executor.tries) < 30
    executor.numbers.clear()
    gate, job = stage.submit()
    await stage.advance(10.0)
    assert gate.is_blocking


@pytest.mark.parametrize("isolate", [False, True])
async def test_batches_that_never_began(make_stage: Make, isolate: bool) -> None:
    executor = Unready(0)
    stage = await make_stage("cpu", executor=executor)
    batches = stage.director.function(_seconds, max_batch_size=4, isolate_failures=isolate)
    jobs = [batches.submit(i) for i in range(4)]
    await stage.quiet()
    assert executor.tries == [0]
    executor.numbers.clear()
    await stage.advance(0.1)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*jobs) == [0, 1, 2, 3]


async def test_a_job_that_is_cancelled_while_its_slot_rests(make_stage: Make) -> None:
    executor = Unready(0)
    stage = await make_stage("cpu", executor=executor)
    _, job = stage.submit()
    await stage.quiet()
    assert job.cancel()
    stats = stage.director.stats()
    assert (stats.queued, stats.running, stats.cancelled) == (0, 0, 1)
    await stage.advance(20.0)
    assert executor.tries == [0]  # nothing waits, so nothing is tried


async def test_loads_and_leases_and_streams_wait_too(scarce: Scarcity, make_stage: Make) -> None:
    stage = await make_stage("simulated:1")
    scarce.add("director:simulated")
    stream = stage.director.stream(_count, 3)
    tasks = [
        asyncio.ensure_future(stage.director.load(Model(str, name="m"))),
        asyncio.ensure_future(_collect(stream)),
        asyncio.ensure_future(_hold(stage.director.lease())),
    ]
    await until(lambda: stage.director.stats().queued == 3)
    scarce.clear()
    await stage.advance(10.0)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*tasks) == [None, [0, 1, 2], stage.director.devices[0]]


def _second(_device: Any, item: int) -> int:
    return item


def _seconds(_device: Any, items: list[int]) -> list[int]:
    return items


def _count(_device: Any, to: int) -> Iterator[int]:
    yield from range(to)


async def _collect(stream: Any) -> list[int]:
    return [value async for value in stream]


async def _hold(lease: Any) -> Any:
    async with lease as device:
        return device
