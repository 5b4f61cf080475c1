"""Finalizers, signal handlers and handlers of logging run between any two lines of what holds a lock: they take it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, outcome
from harness.interrupt import Interrupter

from director import Director, JobState
from director._api.lease import Lease
from director._devices import discovery
from director._executors.ray.actor.side_channel import SideChannel
from director._executors.ray.messages import SideMessage, SideMessageKind
from director._jobs.stream_channel import StreamChannel
from director._system.threads import Flag
from director.dashboard._failures import ErrorDescriber
from director.errors import JobTimeout
from director.guard._findings import FindingLog, Place
from director.testing import TestClock, simulated_devices
from director.timeline import Timeline
from director.timeline._memory import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director.hooks import RawRecord

pytestmark = pytest.mark.timeout(30)


class Interrupted(BaseException):
    """What a handler raises."""


def at_each_line(attempt: Callable[[int], Interrupter]) -> int:
    """Make an attempt again and again, interrupted at one line further each time; returns the lines."""
    at = 0
    while attempt(at).lines > at:
        at += 1
    return at


def everywhere(step: Callable[[], object], act: Callable[[], object]) -> None:
    """Make a step, and act at all of its lines."""
    with Interrupter(act, None) as interrupter:
        step()
    assert interrupter.lines > 1


# ---- one flag


def test_a_flag_may_be_set_at_any_line_of_its_wait() -> None:
    def attempt(at: int) -> Interrupter:
        flag = Flag()
        with Interrupter(flag.set, at) as interrupter:
            if flag.wait(0):
                assert flag.is_set()
        assert flag.wait(0) is (interrupter.lines > at)
        return interrupter

    assert at_each_line(attempt) > 2


def test_a_flag_may_be_set_and_cleared_at_any_line_of_both() -> None:
    flag = Flag()
    everywhere(flag.set, flag.set)
    everywhere(flag.clear, flag.set)
    everywhere(flag.set, flag.clear)
    flag.clear()
    assert not flag.wait(0)
    flag.set()
    assert flag.wait()


def test_a_flag_lets_all_go_that_wait() -> None:
    flag, come = Flag(), threading.Barrier(5)
    threads = [threading.Thread(target=lambda: (come.wait(), flag.wait()), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    come.wait()
    flag.set()
    for thread in threads:
        thread.join()
    assert flag.wait(0)


# ---- streams, leases, futures


def full_bridge() -> StreamChannel[int]:
    channel: StreamChannel[int] = StreamChannel(1, 5.0, lambda: False, TestClock(), lambda _call: None, lambda: None)
    channel.put(0)
    return channel


def test_a_reader_that_leaves_at_any_line_of_a_put_lets_it_go() -> None:
    def attempt(at: int) -> Interrupter:
        channel = full_bridge()
        with Interrupter(channel.close_reader, at) as interrupter:
            try:
                had_room = channel._put(1)
            except asyncio.CancelledError:
                had_room = True
        if interrupter.lines > at:
            assert had_room or channel._room_signal.acquire(timeout=0), "the put that waits is never woken"
            with pytest.raises(asyncio.CancelledError):
                channel.put(2)
        return interrupter

    assert at_each_line(attempt) > 8


def test_two_that_leave_at_once_end_one_wait_once() -> None:
    def attempt(at: int) -> Interrupter:
        channel = full_bridge()
        assert not channel._put(1)
        with Interrupter(channel.close_reader, at) as interrupter:
            channel.close_reader()
        assert channel._room_signal.acquire(timeout=0)
        return interrupter

    assert at_each_line(attempt) > 3


async def test_a_forgotten_holder_of_a_lease_is_collected_on_the_thread_that_waits_for_it() -> None:
    loop = asyncio.get_running_loop()

    async def hold(lease: Lease) -> None:
        async with lease:
            await loop.create_future()

    for at in range(5):
        job: Any = loop.create_future()
        lease = Lease(loop, lambda *_call: None, lambda _hold, job=job: job)  # type: ignore[misc]
        holder = hold(lease)
        holder.send(None)
        lease._grant("device")
        holder.send(None)
        with Interrupter(holder.close, at) as interrupter:
            lease.hold("device")
        assert interrupter.lines > at
        job.cancel()


class Plain:
    """A Director whose slot is busy, with its executor."""

    def __init__(self, director: Director, gate: Gate) -> None:
        self.director = director
        self.gate = gate
        self.executor = director.as_executor()

    async def end(self) -> None:
        self.gate.open()
        async with asyncio.timeout(PATIENCE):
            await self.director.close()


async def busy(**options: Any) -> Plain:
    director, gate = Director("simulated:1", **options), Gate()
    await director.start()
    director.submit(gate)
    await gate.begun()
    return Plain(director, gate)


async def test_a_handler_may_use_an_executor_at_any_line_of_its_own_steps() -> None:
    plain = await busy(max_queue=None)
    executor, futures = plain.executor, []
    everywhere(lambda: executor.submit(int), lambda: futures.append(executor.submit(int)))
    for step in (futures[0].cancel, lambda: futures[1].claim(), lambda: executor.shutdown(wait=False)):
        everywhere(step, lambda: (futures[0].cancel(), executor.lose_loop(), executor.shutdown(wait=False)))
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(int)
    await plain.end()
    assert all(future.done() for future in futures)


async def test_a_handler_that_waits_for_a_result_in_the_midst_of_a_decision_is_told() -> None:
    """On the loop's thread it is told anyway: here a thread of the user's submits."""
    plain = await busy(max_queue=None)
    runtime, errors = plain.director._runtime, []
    assert runtime is not None
    waited_for = plain.executor.submit(int)

    def wait() -> None:
        for call in (waited_for.result, waited_for.exception, plain.executor.shutdown):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))

    executor = plain.director.as_executor()

    def submit() -> None:
        with Interrupter(wait, None, lambda: runtime.scheduler._is_deciding and not errors):
            executor.submit(int)

    await asyncio.wait_for(asyncio.to_thread(submit), PATIENCE)
    assert len(errors) == 3
    assert all("has interrupted the Director would wait forever" in error for error in errors)
    await plain.end()
    assert waited_for.done()


async def test_a_stream_may_be_dropped_at_any_line_of_a_decision() -> None:
    plain = await busy()
    runtime: Any = plain.director._runtime

    def count(_device: Any) -> Iterator[int]:
        yield 1

    for at in itertools.count():
        streams = [plain.director.stream(count)]
        job = streams[0].job
        with Interrupter(streams.clear, at, lambda: runtime.scheduler._is_deciding) as interrupter:
            other = plain.director.submit(int)
        streams.clear()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (job.state, other.state) == (JobState.CANCELLED, JobState.QUEUED)
        assert plain.director.stats().queued == 1
        other.cancel()
        if interrupter.lines <= at:
            break
    assert at > 5
    await plain.end()


# ---- ends


async def test_a_handler_may_raise_at_any_line_of_the_end_of_a_job_whose_time_is_up() -> None:
    clock = TestClock()
    plain = await busy(clock=clock, max_queue=None)

    def act() -> None:
        raise Interrupted

    runtime = plain.director._runtime
    assert runtime is not None
    at, is_over = 0, False
    while not is_over:
        job = plain.director.submit(int, deadline=1)
        clock._now += 2
        with Interrupter(act, at):
            try:
                runtime.job_lifecycle.timers._expire(job)
                is_over = True
            except Interrupted:
                at += 1
        if job.state is JobState.QUEUED:
            runtime.job_lifecycle.timers._expire(job)
        assert isinstance(await asyncio.wait_for(outcome(job), PATIENCE), JobTimeout)
        assert job.state is JobState.FAILED
    assert at > 10
    await plain.end()


# ---- hooks


class OneAtATime:
    """A recorder with a lock that can't be taken twice."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self.jobs: list[int] = []
        self._lock = threading.Lock()

    def begin(self, *_facts: Any) -> None:
        """A lifespan hook."""

    def end(self, at: float) -> None:
        """A lifespan hook."""

    def __call__(self, event: Any) -> None:
        """Wants no events."""

    wants = ()

    def record(self, raw: RawRecord) -> None:
        assert self._lock.acquire(timeout=PATIENCE), "two records at once"
        try:
            self._act()
            self.jobs.append(raw[0])
        finally:
            self._lock.release()


