"""A Director against a simple model of it, in many random stories.

The model is a list of records, each with the state that its job ought to be in. After each step the stage is quiet, and
everything that a Director promises is checked from outside: the jobs count themselves, nobody asks the scheduler.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from harness.effort import examples
from harness.leaks import threads_left
from harness.stage import FOREVER, PATIENCE, Gate, Stage, Watch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from director import Job, Model
from director._api.lifecycle import DirectorState
from director._jobs.state import JobState
from director._scheduler.slots import SlotState
from director.errors import DirectorClosed, JobAborted, JobTimeout, QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUED, RUNNING = JobState.QUEUED, JobState.RUNNING
SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED
SECONDS = st.sampled_from([1.0, 2.0, 3.0, 5.0])
OUTCOMES: list[Callable[[], Any]] = [
    object,
    lambda: ValueError("wrong"),
    lambda: SystemExit(3),
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
    lambda: StopIteration(1),
]


@dataclass(eq=False)
class Record:
    """One accepted call, and what must have become of it."""

    gate: Gate
    handle: asyncio.Future[Any]  # a Job, or the task of a `run`
    priority: int
    devices: frozenset[int]
    model: Model[Any] | None
    due: float | None
    timeout: float | None
    state: JobState = QUEUED
    outcome: Any = None  # what it must return, or raise: the error itself, or its type

    @property
    def is_over(self) -> bool:
        return self.state not in (QUEUED, RUNNING)

    @property
    def is_patient(self) -> bool:
        return not isinstance(self.handle, Job)

    def end(self, state: JobState, outcome: Any = None) -> None:
        if not self.is_over:
            self.state, self.outcome = state, outcome


class Unhashable:
    """A key that raises when it is hashed or compared."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def __hash__(self) -> int:
        raise self._error

    def __eq__(self, _other: object) -> bool:
        raise self._error


