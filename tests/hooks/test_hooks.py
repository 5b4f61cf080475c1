"""Hooks that are more than a callable: selective ones, recorders, call hooks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from harness.gates import PATIENCE, Gate, ThreadClock, outcome, rested, until

from director import Director, JobTimeout, Model, QueueFull, current_device, report
from director.events import (
    DirectorOpened,
    Event,
    JobEnded,
    JobFailed,
    JobProgressed,
    JobRejected,
    JobStarted,
    JobSubmitted,
    JobSucceeded,
    ModelEvent,
    ModelLoaded,
)
from director.hooks import JobRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from director import Device, Job
    from director._jobs.job import ScheduledJob
    from director._scheduler.slots import Slot
    from director.hooks import RawRecord, Unfinished
    from director.testing import TestClock


def fail(*_args: Any) -> None:
    raise ZeroDivisionError("no\nsecond line")


class Selective:
    """A hook that keeps the events it wants."""

    def __init__(self, *wants: type[Event]) -> None:
        self.wants = wants
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


class Recorder(Selective):
    """A hook that keeps the records, and no events."""

    def __init__(self) -> None:
        super().__init__()
        self.raw: list[RawRecord] = []
        self.begun: list[tuple[float, tuple[Device, ...]]] = []
        self.ended: list[float] = []

    def begin(self, clock: Callable[[], float], slots: tuple[Device, ...], unfinished: Unfinished) -> None:
        self.begun.append((clock(), slots))
        self.unfinished = unfinished

    def record(self, record: RawRecord) -> None:
        self.raw.append(record)

    def end(self, at: float) -> None:
        self.ended.append(at)

    @property
    def records(self) -> list[JobRecord]:
        return [JobRecord(*raw) for raw in self.raw]


# ---- selective hooks


async def test_a_selective_hook_gets_what_it_wants_by_class_or_base_class(gate: Gate) -> None:
    ends, failures, models, everything = (
        Selective(JobEnded),
        Selective(JobFailed),
        Selective(ModelEvent),
        Selective(Event),
    )
    async with Director("simulated:1", hooks=[ends, failures, models, everything]) as director:
        await director.run(lambda _: None, model=Model(lambda device: device.label))
        await outcome(director.run(fail))
    assert ends.kinds() == ["JobSucceeded", "JobFailed"]
    assert failures.kinds() == ["JobFailed"]
    assert models.kinds() == ["ModelLoaded", "ModelUnloaded"]
    assert len(everything.events) > 9


async def test_what_nobody_wants_is_not_made(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    def refuse(*_args: Any) -> None:
        raise AssertionError("it was made")

    for kind in (JobSubmitted, JobStarted, JobSucceeded, JobRejected, ModelLoaded, DirectorOpened):
        monkeypatch.setattr(kind, "__init__", refuse)
    hook = Selective(JobFailed)
    async with Director("simulated:1", hooks=[hook, Recorder()], max_queue=0) as director:
        await director.run(lambda _: None, model=Model(lambda device: device.label))
        director.submit(gate)
        with pytest.raises(QueueFull):
            director.submit(gate)
        gate.open()
        await outcome(director.run(fail))
    assert hook.kinds() == ["JobFailed"]


async def test_a_hook_that_wants_nothing_of_jobs_has_the_rest(gate: Gate) -> None:
    hook = Selective(JobRejected)
    async with Director("simulated:1", hooks=[hook], max_queue=0) as director:
        director.submit(gate)
        with pytest.raises(QueueFull):
            director.submit(gate, name="one too many")
        gate.open()
    assert [(type(event), event.name) for event in hook.events if isinstance(event, JobRejected)] == [
        (JobRejected, "one too many")
    ]


# ---- recorders


async def test_the_records_of_jobs_that_ran(clock: TestClock, gate: Gate) -> None:
    recorder = Recorder()
    async with Director("simulated:2", slots={1: 2}, hooks=[recorder], clock=clock) as director:
        clock.advance(1)
        director.submit(gate, name="held", devices=1)
        await gate.begun()
        clock.advance(2)
        failing = director.submit(fail, devices=0)
        await outcome(failing)
        gate.open()
    held, failed = sorted(recorder.records)
    assert held[:3] == (1, "held", "succeeded")
    assert held.slot in (1, 2)
    assert held[4:] == (1, 1, 3, 3, None, None)
    assert failed == (2, "fail", "failed", 0, 3, 3, 3, 3, "ZeroDivisionError: no", None)
    assert [slots for _, slots in recorder.begun] == [tuple(director.devices[n] for n in (0, 1, 1))]
    assert (recorder.begun[0][0], recorder.ended) == (0, [3])


async def test_the_records_of_jobs_that_never_ran(clock: TestClock, gate: Gate) -> None:
    recorder = Recorder()
    async with Director("simulated:1", hooks=[recorder], clock=clock) as director:
        director.submit(gate)
        await gate.begun()
        cancelled = director.submit(gate, name="cancelled")
        late = director.submit(gate, name="late", deadline=2)
        clock.advance(1)
        cancelled.cancel()
        clock.advance(1)
        assert recorder.records == [
            (cancelled.id, "cancelled", "cancelled", None, 0, None, 1, 1, None, None),
            (late.id, "late", "failed", None, 0, None, 2, 2, str_of(JobTimeout("queued")), None),
        ]
        gate.open()


def str_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


async def test_a_call_that_outlives_its_job_is_recorded_twice(clock: TestClock, gate: Gate) -> None:
    recorder = Recorder()
    async with Director("simulated:1", hooks=[recorder], clock=clock) as director:
        for number, (name, options) in enumerate({"left": {}, "late": {"timeout": 1}, "raises": {}}.items()):
            job = director.submit(raise_behind(gate) if name == "raises" else gate, name=name, **options)  # type: ignore[arg-type]
            await gate.begun()
            clock.advance(1)
            if not job.done():
                job.cancel()
            first = recorder.records[-1]
            assert (first.started, first.ended, first.settled) == (2 * number, None, 2 * number + 1)
            clock.advance(1)
            gate.let(1)
            await until(lambda: len(recorder.raw) % 2 == 0)
            last = recorder.records[-1]
            assert (last.job, last.name, last.state, last.slot) == (first.job, name, first.state, 0)
            assert (last.started, last.ended) == (2 * number, 2 * number + 2)
    assert [record.state for record in recorder.records] == ["cancelled"] * 2 + ["failed"] * 2 + ["cancelled"] * 2


def raise_behind(gate: Gate) -> Callable[[Any], None]:
    def call(resource: Any) -> None:
        gate(resource)
        raise ZeroDivisionError

    return call


async def test_what_is_unfinished(clock: TestClock, gate: Gate) -> None:
    recorder = Recorder()
    director = Director("simulated:1", hooks=[recorder], clock=clock)
    async with director:
        director.submit(gate, name="runs")
        await gate.begun()
        clock.advance(1)
        director.submit(gate, name="waits")
        assert [JobRecord(*raw) for raw in recorder.unfinished()] == [
            (1, "runs", "running", 0, 0, 0, None, None, None, None),
            (2, "waits", "queued", None, 1, None, None, None, None, None),
        ]
        assert [raw[0] for raw in recorder.unfinished(and_waiting=False)] == [1]
        gate.open()
    assert recorder.unfinished() == []
    async with director:
        pass
    assert (len(recorder.begun), len(recorder.ended)) == (2, 2)


class Account:
    """A tenant that says nothing of itself without running code of its own."""

    def __repr__(self) -> str:
        raise AssertionError("a recorder asked")


class Team(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise AssertionError("a recorder asked")


async def test_the_tenant_of_a_record_is_a_text_and_runs_no_code_of_the_users(gate: Gate) -> None:
    recorder = Recorder()
    tenants = ["alice", Team("blue"), 7, ("a", 1), Account(), "x" * 1000, None]
    async with Director("simulated:1", hooks=[recorder]) as director:
        for tenant in tenants:
            await director.run(lambda _: None, tenant=tenant)
        await outcome(director.run(fail, tenant="alice"))
        director.submit(gate, tenant="bob")
        director.submit(gate, tenant="carol")
        await gate.begun()
        assert [JobRecord(*raw).tenant for raw in recorder.unfinished()] == ["bob", "carol"]
        gate.open()
    texts = ["alice", "blue", "7", "('a', 1)", "<Account>", "x" * 119 + "…", None, "alice", "bob", "carol"]
    assert [record.tenant for record in recorder.records] == texts
    assert [type(record.tenant) for record in recorder.records].count(str) == len(texts) - 1


async def test_a_recorder_keeps_no_director_alive() -> None:
    recorder = Recorder()
    async with Director("simulated:1", hooks=[recorder]) as director:
        await director.run(lambda _: None)
    assert recorder.unfinished.__closure__ is not None
    kept = [cell.cell_contents for cell in recorder.unfinished.__closure__]
    assert [type(it).__name__ for it in kept] == ["ReferenceType"]


async def test_several_recorders_have_the_same(gate: Gate) -> None:
    first, second = Recorder(), Recorder()
    async with Director("simulated:1", hooks=[first, second]) as director:
        await director.run(lambda _: None)
        await outcome(director.run(fail))
    assert first.raw == second.raw
    assert len(first.raw) == 2


async def test_a_recorder_that_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Recorder):
        def begin(self, *_args: Any) -> None:
            raise RuntimeError("a bad beginning")

        def record(self, record: RawRecord) -> None:
            raise RuntimeError("a bad record")

        def end(self, at: float) -> None:
            raise RuntimeError("a bad end")

    async with Director("simulated:1", hooks=[Bad()]) as director:
        assert await director.run(lambda _: 42) == 42
        assert isinstance(await outcome(director.run(fail)), ZeroDivisionError)
        assert director.stats().succeeded == 1
    for said, times in (("beginning", 1), ("record", 2), ("end", 1)):
        assert caplog.text.count(f"RuntimeError: a bad {said}") == times


async def test_an_error_that_can_not_say_what_it_is_is_recorded_all_the_same() -> None:
    """And ends its job, and those that ended beside it."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("nothing to say")

    def fall_silent(device: object) -> None:
        raise Mute

    recorder = Recorder()
    async with Director("simulated:2", hooks=[recorder]) as director:
        jobs = [director.submit(each) for each in (fall_silent, fail, fall_silent)]
        async with asyncio.timeout(PATIENCE):
            assert [type(await outcome(job)) for job in jobs] == [Mute, ZeroDivisionError, Mute]
    errors = {record.job: record.error for record in recorder.records}
    assert errors == {job.id: "Mute" for job in jobs[::2]} | {jobs[1].id: "ZeroDivisionError: no"}