async def test_a_record_that_a_finalizer_causes_in_the_midst_of_another_comes_after_it() -> None:
    recorder = OneAtATime(lambda: jobs.pop().cancel() if jobs else None)
    director, gate = Director("simulated:1", hooks=[recorder], max_queue=None), Gate()
    await director.start()
    blocker = director.submit(gate)
    await gate.begun()
    jobs = [director.submit(int) for _ in range(4)]
    jobs.pop(0).cancel()
    gate.open()
    await blocker
    await director.close()
    assert recorder.jobs == [2, 5, 4, 3, 1]


def test_a_handler_may_look_at_a_timeline_at_any_line() -> None:
    timeline = Timeline(memory=False)
    devices = tuple(simulated_devices(1))
    stories: list[object] = []

    def look() -> None:
        if len(stories) < 200:
            stories.append(timeline.story())

    for step in (
        lambda: timeline.begin(lambda: 1.0, devices, list),
        lambda: timeline.devices_changed(devices),
        timeline.story,
        lambda: timeline.end(2.0),
    ):
        everywhere(step, look)
    assert len(stories) > 8


def test_a_meter_may_be_stopped_at_any_line_of_its_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director.timeline._memory.PERIOD", 0.001)
    for at in range(30):
        meter = Meter.__new__(Meter)
        meter._clock, meter._labels, meter._samples, meter._stopped = lambda: 0.0, {}, [], Flag()
        with Interrupter(meter.stop, at) as interrupter:
            meter._work()
        assert interrupter.lines > at


