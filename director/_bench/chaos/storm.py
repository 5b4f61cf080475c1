"""One storm from the first job to the last account."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from director import Director, Health, HealthRules, ProcessExecutor
from director._bench.chaos import calls
from director._bench.chaos.books import Books
from director._bench.chaos.callers import Callers
from director._bench.chaos.remains import Remains, remains
from director._bench.chaos.troubles import Troubles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from director import Stats

CALLERS = 48
WARM_UP = 0.3  # part of a storm after which memory is looked at for the first time
PATIENCE = 60.0  # seconds after a storm in which everything must have ended
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
        seed: What chance draws.
        executor: ``"process"``; with ``"thread"`` nobody can be killed.
        devices: Of two slots each.
    """

    seconds: float = 60.0
    jobs: int = 20_000
    seed: int = 0
    executor: str = "process"
    devices: int = 2


@dataclass(frozen=True)
class Outcome:
    """What has happened.

    Args:
        plan: What was to happen.
        seconds: How long it lasted.
        jobs: How many have ended.
        outcomes: In what.
        troubles: What went wrong on purpose.
        before, after: What was there when memory was looked at.
        faults: What is not as it must be; nothing, if all is well.
    """

    plan: Plan
    seconds: float
    jobs: int
    outcomes: Mapping[str, int]
    troubles: Mapping[str, int]
    before: Remains
    after: Remains
    faults: list[str] = field(default_factory=list)


def run(plan: Plan) -> Outcome:
    """Let it storm."""
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
        self._notes = folder / "begun"
        self._books = Books(self._notes)
        self._troubles = Troubles(plan.seed)
        self._left = 0

    async def rage(self) -> Outcome:
        """All of it."""
        plan, books = self._plan, self._books
        at_first, began = remains(), time.monotonic()
        async with self._director() as director:
            await self._blow(director, plan.seconds * WARM_UP, int(plan.jobs * WARM_UP))
            before = remains()
            await self._blow(director, plan.seconds, plan.jobs)
            after = remains()
            seconds = time.monotonic() - began
            self._compare(before, after)
            self._audit(director.stats())
            await self._meet(director)
        await asyncio.sleep(0)
        self._look_for_leftovers(at_first, remains())
        books.close()
        troubles = {**self._troubles.made, "callers left": self._left}
        return Outcome(plan, seconds, books.jobs, books.outcomes, troubles, before, after, books.faults)

    def _director(self) -> Director:
        in_processes = ProcessExecutor(grace=GRACE, max_jobs_per_worker=500)
        return Director(
            f"cpu:{self._plan.devices}",
            slots=2,
            executor=in_processes if self._plan.executor == "process" else "thread",
            max_queue=None,
            health=HealthRules(failures=4, probation=0.1),
            hooks=[self._books],
        )

    async def _blow(self, director: Director, seconds: float, jobs: int) -> None:
        """Go on until there were so many jobs, and for so long; then wait for the last of them."""
        plan, troubles = self._plan, self._troubles
        callers = Callers(director, plan.seed, self._notes, self._books, plan.executor == "process")
        killer = threading.Thread(target=troubles.kill, name="chaos", daemon=True)
        troubles.is_over = False
        blocking = asyncio.create_task(troubles.block())
        if plan.executor == "process":
            killer.start()
        asking = [asyncio.create_task(callers.ask()) for _ in range(CALLERS)]
        until = time.monotonic() + seconds
        while time.monotonic() < until or self._books.jobs < jobs:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_LOOK)
        callers.is_over = troubles.is_over = True
        await self._end(director, asking)
        await blocking
        if killer.ident is not None:
            await asyncio.to_thread(killer.join)
        self._left += callers.left

    async def _end(self, director: Director, asking: list[asyncio.Task[None]]) -> None:
        """Nobody asks for more: what is under way must end by itself."""
        _, hanging = await asyncio.wait(asking, timeout=PATIENCE)
        for task in hanging:
            self._books.wrong(f"a caller waits for ever: {task!r}, {director!r}")
            task.cancel()
        for task in asking:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                self._books.wrong(f"a caller has failed: {error!r}")
        until = time.monotonic() + UNTOLD
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
        while any(device.health is not Health.HEALTHY for device in director.stats().devices):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_LOOK)
        slots = sum(device.slots for device in director.stats().devices)
        path = self._folder / "guests"
        path.touch()
        jobs = [director.submit(calls.meet, str(path), n, slots) for n in range(slots)]
        for job, error in zip(jobs, await asyncio.gather(*jobs, return_exceptions=True), strict=True):
            if isinstance(error, BaseException):
                self._books.wrong(f"a permit is missing, job {job.id} says {error!r}")

    def _compare(self, before: Remains, after: Remains) -> None:
        """Memory is flat."""
        for name, more in (("memory", MORE_MEMORY), ("objects", MORE_OBJECTS), ("descriptors", MORE_DESCRIPTORS)):
            was, now = getattr(before, name), getattr(after, name)
            if now > was + more:
                self._books.wrong(f"{name}: {was:,} after a third of the storm, {now:,} in the end")
        if after.jobs:
            self._books.wrong(f"{after.jobs} jobs are kept alive by somebody")

    def _look_for_leftovers(self, at_first: Remains, now: Remains) -> None:
        """A Director that is closed leaves nothing behind."""
        for name in ("descriptors", "threads", "children"):
            was, left = getattr(at_first, name), getattr(now, name)
            if left > was:
                self._books.wrong(f"{name}: {was} before the Director, {left} after it")