# ---- call hooks

current = ContextVar("current", default="nobody's")


class AroundCalls(Selective):
    """Notes what it saw of each call."""

    def __init__(self, name: str = "hook", log: list[Any] | None = None) -> None:
        super().__init__()
        self.name = name
        self.log: list[Any] = [] if log is None else log

    @contextlib.contextmanager
    def around_call(self, jobs: Sequence[Job[Any]]) -> Iterator[None]:
        before = current.set(f"{current.get()} > {self.name}")
        self.log.append((self.name, "enter", jobs[0].id, current_device().label, threading.current_thread().name))
        try:
            yield
        except BaseException as error:
            self.log.append((self.name, type(error).__name__))
            raise
        else:
            self.log.append((self.name, "leave"))
        finally:
            current.reset(before)


async def test_a_call_hook_encloses_the_call_in_its_thread_and_context() -> None:
    log: list[Any] = []
    outer, inner = AroundCalls("outer", log), AroundCalls("inner", log)
    current.set("mine")
    async with Director("simulated:1", hooks=[outer, inner]) as director:
        seen = await director.run(lambda _: (current.get(), threading.current_thread().name))
        label, thread = director.devices[0].label, seen[1]
        again = await director.run(lambda _: current.get())
    assert seen[0] == again == "mine > outer > inner"
    assert log[:4] == [
        ("outer", "enter", 1, label, thread),
        ("inner", "enter", 1, label, thread),
        ("inner", "leave"),
        ("outer", "leave"),
    ]
    assert current.get() == "mine"


