"""One storm from the first job to the last account."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.chaos import calls
from benchmarks.chaos.books import Books
from benchmarks.chaos.callers import Callers
from benchmarks.chaos.remains import Remains, remains
from benchmarks.chaos.troubles import Troubles
from director import Director, Health, HealthRules, ProcessExecutor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from director import Executor, Stats

CALLERS = 48
WARM_UP = 0.3  # part of a storm after which memory is looked at for the first time
UNTOLD = 10.0  # seconds in which calls whose callers have left must have ended
GRACE = 0.05
_LOOK = 0.02
MORE_MEMORY = 24 << 20  # bytes that a process may hold more after a storm: allocators keep what large arrays have left
MORE_OBJECTS = 1000  # the same for objects: what caches and counters take
MORE_DESCRIPTORS = 24  # the same for descriptors: a child that has just been replaced holds fewer


@dataclass(frozen=True)
class Plan:
    """What is to happen.

    Args:
        seconds: How long it lasts at least.
        jobs: How many end at least.
        values: How many are received at least.
        seed: What chance draws.
        executor: ``"process"``, ``"thread"`` (whose calls can't be killed), ``"ray"``, or an executor in this process.
        devices: Of two slots each; over Ray those that there are.
        address: Of the Ray cluster.
        patience: Seconds in which a job must end or a value arrive, until everything has ended.
    """

    seconds: float = 60.0
    jobs: int = 20_000
    values: int = 0
    seed: int = 0
    executor: str | Executor = "process"
    devices: int = 2
    address: str = "auto"
    patience: float = 60.0

    @property
    def where(self) -> str:
        """Where calls are made: in threads, processes or a Ray cluster."""
        return self.executor if isinstance(self.executor, str) else "thread"


@dataclass(frozen=True)
class Outcome:
    """What has happened.

    Args:
        plan: What was to happen.
        slots: Of its Director.
        seconds: How long it lasted.
        jobs: How many have ended.
        values: How many of the values that they received were right, and how many were not.
        outcomes: In what.
        troubles: What went wrong on purpose.
        before, after: What was there when memory was looked at.
        faults: What is not as it must be; nothing, if all is well.
    """

    plan: Plan
    slots: int
    seconds: float
    jobs: int
    values: Mapping[str, int]
    outcomes: Mapping[str, int]
    troubles: Mapping[str, int]
    before: Remains
    after: Remains
    faults: list[str] = field(default_factory=list)


def run(plan: Plan) -> Outcome:
    """Let it storm. What the package logs meanwhile is not shown: much goes wrong on purpose."""
    for name in ("director", calls.LOGGER):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.handlers[:] = [logging.NullHandler()]
    with tempfile.TemporaryDirectory(prefix="director-chaos-") as folder:
        return asyncio.run(Storm(plan, Path(folder)).rage())


class Storm:
    """One storm over one Director.

    Args:
        plan: What is to happen.
        folder: For the notes of calls.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._notes = None if plan.where == "ray" else folder / "begun"  # nodes need not share a file system
        self._books = Books(self._notes)
        self._troubles = Troubles(plan.seed)
        self._left = 0

    async def rage(self) -> Outcome:
        """All of it."""
        plan, books = self._plan, self._books
        at_first, began = remains(), time.monotonic()
        async with self._director() as director:
            await self._blow(director, WARM_UP)
            before = remains()
            await self._blow(director, 1.0)
            after = remains()
            seconds = time.monotonic() - began
            if plan.where != "ray":
                self._compare(before, after)
            if after.jobs:
                books.wrong(f"{after.jobs} jobs are kept alive by somebody")
            self._audit(director.stats())
            if self._notes is not None and not director.stats().running:
                await self._meet(director)
            slots = sum(device.slots for device in director.stats().devices)
            await director.close(plan.patience)  # of what hangs, too
        await asyncio.sleep(0)
        self._look_for_leftovers(at_first, remains())
        books.close()
        made = {**self._troubles.made, "callers left": self._left, "reports": books.reports}
        values = books.received.counts()
        return Outcome(plan, slots, seconds, books.jobs, values, books.outcomes, made, before, after, books.faults)

    def _director(self) -> Director:
        plan = self._plan
        executor: Any = plan.executor
        if plan.where == "ray":
            from benchmarks.chaos import cluster

            executor = cluster.executor(plan.address)
        elif plan.where == "process":
            executor = ProcessExecutor(grace=GRACE, max_jobs_per_worker=500)
        return Director(
            None if plan.where == "ray" else f"cpu:{plan.devices}",
            slots=1 if plan.where == "ray" else 2,
            executor=executor,
            max_queue=None,
            health=HealthRules(failures=4, probation=0.1),
            hooks=[self._books],
        )

    def _callers(self, director: Director) -> Callers:
        plan = self._plan
        if plan.where != "ray":
            return Callers(director, plan.seed, self._notes, self._books, plan.where)
        from benchmarks.chaos import cluster

        return Callers(director, plan.seed, None, self._books, plan.where, cluster.later)

    async def _blow(self, director: Director, share: float) -> None:
        """Go on until there were so many jobs and values, and for so long; then wait for the last of them."""
        plan, troubles, books = self._plan, self._troubles, self._books
        callers = self._callers(director)
        killer = threading.Thread(target=troubles.kill, name="chaos", daemon=True)
        troubles.is_over = False
        blocking = asyncio.create_task(troubles.block())
        if plan.where == "process":
            killer.start()
        asking = [asyncio.create_task(callers.ask()) for _ in range(CALLERS)]
        until = time.monotonic() + plan.seconds * share
        jobs, values, progress = plan.jobs * share, plan.values * share, (-1, -1, 0.0)
        while time.monotonic() < until or books.jobs < jobs or books.received.right < values:
            await asyncio.sleep(_LOOK)
            if (books.jobs, books.received.right) != progress[:2]:
                progress = (books.jobs, books.received.right, time.monotonic())
            elif time.monotonic() > progress[2] + plan.patience or all(task.done() for task in asking):
                books.wrong(f"nothing has ended for {plan.patience:g} seconds: {director!r}")
                break
        callers.is_over = troubles.is_over = True
        await self._end(director, asking)
        await blocking
        if killer.ident is not None:
            await asyncio.to_thread(killer.join)
        self._left += callers.left

    async def _end(self, director: Director, asking: list[asyncio.Task[None]]) -> None:
        """What is under way must end by itself; a slow reader may read on for long, as long as values come."""
        books, progress = self._books, None
        hanging = set(asking)
        while hanging and progress != (progress := (books.jobs, books.received.right)):
            _, hanging = await asyncio.wait(hanging, timeout=self._plan.patience)
        for task in hanging:
            self._books.received.lost += 1
            self._books.wrong(f"a caller waits for ever: {task!r}, {director!r}")
            task.cancel()
        for task in asking:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                self._books.wrong(f"a caller has failed: {error!r}")
        until = time.monotonic() + min(UNTOLD, self._plan.patience)
        while any(device.busy for device in director.stats().devices):
            if time.monotonic() > until:
                self._books.wrong(f"calls go on that nobody waits for: {director!r}")
                break
            await asyncio.sleep(_LOOK)

    # ---- accounts

    def _audit(self, stats: Stats) -> None:
        """What the Director counts is what the callers count."""
        books = self._books
        ended = stats.succeeded + stats.failed + stats.cancelled
        if stats.queued or stats.running:
            books.wrong(f"{stats.queued} jobs wait and {stats.running} run, and nobody has asked for them")
        if ended != books.jobs or stats.succeeded < books.outcomes["returned"]:
            books.wrong(f"the Director counts {ended} jobs ({stats.succeeded} succeeded), the callers {books.jobs}")
        for device in stats.devices:
            if device.busy:
                books.wrong(f"{device.busy} slots of {device.device.label} are not free")

    async def _meet(self, director: Director) -> None:
        """Every permit is back if all slots can be in a call at the same time."""
        while any(device.health is not Health.HEALTHY for device in director.stats().devices):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(_LOOK)
        slots = sum(device.slots for device in director.stats().devices)
        path = self._folder / "guests"
        path.touch()
        jobs = [director.submit(calls.meet, str(path), n, slots, name=str(n)) for n in range(slots)]
        for job, error in zip(jobs, await asyncio.gather(*jobs, return_exceptions=True), strict=True):
            if isinstance(error, BaseException):
                self._books.wrong(f"a permit is missing, job {job.id} says {error!r}")

    def _compare(self, before: Remains, after: Remains) -> None:
        """Memory is flat."""
        for name, more in (("memory", MORE_MEMORY), ("objects", MORE_OBJECTS), ("descriptors", MORE_DESCRIPTORS)):
            was, now = getattr(before, name), getattr(after, name)
            if now > was + more:
                self._books.wrong(f"{name}: {was:,} after a third of the storm, {now:,} in the end")

    def _look_for_leftovers(self, at_first: Remains, now: Remains) -> None:
        """A Director that is closed leaves nothing behind."""
        for name in ("threads",) if self._plan.where == "ray" else ("descriptors", "threads", "children"):
            was, left = getattr(at_first, name), getattr(now, name)
            if left > was:
                self._books.wrong(f"{name}: {was} before the Director, {left} after it")