# ---- what else has a lock


def test_a_handler_may_ask_for_findings_at_any_line_of_a_note() -> None:
    notebook, place = FindingLog(1, 1), Place("file.py", 1, "infer", "infer()")
    for _ in range(2):
        everywhere(lambda: notebook.note_block(place, 1.0, on_gpu=True), notebook.findings)
    assert notebook.findings()[0].times == 2


def test_a_handler_may_time_a_job_at_any_line_of_a_test_clock() -> None:
    clock, rung = TestClock(), []

    def act() -> None:
        clock.call_later(0.5, lambda: rung.append(1))

    everywhere(lambda: clock.call_later(1.0, lambda: rung.append(2)), act)
    with Interrupter(act, None, lambda: len(clock._calls) < 100):
        clock.advance(1.0)
    clock.advance(1.0)
    assert rung.count(2) == 1
    assert not clock._calls


def test_a_handler_of_logging_may_ask_for_the_devices_while_they_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logger, asked = logging.getLogger("director.test"), []
    real = discovery.discover_devices

    class Asks(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            if not asked:
                asked.append(1)
                asked.append(real())

    from director._devices import survey

    taken = survey.take_survey

    def take_survey() -> Any:
        logger.warning("looking")
        return taken()

    handler = Asks()
    logger.addHandler(handler)
    monkeypatch.setattr(survey, "take_survey", take_survey)
    try:
        assert real(refresh=True) == asked[1]
    finally:
        logger.removeHandler(handler)


def test_a_handler_may_ask_the_asker_at_any_line() -> None:
    asker, answers = ErrorDescriber(), []
    everywhere(lambda: asker.submit(lambda: answers.append(1)), lambda: asker.submit(lambda: answers.append(2)))
    asker.wait_idle()
    assert answers.count(1) == 1
    assert answers.count(2) > 4


def test_what_questions_hold_is_let_go_of_without_the_lock() -> None:
    asker, freed = ErrorDescriber(), []

    class Held:
        def __del__(self) -> None:
            thread = threading.Thread(target=lambda: freed.append(asker.submit(lambda: None)), daemon=True)
            thread.start()
            thread.join(PATIENCE)

    asker._stuck, asker._worker, asker._since = 4, threading.current_thread(), -10.0
    held = Held()
    asker._tasks.append(lambda held=held: None)  # type: ignore[misc]
    del held
    assert not asker.submit(lambda: None)
    assert freed == [False]


def test_a_note_that_comes_at_any_line_wakes_who_waits_for_one() -> None:
    for at in range(6):
        channel = SideChannel()
        with Interrupter(lambda: channel.add(SideMessage(1, SideMessageKind.LOGGED, 0, (b"", [], []))), at):  # noqa: B023
            assert [each.number for each in channel.take()] == [1]