async def test_a_call_hook_of_a_job_without_context_variables() -> None:
    hook = AroundCalls()
    async with Director("simulated:1", hooks=[hook]) as director:
        assert await director.run(lambda _: current.get()) == "nobody's > hook"


async def test_a_call_hook_sees_what_the_call_raises() -> None:
    hook = AroundCalls()
    async with Director("simulated:1", hooks=[hook]) as director:
        for call in (fail, Model(fail)):
            options: Any = {"model": call} if isinstance(call, Model) else {}
            error = await outcome(director.run(fail, **options))
            assert isinstance(error, ZeroDivisionError)
            assert hook.log[-1] == ("hook", "ZeroDivisionError")
        assert await outcome(director.run(lambda _: 1)) == 1


class Swallower(Selective):
    def around_call(self, jobs: Sequence[Job[Any]]) -> Any:
        return contextlib.suppress(ZeroDivisionError)


async def test_a_call_hook_swallows_nothing() -> None:
    async with Director("simulated:1", hooks=[Swallower()]) as director:
        assert isinstance(await outcome(director.run(fail)), ZeroDivisionError)


@pytest.mark.parametrize("when", ["around_call", "enter", "leave"])
async def test_a_call_hook_that_raises_changes_nothing(when: str, caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Selective):
        def around_call(self, jobs: Sequence[Job[Any]]) -> Any:
            if when == "around_call":
                raise RuntimeError("a bad hook")
            return self._stand()

        @contextlib.contextmanager
        def _stand(self) -> Iterator[None]:
            if when == "enter":
                raise RuntimeError("a bad hook")
            yield
            raise RuntimeError("a bad hook")

    log: list[Any] = []
    async with Director("simulated:1", hooks=[AroundCalls(log=log), Bad(), AroundCalls(log=log)]) as director:
        assert await director.run(lambda _: 42) == 42
        await rested(director)
    assert [entry[1] for entry in log] == ["enter", "enter", "leave", "leave"]
    assert caplog.text.count("RuntimeError: a bad hook") == 1


