"""Whether a decision costs the same however much waits: jobs, tenants, batch keys, priorities.

The Director's own decision, played: no threads and no event loop. One slot is taken, jobs are submitted behind it, and
then it takes them all. The collector is off meanwhile, for it looks at everything that waits now and then.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from harness.play import Play

from director._jobs.options import BatchRule, Options
from director._scheduler.policy import SchedulingPolicy
from director.cli._bench.catalog import run_apart
from director.cli._bench.sheet import Effort, Sheet, turns

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from director._jobs.job import ScheduledJob

    Kinds: TypeAlias = "Callable[[int], list[tuple[Options, object]]]"
    """So many different options of jobs, each with a batch key."""

TIMES = 100  # how many more
LATER = 3600.0  # s, a deadline that nobody misses


@dataclass(frozen=True)
class Case:
    """Something that there may be much of.

    Args:
        name: For people.
        kinds: Options of jobs, of which each in turn is submitted.
        policy: What the Director was told.
        jobs: Whether there are more and more jobs; else more and more kinds of them, and as many jobs.
        cancels: Whether the jobs are cancelled, the oldest first, instead of being taken.
    """

    name: str
    kinds: Kinds
    policy: SchedulingPolicy = SchedulingPolicy()  # noqa: RUF009 - frozen
    jobs: bool = False
    cancels: bool = False


def _one(**options: Any) -> Kinds:
    return lambda _: [(Options(**options), None)]


def _keys(**words: Any) -> Kinds:
    def kinds(count: int) -> list[tuple[Options, object]]:
        options = Options(batch_rule=BatchRule("batched", **words))
        return [(options, key) for key in range(count)]

    return kinds


def _tenants(count: int) -> list[tuple[Options, object]]:
    return [(Options(tenant=number, deadline=LATER), None) for number in range(count)]


def _priorities(count: int) -> list[tuple[Options, object]]:
    return [(Options(priority=number, deadline=LATER), None) for number in range(count)]


CASES = {
    case.name: case
    for case in (
        Case("jobs", _one(), jobs=True),
        Case("jobs with a priority", _one(priority=1), jobs=True),
        Case("jobs with a deadline", _one(deadline=LATER), jobs=True),
        Case("jobs in batches", _keys(max_size=16), jobs=True),
        Case("jobs that grow old", _one(priority=1), SchedulingPolicy(ageing=LATER), jobs=True),
        Case("cancelled jobs", _one(), jobs=True, cancels=True),
        Case("cancelled jobs with a deadline", _one(deadline=LATER), jobs=True, cancels=True),
        Case("tenants", _tenants),
        Case("tenants, predicted", _tenants, SchedulingPolicy(predict=True)),
        Case("priorities", _priorities),
        Case("priorities, predicted", _priorities, SchedulingPolicy(predict=True)),
        Case("batch keys", _keys(max_size=16)),
        Case("batch keys, held", _keys(max_size=16, max_wait=1.0)),
        Case("cancelled batch keys, held", _keys(max_size=16, max_wait=1.0), cancels=True),
    )
}


def cost(name: str, jobs: int, kinds: int) -> tuple[float, float]:
    """Microseconds of a submission and of a job that is taken (or cancelled). Wants a fresh process."""
    case = CASES[name]
    play = Play([1], lambda *_: 0.0, case.policy)
    slot = play.scheduler.slots[0]
    for _ in range(3):  # the pace of the slot is known, and then it is taken
        play.submit(Options())
        slot.busy_seconds += 1e-6
    waiting: list[ScheduledJob[Any] | None] = [None] * jobs
    submitted = _submit(play, case.kinds(kinds), waiting)
    began = time.perf_counter()
    if case.cancels:
        for job in waiting:
            if job is not None:
                play.cancel(job)
    else:
        play.run()
    done = time.perf_counter() - began
    play.run()  # the few at the beginning, where the others were cancelled
    if play.scheduler.waiting():
        raise AssertionError("some were left")
    return submitted / jobs * 1e6, done / jobs * 1e6


def _submit(play: Play, kinds: list[tuple[Options, object]], waiting: list[ScheduledJob[Any] | None]) -> float:
    """Seconds that it takes to submit as many jobs as there is room for."""
    gc.collect()
    gc.disable()
    began = time.perf_counter()
    for number in range(len(waiting)):
        options, key = kinds[number % len(kinds)]
        waiting[number] = play.submit(options, key=key)
    return time.perf_counter() - began


def measure(effort: Effort) -> Sheet:
    """Each case with some, and with a hundred times as many, in fresh processes."""
    sheet = Sheet()
    few = effort.pick(10_000, 1_000)
    for name in turns(list(CASES), rounds=effort.pick(3, 1)):
        if CASES[name].jobs:
            small, large = (run_apart(cost, name, count, 1) for count in (few, few * TIMES))
        else:
            small, large = (run_apart(cost, name, 10 * few, count) for count in (few // TIMES, few))
        for figure, before, after in zip(("submit", "take"), small, large, strict=True):
            sheet.add(name, figure, "µs", before)
            sheet.add(name, f"{figure}, {TIMES} times as many", "µs", after)
            sheet.add(name, f"{figure} grows", "x", after / before)
    return sheet
