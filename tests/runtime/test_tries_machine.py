"""A Director in random stories of batches, tries, tenants and bounds, told from outside.

As in test_state_machine.py the stage is quiet after each step. Here many items share a call, a call may fail for some
of them, and what has failed may be tried again; who is served first is left to test_batch_machine.py.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import threading
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from harness.effort import examples
from harness.leaks import threads_left
from harness.stage import FOREVER, Stage, Watch
from harness.tries import CANCELLED, FAILED, KINDS, QUEUED, RUNNING, SUCCEEDED, Call, Item, Kind, Shaky
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from director import DeadlineUnreachable, Device, JobState, JobTimeout, QueueFull
from director.events import JobEnded, JobEvent, JobRetried, JobStarted, JobSubmitted

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(300)  # a story that fails is made shorter, which takes its time


class Machine(RuleBasedStateMachine):
    @initialize(
        counts=st.lists(st.integers(1, 2), min_size=1, max_size=3),
        bound=st.sampled_from([None, None, 3]),
        per_tenant=st.sampled_from([None, None, 2]),
        ageing=st.sampled_from([None, 3.0]),
        admission=st.sampled_from([None, None, "predict"]),
        linger=st.sampled_from([0.0, FOREVER]),
    )
    def begin(self, counts: list[int], bound: Any, per_tenant: Any, ageing: Any, admission: Any, linger: float) -> None:
        self.monkeypatch = pytest.MonkeyPatch()
        self.monkeypatch.setattr(logging.getLogger("director"), "disabled", True)
        self.watch = Watch().install(self.monkeypatch)
        self.runner = asyncio.Runner()
        self.threads = set(threading.enumerate())
        self.counts = counts
        self.events: list[JobEvent] = []
        self.stage = Stage(
            self.watch,
            f"simulated:{len(counts)}",
            slots=dict(enumerate(counts)),
            max_queue=bound,
            max_queue_per_tenant=per_tenant,
            tenants={"a": 2},
            ageing=ageing,
            admission=admission,
            linger=linger,
            hooks=[self.note_event],
        )
        self.items: list[Item] = []
        self.calls: list[Call] = []
        self.numbers = iter(range(10**6))
        self.draining: asyncio.Task[None] | None = None
        self.kinds = [self.kind(number, options) for number, options in enumerate(KINDS)]
        self.runner.run(self.stage.open())
        self.runner.get_loop().set_exception_handler(lambda loop, context: None)  # results that nobody asked for

    def kind(self, number: int, options: dict[str, Any]) -> Kind:
        kind = Kind(f"kind {number}", options)
        costs = {"batch_cost": lambda item: item.cost} if {"max_batch_cost", "batch_window"} & options.keys() else {}
        kind.function = self.stage.director.function(
            lambda device, items: self.enter(device, items, kind),
            name=kind.name,
            batch_key=lambda item: item.key,
            **options,
            **costs,
        )
        return kind

    def note_event(self, event: Any) -> None:
        if isinstance(event, JobEvent):
            self.events.append(event)

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        try:
            self.runner.run(self.finish())
            assert not threads_left(self.threads)
            assert self.stage.is_whole
            self.check_events()
            self.check_nothing_is_kept()
        finally:
            self.runner.close()
            self.monkeypatch.undo()

    async def finish(self) -> None:
        """Whatever waits or stands at a gate ends."""
        for job in [item.job for item in self.items]:
            job.cancel()
        self.is_over = True
        self.stage.open_gates()
        if self.draining is not None:
            await self.draining
        await self.stage.quiet()  # calls whose jobs have ended: the close does not wait for them
        await self.stage.director.close()
        await self.stage.quiet()
        assert all(item.ends == 1 for item in self.items)
        assert all(item.job.done() for item in self.items)

    is_over = False  # what begins now ends at once

    def check_nothing_is_kept(self) -> None:
        alive = weakref.WeakSet(item.job for item in self.items)
        self.items.clear()
        self.calls.clear()
        self.events.clear()  # an error leads back to the frames it has passed
        self.watch.log.clear()
        self.watch.functions.clear()
        gc.collect()
        assert not alive

    # ---- what users do

    @rule(
        kind=st.none() | st.integers(0, len(KINDS) - 1),
        key=st.integers(0, 1),
        cost=st.sampled_from([1.0, 2.0, 5.0, 20.0]),
        devices=st.integers(1, 7),
        priority=st.sampled_from([0, 0, 1]),
        tenant=st.sampled_from([None, "a", "b"]),
        deadline=st.sampled_from([None, None, 1.5, 4.0]),
        retries=st.sampled_from([0, 1, 3]),
        backoff=st.sampled_from([0.0, 1.0]),
        many=st.integers(1, 5),
    )
    def submit(
        self,
        kind: int | None,
        key: int,
        cost: float,
        devices: int,
        priority: int,
        tenant: str | None,
        deadline: float | None,
        retries: int,
        backoff: float,
        many: int,
    ) -> None:
        if self.draining is not None:
            return
        count = len(self.counts)
        allowed = frozenset(index for index in range(count) if devices >> index & 1) or frozenset({count - 1})
        options: dict[str, Any] = {"priority": priority, "tenant": tenant, "deadline": deadline}
        options |= {"devices": sorted(allowed), "retries": retries, "backoff": backoff}
        if retries:
            options["retry_on"] = Shaky
        due = math.inf if deadline is None else self.now + deadline
        chosen = None if kind is None else self.kinds[kind]

        def act() -> None:
            for _ in range(many):
                item = Item(next(self.numbers), chosen, key, cost, allowed, retries, backoff, due, self.now)
                self.submit_one(item, options)

        self.step(act)

    def submit_one(self, item: Item, options: dict[str, Any]) -> None:
        director = self.stage.director
        try:
            if item.kind is None:
                item.job = director.submit(lambda device: self.enter(device, [item], None), **options)
            else:
                item.job = item.kind.function.with_options(**options).submit(item)
        except (QueueFull, DeadlineUnreachable) as error:
            self.check_refusal(item, error)
            return
        item.job.add_done_callback(lambda _: setattr(item, "ends", item.ends + 1))
        self.items.append(item)

    def check_refusal(self, item: Item, error: QueueFull | DeadlineUnreachable) -> None:
        if isinstance(error, QueueFull):
            assert error.limit in (2, 3)
        else:
            assert item.due < math.inf

    def enter(self, device: Device, items: list[Item], kind: Kind | None) -> Any:
        """On a slot's thread: what every call does."""
        gate = self.stage.gate()
        call = Call(gate, list(items), device.index, kind)
        self.calls.append(call)
        if self.is_over:
            gate.open()
        outcomes = gate(device)
        if outcomes is None:  # the story is over
            outcomes = [None] * len(items)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and kind is None:
                raise outcome
        return outcomes if kind is not None else outcomes[0]

    @precondition(lambda self: self.items)
    @rule(index=st.integers(0, 50))
    def cancel(self, index: int) -> None:
        item = self.items[-1 - index % len(self.items)]

        def act() -> None:
            assert item.job.cancel() is not item.is_over

        self.step(act)
        item.end(CANCELLED, asyncio.CancelledError)
        self.check()

    @precondition(lambda self: len(self.items) > 8)
    @rule()
    def drain(self) -> None:
        if self.draining is None:
            self.step(lambda: setattr(self, "draining", asyncio.ensure_future(self.stage.director.drain())))
            self.check()

    # ---- what jobs and time do

    @rule(picks=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4**4 - 1)), min_size=1, max_size=3))
    def end_calls(self, picks: list[tuple[int, int]]) -> None:
        def act() -> None:
            for index, fates in picks:
                if standing := [call for call in self.calls if call.gate.is_blocking]:
                    self.end_call(standing[index % len(standing)], fates)

        self.step(act)
        self.check()

    def end_call(self, call: Call, fates: int) -> None:
        """Each item of the call succeeds, fails, or fails in a way that is worth another try."""
        outcomes: list[Any] = []
        for number, item in enumerate(call.items):
            fate = fates >> 2 * (number % 4) & 3
            outcomes.append([object(), object(), ValueError(), Shaky()][fate])
            self.note_outcome(item, outcomes[-1], call.device)
        call.gate.open(outcomes)

    def note_outcome(self, item: Item, outcome: Any, device: int) -> None:
        if item.is_over:
            return
        if not isinstance(outcome, Exception):
            item.end(SUCCEEDED, outcome)
            return
        failed = len(item.tries)
        delay = item.backoff * 2**failed
        if not isinstance(outcome, Shaky) or failed >= item.retries or self.now + delay >= item.due:
            item.end(FAILED, outcome)
            return
        item.tries.append(device)
        item.state, item.resumes = QUEUED, self.now + delay

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        self.step(lambda: self.stage.clock.advance(seconds))
        for item in self.items:
            if item.due <= until:
                item.end(FAILED, JobTimeout)
        self.check()

    # ---- what a Director promises

    def check(self) -> None:
        self.note_starts()
        for call in self.calls:
            self.check_call(call)
        for item in self.items:
            self.check_item(item)
        self.check_work_conservation()
        self.check_stats()
        if self.draining is not None:
            # Calls whose items have ended may go on.
            assert self.draining.done() is all(item.is_over for item in self.items)
        assert not self.watch.illegal

    @invariant()
    def is_sound(self) -> None:
        if hasattr(self, "stage"):
            self.check()

    def note_starts(self) -> None:
        for call in self.calls:
            if call.gate.is_inside:
                for item in call.items:
                    if item.state is QUEUED:
                        item.state = RUNNING

    def check_call(self, call: Call) -> None:
        """A batch is made of what may be together."""
        assert len({(item.kind, item.key if item.kind else item) for item in call.items}) == 1
        assert len(set(call.items)) == len(call.items)
        assert all(call.device in item.devices for item in call.items)
        if call.kind is None:
            assert len(call.items) == 1
            return
        costs = [item.cost for item in call.items]
        total = max(costs) * len(costs) if call.kind.options.get("batch_padding") else sum(costs)
        assert len(call.items) <= call.kind.size
        assert len(call.items) == 1 or total <= call.kind.options.get("max_batch_cost", math.inf)

    def check_item(self, item: Item) -> None:
        mine = [call for call in self.calls if item in call.items]
        assert len(mine) <= item.retries + 1
        for call, failed in zip(mine[1:], item.tries, strict=False):
            assert call.device != failed or len(item.devices) == 1, "the device that has failed it was chosen again"
        if self.is_early(item):
            item.end(FAILED, JobTimeout)
        assert item.job.state is item.state, item
        assert item.job.done() is item.is_over
        assert item.ends == item.is_over, "its end was told twice, or not at all"
        if item.is_over:
            result = item.job.exception() or item.job.result() if item.state is not CANCELLED else None
            assert item.state is CANCELLED or result is item.outcome or type(result) is item.outcome
        else:
            assert item.job.attempts == len(item.tries) + (item.state is RUNNING)

    def is_early(self, item: Item) -> bool:
        """It was given up before its deadline, by what is known of its function."""
        if item.state is not QUEUED or item.job.state is not FAILED or item.kind is None:
            return False
        error = item.job.exception()
        assert isinstance(error, JobTimeout)
        assert error.phase == "queued"
        return any(line.name == item.kind.name for line in self.stage.director.stats().functions)

    def check_work_conservation(self) -> None:
        for item in self.items:
            if item.state is not QUEUED or item.resumes > self.now or self.is_held(item):
                continue
            devices = item.devices - set(item.tries[-1:]) or item.devices
            assert not self.free(devices), f"{item} waits while a slot that may run it is free"

    def is_held(self, item: Item) -> bool:
        """For company, as long as it may be."""
        if item.kind is None or not item.kind.max_wait or self.draining is not None:
            return False
        return self.now < item.submitted + item.kind.max_wait and self.now < item.due

    def free(self, devices: Any) -> int:
        crowd, everywhere = self.stage.crowd, self.stage.director.devices
        return sum(self.counts[index] - crowd.on(everywhere[index]) for index in devices)

    def check_stats(self) -> None:
        stats = self.stage.director.stats()
        counted = (stats.queued, stats.running, stats.succeeded, stats.failed, stats.cancelled)
        assert counted == tuple(sum(item.state is state for item in self.items) for state in JobState)
        for device, count in zip(stats.devices, self.counts, strict=True):
            assert device.busy == self.stage.crowd.on(device.device) <= count

    def check_events(self) -> None:
        """Of each job: its submission, then starts and tries in turn, then one end."""
        by_job: dict[int, list[JobEvent]] = {}
        for event in self.events:
            by_job.setdefault(event.job, []).append(event)
        for events in by_job.values():
            kinds = Counter(
                next(kind for kind in (JobSubmitted, JobStarted, JobRetried, JobEnded) if isinstance(event, kind))
                for event in events
            )
            assert isinstance(events[0], JobSubmitted)
            assert isinstance(events[-1], JobEnded)
            assert kinds[JobSubmitted] == kinds[JobEnded] == 1
            assert kinds[JobRetried] <= kinds[JobStarted] <= kinds[JobRetried] + 1

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


TestTries = Machine.TestCase
TestTries.settings = settings(
    max_examples=examples(40), stateful_step_count=30, suppress_health_check=list(HealthCheck)
)