class Machine(RuleBasedStateMachine):
    """Rules are what users do and what jobs do; invariants are what a Director promises."""

    bounds: tuple[int | None, ...] = (None,)

    # ---- the story begins

    @initialize(
        counts=st.lists(st.integers(1, 3), min_size=1, max_size=3),
        bound=st.integers(0, 3),
        linger=st.sampled_from([0.0, FOREVER]),
    )
    def begin(self, counts: list[int], bound: int, linger: float) -> None:
        self.monkeypatch = pytest.MonkeyPatch()
        self.monkeypatch.setattr(logging.getLogger("director"), "disabled", True)
        self.watch = Watch().install(self.monkeypatch)
        self.runner = asyncio.Runner()
        self.threads = set(threading.enumerate())
        self.counts = counts
        self.bound = self.bounds[bound % len(self.bounds)]
        self.stage = Stage(
            self.watch,
            f"simulated:{len(counts)}",
            slots=dict(enumerate(counts)),
            max_queue=self.bound,
            linger=linger,
        )
        self.models = [Model(lambda device: ("replica", device.index), name=name) for name in "ab"]
        self.tasks: list[asyncio.Task[Any]] = []
        self.start()

    def start(self) -> None:
        self.records: list[Record] = []
        self.by_gate: dict[Any, Record] = {}
        self.waiting: list[Record] = []
        self.rejected = 0
        self.seen = len(self.watch.log)
        self.draining: asyncio.Task[None] | None = None
        self.closing: asyncio.Task[None] | None = None
        self.hurry: float | None = None  # when the close loses its patience
        self.state = DirectorState.OPEN
        self.runner.run(self.stage.open())
        self.runner.get_loop().set_exception_handler(lambda loop, context: None)  # results that nobody asked for

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            try:
                self.runner.run(self.finish())
                assert not threads_left(self.threads)
                assert self.stage.is_whole
            finally:
                self.runner.close()
                self.monkeypatch.undo()

    async def finish(self) -> None:
        self.stage.open_gates()
        for task in [self.draining, self.closing, *self.tasks]:
            if task is not None:
                await task
        await self.stage.director.close()
        await self.stage.quiet()

    # ---- what users do

    options = st.fixed_dictionaries(
        {},
        optional={
            "priority": st.integers(-1, 2) | st.sampled_from([-(2**63), 2**63 - 1]),
            "devices": st.integers(1, 7),  # a set of devices, as bits
            "model": st.integers(0, 1),
            "deadline": SECONDS,
            "timeout": SECONDS,
        },
    )

    @rule(options=options, patient=st.booleans(), many=st.integers(1, 3))
    def call(self, options: dict[str, Any], patient: bool, many: int) -> None:
        options = self.resolved(options)
        self.step(lambda: [self.call_one(options, patient) for _ in range(many)])

    def call_one(self, options: dict[str, Any], patient: bool) -> None:
        gate = self.stage.gate()
        if self.state is not DirectorState.OPEN:
            with pytest.raises(DirectorClosed):
                self.stage.director.submit(gate, **options)
            return
        try:
            handle = self.run(gate, options) if patient else self.stage.director.submit(gate, **options)
        except QueueFull as error:
            self.note_refusal(error, options)
            return
        self.accept(gate, handle, options)

    @precondition(lambda self: self.state is DirectorState.OPEN)
    @rule(error=st.sampled_from([TypeError, ZeroDivisionError, KeyboardInterrupt]), is_batched=st.booleans())
    def call_with_a_key_whose_hash_raises(self, error: type[BaseException], is_batched: bool) -> None:
        director, gate = self.stage.director, self.stage.gate()

        def call() -> None:
            key, batched = Unhashable(error), director.function(gate, max_batch_size=2, batch_key=lambda item: item)
            with pytest.raises(error):
                batched.submit(key) if is_batched else director.submit(gate, tenant=key)

        self.step(call)
        assert not gate.calls
        self.check()

    def note_refusal(self, error: QueueFull, options: dict[str, Any]) -> None:
        assert error.limit == self.bound
        assert error.waiting >= error.limit
        waiting = [record for record in self.records if record.state is QUEUED]
        free = self.free(options.get("devices", range(len(self.counts))))
        assert waiting or not free, "refused while nothing waits and a slot is free"
        self.rejected += 1

    def run(self, gate: Gate, options: dict[str, Any]) -> asyncio.Task[Any]:
        async def run() -> Any:
            try:
                return await self.stage.director.run(gate, **options)
            except BaseException as error:  # returned, for SystemExit in a task ends the loop
                return error

        task = asyncio.get_running_loop().create_task(run())
        self.tasks.append(task)
        return task

    def accept(self, gate: Gate, handle: asyncio.Future[Any], options: dict[str, Any]) -> None:
        deadline = options.get("deadline")
        record = Record(
            gate,
            handle,
            options.get("priority", 0),
            frozenset(options.get("devices", range(len(self.counts)))),
            options.get("model"),
            None if deadline is None else self.now + deadline,
            options.get("timeout"),
        )
        self.records.append(record)
        self.by_gate[gate] = record

    @precondition(lambda self: self.records)
    @rule(index=st.integers(0, 50))
    def cancel(self, index: int) -> None:
        record = self.records[index % len(self.records)]

        def cancel() -> None:
            assert record.handle.cancel() is not record.is_over

        self.step(cancel)
        record.end(CANCELLED, asyncio.CancelledError)
        self.check()

    @precondition(lambda self: len(self.records) > 3)
    @rule(timeout=st.sampled_from([None, 0.0, 2.0]))
    def close(self, timeout: float | None) -> None:
        if self.state is DirectorState.CLOSED or self.closing is not None or (self.draining and timeout is not None):
            return  # for two at a time see test_cancellation.py
        self.state = DirectorState.DRAINING
        self.hurry = None if timeout is None else self.now + timeout
        self.step(lambda: setattr(self, "closing", asyncio.ensure_future(self.stage.director.close(timeout))))
        self.end_what_is_late()
        self.check()

    @precondition(lambda self: len(self.records) > 3)
    @rule()
    def drain(self) -> None:
        if self.state is DirectorState.CLOSED or self.closing is not None or self.draining is not None:
            return
        self.state = DirectorState.DRAINING
        self.step(lambda: setattr(self, "draining", asyncio.ensure_future(self.stage.director.drain())))
        self.check()

    @precondition(lambda self: self.state is DirectorState.CLOSED)
    @rule()
    def start_again(self) -> None:
        for record in self.records:
            self.check_end(record)
        self.start()

    # ---- what jobs and time do

    @rule(picks=st.lists(st.tuples(st.integers(0, 20), st.sampled_from(OUTCOMES)), min_size=1, max_size=3))
    def finish_jobs(self, picks: list[tuple[int, Callable[[], Any]]]) -> None:
        self.step(lambda: [self.let_go(index, make()) for index, make in picks])
        self.check()

    def let_go(self, index: int, outcome: Any) -> Record | None:
        inside = [record for record in self.records if record.gate.is_blocking]
        if not inside:
            return None
        record = inside[index % len(inside)]
        record.gate.open(outcome)
        if isinstance(outcome, asyncio.CancelledError):
            record.end(CANCELLED, asyncio.CancelledError)
        elif isinstance(outcome, StopIteration):
            record.end(FAILED, RuntimeError)
        else:
            record.end(FAILED if isinstance(outcome, BaseException) else SUCCEEDED, outcome)
        return record

    @rule(index=st.integers(0, 20))
    def cancel_with_the_outcome_on_its_way(self, index: int) -> None:
        inside = [record for record in self.records if record.gate.is_blocking]
        if not inside:
            return
        record = inside[index % len(inside)]

        def race() -> None:
            record.gate.open(object())
            self.stage.wait(lambda: self.stage.has_left(record.gate))
            assert record.handle.cancel() is not record.is_over

        self.step(race)
        record.end(CANCELLED, asyncio.CancelledError)
        self.check()

    @rule(seconds=SECONDS)
    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        self.step(lambda: self.stage.clock.advance(seconds))
        for record in self.records:
            if record.due is not None and record.due <= until:
                record.end(FAILED, JobTimeout)
        self.end_what_is_late()
        self.check()

    def end_what_is_late(self) -> None:
        if self.hurry is not None and self.hurry <= self.now:
            for record in self.records:
                record.end(FAILED, DirectorClosed if record.state is QUEUED else JobAborted)

    # ---- what a Director promises

    def check(self) -> None:
        """Compare everything with the model; after a step and what the model makes of it."""
        self.replay()
        self.note_close()
        for record in self.records:
            self.check_end(record)
        self.check_slots()
        self.check_work_conservation()
        self.check_stats()

    @invariant()
    def is_sound(self) -> None:
        if hasattr(self, "stage"):
            self.check()

    def replay(self) -> None:
        """Follow what has happened since the last step, in its order."""
        log, self.seen = self.watch.log[self.seen :], len(self.watch.log)
        for job, before, after in log:
            if not isinstance(job, Job) or (record := self.by_gate.get(self.watch.functions[job])) is None:
                continue
            if before is None:
                self.waiting.append(record)
                continue
            if record in self.waiting:
                self.waiting.remove(record)
            if after is RUNNING:
                self.note_start(record, job)

    def note_start(self, record: Record, job: Job[Any]) -> None:
        assert job.device is not None
        assert job.device.index in record.devices
        assert record.gate.calls == 1
        for other in self.waiting:
            assert not self.goes_before(other, record, job.device.index), f"{other} had to wait for {record}"
        if not record.is_over:
            record.state = RUNNING
            if record.timeout is not None:
                end = self.now + record.timeout
                record.due = end if record.due is None else min(record.due, end)

    def goes_before(self, waiting: Record, started: Record, device: int) -> bool:
        """Whether `device` should have been given `waiting` instead."""
        if device not in waiting.devices:
            return False
        if waiting.model is not None and waiting.model.name not in self.stats.devices[device].models:
            return False  # it may have waited for a device where its model is loaded
        return self.rank(waiting) < self.rank(started)

    def rank(self, record: Record) -> tuple[int, float, int]:
        deadline = math.inf if record.due is None else record.due  # of one that waits or has just started: its deadline
        return -record.priority, deadline, self.records.index(record)

    def note_close(self) -> None:
        if self.state is not DirectorState.DRAINING:
            return
        over = all(record.is_over for record in self.records)
        if self.draining is not None:
            assert self.draining.done() is over  # calls whose jobs have ended may go on
        if self.closing is not None and (over or (self.hurry is not None and self.hurry <= self.now)):
            self.runner.run(asyncio.wait_for(self.closing, PATIENCE))
            self.state = DirectorState.CLOSED
        assert self.closing is None or self.closing.done() is (self.state is DirectorState.CLOSED)
        assert self.stage.director.state is self.state

    def check_end(self, record: Record) -> None:
        assert record.gate.calls <= 1
        assert record.handle.done() is record.is_over, record
        if isinstance(record.handle, Job):
            assert record.handle.state is record.state
        if not record.is_over:
            return
        result = _result(record.handle)
        if isinstance(record.outcome, type):
            assert isinstance(result, record.outcome)
        else:
            assert result is record.outcome

    def check_slots(self) -> None:
        assert not self.watch.illegal
        for device, most in self.stage.crowd.most.items():
            assert most <= self.counts[device.index]
        for place in self.stage.places:
            workers = sum(slot.state is not SlotState.IDLE for slot in place.slots)
            assert self.stage.permits[place]._value + workers == len(place.slots)

    def check_work_conservation(self) -> None:
        for record in self.records:
            if record.state is QUEUED:
                assert not self.free(record.devices), f"{record} waits while a slot that may run it is free"

    def free(self, devices: Any) -> int:
        crowd, all_devices = self.stage.crowd, self.stage.director.devices
        return sum(self.counts[index] - crowd.on(all_devices[index]) for index in devices)

    def check_stats(self) -> None:
        self.stats = stats = self.stage.director.stats()
        counted = (stats.queued, stats.running, stats.succeeded, stats.failed, stats.cancelled)
        assert counted == tuple(sum(r.state is state for r in self.records) for state in JobState)
        assert stats.rejected == self.rejected
        for device in stats.devices:
            if self.state is not DirectorState.CLOSED:  # then it is the last snapshot
                assert device.busy == self.stage.crowd.on(device.device)
            assert device.slots == self.counts[device.device.index]

    # ---- within

    def step(self, act: Callable[[], object]) -> None:
        """Act on the event loop, and wait until everything has happened that follows."""

        async def step() -> None:
            act()
            await self.stage.quiet()

        self.runner.run(step())

    @property
    def now(self) -> float:
        return self.stage.clock.time()

    def resolved(self, options: dict[str, Any]) -> dict[str, Any]:
        options = dict(options)
        if "devices" in options:
            count = len(self.counts)
            options["devices"] = [i for i in range(count) if options["devices"] >> i & 1] or [count - 1]
        if "model" in options:
            options["model"] = self.models[options["model"]]
        return options


def _result(handle: asyncio.Future[Any]) -> Any:
    """What a job, or the task of a `run`, has returned or raised."""
    try:
        return handle.result()
    except BaseException as error:
        return error


class BoundedMachine(Machine):
    """With a bound: `submit` is refused, `run` is not."""

    bounds = (0, 1, 2, 5)


RULES = settings(max_examples=examples(60), stateful_step_count=30, suppress_health_check=list(HealthCheck))
TestDirector = Machine.TestCase
TestDirector.settings = RULES
TestBoundedDirector = BoundedMachine.TestCase
TestBoundedDirector.settings = RULES