async def test_a_recorder_may_enclose_calls_too() -> None:
    class Both(Recorder, AroundCalls):
        def __init__(self) -> None:
            AroundCalls.__init__(self)
            Recorder.__init__(self)

    both = Both()
    async with Director("simulated:1", hooks=[both]) as director:
        await director.run(lambda _: None)
    assert (len(both.raw), len(both.log)) == (1, 2)


# ---- batches and tries


async def test_a_batch_is_enclosed_once_and_recorded_for_each_job(gate: Gate) -> None:
    recorder, sizes = Recorder(), []

    class Counter(Selective):
        def around_call(self, jobs: Sequence[Job[Any]]) -> Any:
            sizes.append((jobs[0].name, len(jobs)))
            return contextlib.nullcontext()

    async with Director("simulated:1", hooks=[recorder, Counter()]) as director:
        director.submit(gate, name="held")
        await gate.begun()
        many = director.function(lambda _, items: items, max_batch_size=3, name="many")
        jobs = [many.submit(n) for n in range(3)]
        gate.open()
        assert [await job for job in jobs] == [0, 1, 2]
    assert sizes == [("held", 1), ("many", 3)]
    batch = [record for record in recorder.records if record.name == "many"]
    assert len({(record.slot, record.started, record.ended) for record in batch}) == 1


async def test_a_try_is_recorded_before_the_next() -> None:
    recorder, failures = Recorder(), iter([ZeroDivisionError("first"), None])

    def flaky(_resource: Any) -> None:
        error = next(failures)
        if error is not None:
            raise error

    async with Director("simulated:2", hooks=[recorder]) as director:
        await director.run(flaky, retries=1, retry_on=ZeroDivisionError)
    first, last = recorder.records
    assert (first.job, first.state, first.error) == (1, "retried", "ZeroDivisionError: first")
    assert (last.job, last.state, last.error) == (1, "succeeded", None)
    assert {first.slot, last.slot} == {0, 1}
    assert first.started is not None
    assert first.ended is not None
    assert last.started is not None
    assert first.started <= first.ended <= last.started


async def test_what_was_cancelled_before_it_was_called_never_ran() -> None:
    """The worker has taken the job and looks at the clock, while the loop cancels it."""
    clock, recorder = ThreadClock(), Recorder()
    async with Director("simulated:1", hooks=[recorder, Selective(Event)], clock=clock) as director:
        await director.run(lambda _: None)
        await until(lambda: director.stats().devices[0].busy == 0)
        clock.hold()
        job = director.submit(lambda _: None, name="it", timeout=5)
        await until(clock.asked.is_set)
        job.cancel()
        clock.release()
        await until(lambda: len(recorder.raw) == 3)
    assert [(record.name, record.started, record.state) for record in recorder.records[1:]] == [
        ("it", None, "cancelled")
    ] * 2


async def test_a_hook_that_wants_progress_alone_gets_that_alone() -> None:
    hook = Selective(JobProgressed)
    async with Director("cpu:1", hooks=(hook,)) as director:
        await director.run(lambda _device: report("half"))
        await outcome(director.submit(fail))
    assert [event.progress for event in hook.events if isinstance(event, JobProgressed)] == ["half"]
    assert hook.kinds() == ["JobProgressed"]


async def test_who_wants_to_know_of_starts_is_called_by_the_slots_thread_and_no_event_is_made() -> None:
    class Observer(Selective):
        threads: ClassVar[list[int]] = []
        jobs: ClassVar[list[int]] = []

        def slot_started(self, slot: Slot) -> None:
            self.threads.append(threading.get_ident())
            self.jobs.extend(job.id for job in slot.current_jobs() if job.started_at is not None)

        def attempt_failed(self, job: ScheduledJob[Any], slot: Slot, error: BaseException, is_counted: bool) -> None:
            raise AssertionError

    hook = Observer()
    async with Director("cpu:1", hooks=(hook,)) as director:
        thread = await director.run(lambda _device: threading.get_ident())
        await director.run(lambda _device: None)
    assert hook.threads == [thread, thread]
    assert hook.jobs == [1, 2]
    assert hook.events == []
