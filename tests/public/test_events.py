"""Events: what hooks are told, in which order, with which facts."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, Recorder, keep_workers, outcome, rested, turns, until

from director import Device, Director, HealthRules, JobTimeout, Model, QueueFull, WorkerDied, events, report
from director.events import (
    DeviceJoined,
    DirectorDrained,
    DirectorOpened,
    Event,
    JobCancelled,
    JobEnded,
    JobEvent,
    JobFailed,
    JobProgressed,
    JobRejected,
    JobStarted,
    JobSubmitted,
    JobSucceeded,
    MemoryVeto,
    ModelEvent,
    ModelFailed,
    ModelLoaded,
    ModelUnloaded,
    WorkerHired,
    WorkerReaped,
)

if TYPE_CHECKING:
    from director.testing import TestClock

ABSTRACT = (Event, JobEvent, JobEnded, ModelEvent)
ELSEWHERE = (DeviceJoined, MemoryVeto)  # tests/cluster and tests/public/test_foreign_memory.py make them


def concrete() -> list[type[Event]]:
    found = [it for it in vars(events).values() if isinstance(it, type) and issubclass(it, Event)]
    return [kind for kind in found if kind not in ABSTRACT + ELSEWHERE]


def fail(*_args: Any) -> None:
    raise ZeroDivisionError


async def test_what_is_told_before_the_call_that_causes_it_returns(gate: Gate) -> None:
    recorder = Recorder()
    async with Director("simulated:1", hooks=[recorder], max_queue=1) as director:
        running = director.submit(gate)
        assert recorder.kinds()[-1] == "JobSubmitted"
        await recorder.seen(JobStarted)
        waiting = director.submit(gate)
        assert recorder.kinds()[-1] == "JobSubmitted"
        with pytest.raises(QueueFull):
            director.submit(gate)
        assert recorder.kinds()[-1] == "JobRejected"
        for job in (waiting, running):
            job.cancel()
            assert recorder.events[-1].job == job.id  # type: ignore[attr-defined]
            assert recorder.kinds()[-1] == "JobCancelled"
        gate.open()


async def test_the_story_of_one_job(clock: TestClock, gate: Gate) -> None:
    recorder = Recorder()
    async with Director("simulated:1", hooks=[recorder], clock=clock) as director:
        device = director.devices[0]
        clock.advance(1)
        job = director.submit(gate, name="detect", priority=3)
        await gate.begun()
        await recorder.seen(JobStarted)
        clock.advance(2)
        gate.open()
        await job
        await recorder.seen(WorkerReaped)
        clock.advance(3)
    assert recorder.events == [
        DirectorOpened(0, (device,)),
        JobSubmitted(1, 1, "detect", 3),
        WorkerHired(1, device, 0),
        JobStarted(1, 1, "detect", device, 0, 0),
        JobSucceeded(3, 1, "detect", device, 0, 2),
        WorkerReaped(3, device, 0),
        DirectorDrained(6),
    ]


async def test_the_story_of_a_job_that_waits(clock: TestClock, gate: Gate) -> None:
    recorder = Recorder()
    async with Director("simulated:1", hooks=[recorder], clock=clock) as director:
        director.submit(gate)
        await gate.begun()
        job = director.submit(gate, name="waits")
        clock.advance(4)
        gate.let(1)
        await gate.begun()
        clock.advance(5)
        gate.open()
        await job
    assert recorder.of(JobStarted)[1] == JobStarted(4, 2, "waits", director.devices[0], 0, 4)
    assert recorder.of(JobSucceeded)[1] == JobSucceeded(9, 2, "waits", director.devices[0], 4, 5)


async def test_the_ends_of_jobs(clock: TestClock, gate: Gate) -> None:
    recorder = Recorder()
    async with Director("simulated:1", hooks=[recorder], clock=clock, max_queue=3) as director:
        device = director.devices[0]
        running = director.submit(gate, name="running")
        await gate.begun()
        waiting = director.submit(gate, name="waiting")
        late = director.submit(gate, name="late", deadline=2)
        failing = director.submit(fail, name="failing")
        with pytest.raises(QueueFull) as full:
            director.submit(gate, name="rejected")
        assert recorder.events[-1] == JobRejected(0, "rejected", full.value)
        clock.advance(1)
        waiting.cancel()
        assert recorder.events[-1] == JobCancelled(1, waiting.id, "waiting", None, 1, None)
        clock.advance(1)
        expired = recorder.events[-1]
        assert isinstance(expired, JobFailed)
        assert expired == JobFailed(2, late.id, "late", None, 2, None, expired.error)
        assert isinstance(expired.error, JobTimeout)
        clock.advance(1)
        running.cancel()
        assert recorder.events[-1] == JobCancelled(3, running.id, "running", device, 0, None)
        gate.open()
        error = await outcome(failing)
        assert recorder.of(JobFailed)[-1] == JobFailed(3, failing.id, "failing", device, 3, 0, error)
        assert isinstance(await outcome(late), JobTimeout)


async def test_the_story_of_a_model(clock: TestClock) -> None:
    def load(device: Any) -> str:
        clock._now += 5  # loading takes its time
        return f"replica on {device.label}"

    recorder = Recorder()
    async with Director("simulated:1", hooks=[recorder], clock=clock) as director:
        device = director.devices[0]
        await director.run(lambda _: None, model=(detector := Model(load, name="detector")))
        await outcome(director.run(lambda _: None, model=Model(fail, name="broken")))
        await rested(director)
    del detector  # kept until now
    assert recorder.of(ModelLoaded) == [ModelLoaded(5, "detector", device, 5)]
    [failed] = recorder.of(ModelFailed)
    assert (failed.at, failed.model, failed.device, type(failed.error)) == (5, "broken", device, ZeroDivisionError)
    assert recorder.of(ModelUnloaded) == [ModelUnloaded(5, "detector", device)]
    kinds = recorder.kinds()
    assert kinds.index("ModelLoaded") < kinds.index("JobStarted") < kinds.index("JobSucceeded")
    assert kinds.index("DirectorDrained") < kinds.index("ModelUnloaded")


BRIEF = HealthRules(failures=1, probation=0.001)


async def everything(director: Director, gate: Gate) -> None:
    """Make every kind of event happen."""
    director.submit(gate)
    await gate.begun()
    director.submit(gate).cancel()
    director.submit(gate)
    with pytest.raises(QueueFull):
        director.submit(gate)
    gate.open()
    await outcome(director.run(fail))
    await director.run(report, model=Model(lambda device: device.label))
    models = [Model(lambda device: device.label, memory="1GiB") for _ in range(2)]
    for model in models:  # there is room for one
        await director.run(report, model=model)
    await outcome(director.run(fail, model=Model(fail)))
    await outcome(director.run(fail, retries=1, retry_on=Exception))
    await outcome(director.run(lose))
    await until(lambda: director.healthy)


def lose(device: Device) -> None:
    raise WorkerDied(-9, device)


async def test_every_kind_is_made() -> None:
    recorder, gate = Recorder(), Gate()
    async with Director("simulated:1", max_queue=1, memory_limit="1GiB", health=BRIEF, hooks=[recorder]) as director:
        await everything(director, gate)
    assert set(recorder.kinds()) == {kind.__name__ for kind in concrete()}


async def test_none_is_made_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(event: Event, *_args: Any) -> None:
        made.append(type(event))

    made: list[type[Event]] = []
    for kind in concrete():
        monkeypatch.setattr(kind, "__init__", refuse)
    async with Director("simulated:1", max_queue=1, memory_limit="1GiB", health=BRIEF) as director:
        await everything(director, Gate())
    assert made == []
    async with Director(
        "simulated:1", max_queue=1, memory_limit="1GiB", health=BRIEF, hooks=[lambda _: None]
    ) as director:
        await everything(director, Gate())
    assert set(made) == set(concrete())  # it would have been seen


async def test_hooks_are_called_on_the_loop_under_no_lock_and_may_use_the_director() -> None:
    threads: set[int] = set()
    followers: list[Any] = []

    def hook(event: Event) -> None:
        threads.add(threading.get_ident())
        assert asyncio.get_running_loop() is loop
        director.stats()
        repr(director)
        if isinstance(event, JobSucceeded) and event.name == "first":
            followers.append(director.submit(lambda _: "follows", name="second"))

    loop = asyncio.get_running_loop()
    async with Director("simulated:1", max_queue=1, memory_limit="1GiB", hooks=[hook]) as director:
        await director.run(lambda _: None, name="first")
        assert await followers[0] == "follows"
        await everything(director, Gate())
    assert threads == {threading.get_ident()}


async def test_several_hooks_are_called_in_order_and_one_that_raises_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def raising(event: Event) -> None:
        raise RuntimeError("a bad hook")

    before, after = Recorder(), Recorder()
    async with Director("simulated:1", hooks=[before, raising, after]) as director:
        assert await director.run(lambda _: 42) == 42
    assert before.events == after.events
    assert len(before.events) > 4
    assert caplog.text.count("a bad hook") >= len(before.events)
    assert {record.name for record in caplog.records if record.levelno >= logging.ERROR} == {"director"}


async def test_they_are_frozen_and_compare_by_value() -> None:
    event = JobSubmitted(1.0, 2, "detect", 0)
    assert event == JobSubmitted(1.0, 2, "detect", 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.at = 2.0  # type: ignore[misc]
    assert not hasattr(event, "__dict__")


async def test_a_job_starts_before_it_ends() -> None:
    begun, end = threading.Event(), threading.Event()
    recorder = Recorder()
    async with Director("simulated:1", hooks=[recorder]) as director:
        keep_workers(director)
        await director.run(lambda _: None)  # there is a worker now, so that the loop is not needed
        job = director.submit(lambda _: (begun.set(), end.wait(PATIENCE)), name="it")
        assert begun.wait(PATIENCE)  # the loop is busy meanwhile
        job.cancel()
        end.set()
    story = [type(event).__name__ for event in recorder.of(JobEvent) if event.job == job.id]
    assert story == ["JobSubmitted", "JobStarted", "JobCancelled"]


def slow_motion(_resource: Any) -> None:
    """From now on this thread gives way at every call and return, so that the loop is always the quicker one."""
    sys.setprofile(lambda *_: time.sleep(0.0005))


async def test_a_job_that_has_started_knows_where() -> None:
    def look(event: Event) -> None:
        if isinstance(event, JobStarted) and event.name == "it":
            seen.append(job.device)

    seen: list[Device | None] = []
    async with Director("simulated:1", hooks=[look]) as director:
        await director.run(slow_motion)
        job = director.submit(lambda _: None, name="it")
        await job
        await director.run(lambda _: sys.setprofile(None))
        assert seen == [director.devices[0]]


async def test_every_job_is_submitted_started_and_ended_once_and_in_this_order() -> None:
    recorder = Recorder()
    async with Director("simulated:2", slots=2, hooks=[recorder]) as director:
        jobs = [director.submit(lambda _: None) for _ in range(200)]
        jobs += [director.submit(fail) for _ in range(20)]
        for job in jobs[::10]:
            job.cancel()
        await asyncio.wait(jobs)
        failed = sum(job.exception() is not None for job in jobs if not job.cancelled())
    stories: dict[int, list[str]] = {}
    for event in recorder.of(JobEvent):
        stories.setdefault(event.job, []).append(type(event).__name__)
    for job in jobs:
        middle = ["JobStarted"] if job.attempts else []
        end = {"succeeded": "JobSucceeded", "failed": "JobFailed", "cancelled": "JobCancelled"}[job.state.value]
        assert stories[job.id] == ["JobSubmitted", *middle, end]
    assert len(recorder.of(JobFailed)) == failed
    assert len(recorder.of(WorkerHired)) == len(recorder.of(WorkerReaped))


async def test_it_is_drained_once() -> None:
    recorder = Recorder()
    async with Director("simulated:1", hooks=[recorder]) as director:
        await asyncio.gather(director.drain(), director.drain())
        await director.drain()
    assert len(recorder.of(DirectorDrained)) == 1


async def test_a_director_left_in_haste_was_not_drained(gate: Gate) -> None:
    recorder = Recorder()
    director = Director("simulated:1", hooks=[recorder])
    await director.start()
    director.submit(gate)
    await gate.begun()
    director.submit(gate).add_done_callback(lambda _: gate.open())
    await director.close(0)
    assert recorder.of(DirectorDrained) == []
    assert len(recorder.of(WorkerReaped)) == 1


async def test_progress_events_come_between_start_and_end() -> None:
    recorder = Recorder()
    async with Director("simulated:1", hooks=[recorder]) as director:
        await director.run(lambda _: [report(step) for step in range(3)])
        await turns()
    assert [type(event).__name__ for event in recorder.of(JobEvent)] == [
        "JobSubmitted",
        "JobStarted",
        "JobProgressed",
        "JobProgressed",
        "JobProgressed",
        "JobSucceeded",
    ]
    assert [event.progress for event in recorder.of(JobProgressed)] == [0, 1, 2]


@pytest.mark.parametrize("hooks", [[5], ["print"], [None]], ids=str)
def test_a_hook_that_can_not_be_called_is_refused(hooks: Any) -> None:
    with pytest.raises(TypeError, match="hook"):
        Director("simulated:1", hooks=hooks)


async def test_hooks_by_an_iterator() -> None:
    recorder = Recorder()
    director = Director("simulated:1", hooks=iter([recorder]))
    for _ in range(2):
        async with director:
            pass
    assert recorder.kinds() == ["DirectorOpened", "DirectorDrained"] * 2


async def test_a_hook_can_be_added_until_the_start() -> None:
    first, second = Recorder(), Recorder()
    director = Director("simulated:1", hooks=[first])
    director.add_hook(second)
    async with director:
        await director.run(str)
        with pytest.raises(RuntimeError, match="is open; a hook is added before it starts"):
            director.add_hook(Recorder())
    assert second.events == first.events != []
    third = Recorder()
    director.add_hook(third)
    async with director:
        pass
    assert isinstance(third.events[0], DirectorOpened)


def test_a_hook_that_is_added_must_be_callable() -> None:
    with pytest.raises(TypeError, match="a hook must be a callable"):
        Director("simulated:1").add_hook(3)  # type: ignore[arg-type]
