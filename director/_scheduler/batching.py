"""Which jobs share a batch, decided when a slot takes it. Called under `scheduler`'s lock.

The first job is the one that is served next. Others of its group follow in order of service, while the batch has room,
their cost fits, and one more item makes no job of the batch miss its deadline.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, TypeAlias

from director._jobs.state import JobState
from director._scheduler.queue.batch_group import cost_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob
    from director._jobs.options import BatchRule
    from director._scheduler.costs import LinearCost
    from director._scheduler.queue.batch_group import BatchGroup

Known: TypeAlias = "Callable[[], LinearCost | None]"

_RUNNING, _FAILED = JobState.RUNNING, JobState.FAILED
_NEVER = float("inf")


class BatchBuilder:
    """A batch that is being filled.

    Args:
        rule: The function's.
        known: Returns the cost of the function on this device, `None` if unknown.
        now: The time.
        most: Most items that fit into the device's memory.
        jobs: The first items: without deadlines, and of a function without `max_cost`.
    """

    __slots__ = ("_budget", "_due", "_known", "_line", "_most", "_now", "jobs", "late")

    def __init__(self, rule: BatchRule, known: Known, now: float, most: int, jobs: list[ScheduledJob[Any]]) -> None:
        self.jobs = jobs  # RUNNING from now on
        self.late: list[ScheduledJob[Any]] = []  # FAILED: their time is up, or they would miss their deadlines
        self._budget = CostBudget(rule, len(jobs))
        self._now = now
        self._most = most
        self._known: Known | None = known
        self._line: LinearCost | None = None
        self._due = _NEVER

    def line(self) -> LinearCost | None:
        """What calls cost; looked up at the first deadline, because most batches have none."""
        if self._known is not None:
            self._line, self._known = self._known(), None
        return self._line

    @property
    def is_full(self) -> bool:
        """No more items are allowed."""
        return self._budget.size >= self._most

    def is_in_time(self, job: ScheduledJob[Any]) -> bool:
        """Whether `job` may still begin, and would make its deadline in a batch of its own."""
        if job.options.start_within is not None and self._now >= job.start_by():
            return False
        due = job.deadline_at()
        if due == _NEVER:
            return True
        line = self.line()
        return self._now + (0.0 if line is None else line.seconds(1)) <= due

    def drop_if_late(self, job: ScheduledJob[Any]) -> bool:
        """Fail `job` if it may not begin, or would miss its deadline even in a batch of its own; whether it did."""
        if self.is_in_time(job):
            return False
        job.state = _FAILED
        self.late.append(job)
        return True

    def try_add(self, job: ScheduledJob[Any]) -> bool:
        """Add `job` if it fits and no job would miss its deadline; the first one always. Whether it was added."""
        due = min(self._due, job.deadline_at())
        if (self.jobs and self._would_miss(due)) or not self._budget.try_add(cost_of(job)):
            return False
        self._due = due
        job.state = _RUNNING  # from QUEUED: the queue hands out no other
        self.jobs.append(job)
        return True

    def _would_miss(self, due: float) -> bool:
        """Whether a call with one item more might end after `due`."""
        if due == _NEVER or (line := self.line()) is None:
            return False
        return self._now + line.seconds(self._budget.size + 1) + line.margin > due


def form_batch(
    first: ScheduledJob[Any], group: BatchGroup, known: Known, now: float, most: int
) -> tuple[list[ScheduledJob[Any]], list[ScheduledJob[Any]]]:
    """The batch of the job that is served next. Its jobs get their new states; the caller updates the counts.

    Returns:
        The jobs that share the call, RUNNING, none if all are too late; and those that are too late, FAILED.
    """
    rule = group.rule
    is_simple = rule.max_cost is None and rule.window == 1  # the usual case, and usually the run is the batch
    run = group.queue.pop_run(first, most) if is_simple else []
    for job in run:
        job.state = _RUNNING  # from QUEUED: the queue hands out no other
    if len(run) in (most, group.waiting):
        return run, []
    batch = BatchBuilder(rule, known, now, most, run)
    if not run:
        _start(batch, first, group, now, most)
    if batch.jobs and not batch.is_full:
        (_fill if rule.window == 1 else _fill_with_nearest)(batch, group)
    return batch.jobs, batch.late


def _start(batch: BatchBuilder, first: ScheduledJob[Any], group: BatchGroup, now: float, most: int) -> None:
    """Begin with the first job, or with the jobs that `choose` picks when there is no time for all deadlines.

    While there is time for all, the batch begins with the first job alone. When there is not, it begins with the job
    that lets most urgent jobs make their deadlines; those before it stay first in the queue for the next slot.
    """
    pressed: list[ScheduledJob[Any]] = []
    line = None if first.options.deadline is None else batch.line()
    if line is not None and _has_no_time(first, min(group.waiting, most), line, now):
        pressed = group.queue.pop_timed(first, 2 * most)
    if not pressed or line is None:
        if not batch.drop_if_late(first):
            batch.try_add(first)
        return
    alive = [job for job in pressed if not batch.drop_if_late(job)]
    if not alive:
        return
    at, size = choose([job.deadline_at() for job in alive], now, most, line)
    taken = 0
    while taken < size and batch.try_add(alive[at + taken]):
        taken += 1
    for job in alive[:at] + alive[at + taken :]:
        group.queue.push(job)


def _has_no_time(first: ScheduledJob[Any], size: int, line: LinearCost, now: float) -> bool:
    """Whether a batch of `size` would end after the first job's deadline."""
    return now + line.seconds(size) + line.margin > first.deadline_at()


def choose(dues: list[float], now: float, most: int, line: LinearCost) -> tuple[int, int]:
    """How many jobs to skip, and how many then to batch, so that most urgent jobs make their deadlines.

    A job is urgent if it can't wait for the call after this one. With loose deadlines none is, and none is skipped.
    In simulation (`docs/explanation/scheduling.md`) the rule reaches 92 % of the rate that is possible at all, where
    serving strictly by deadline reaches 83 % and can collapse.

    Args:
        dues: Deadlines, sorted, of jobs that can still make them.
        now: The time.
        most: Most items of a batch.
        line: What calls cost.
    """
    fixed, slope = line.fit()
    fixed_safe, alone = fixed + line.margin, fixed + slope
    best = best_at = best_size = -1
    for at in range(min(len(dues), most)):
        room = min(len(dues) - at, most)
        fits = room if slope == 0 else int((dues[at] - now - fixed_safe) / slope)
        size = min(room, max(1, fits))
        until = now + fixed_safe + slope * size + alone
        saved = bisect_left(dues, until, at, at + size) - at
        if saved > best:
            best, best_at, best_size = saved, at, size
        if size == room:  # all that is left fits: to skip more saves no more
            break
    return best_at, best_size


def _fill(batch: BatchBuilder, group: BatchGroup) -> None:
    """Add jobs strictly in order: none overtakes one that did not fit."""
    while not batch.is_full and (found := group.queue.peek()) is not None:
        mate = found[1]
        if not batch.drop_if_late(mate) and not batch.try_add(mate):
            return


def _fill_with_nearest(batch: BatchBuilder, group: BatchGroup) -> None:
    """Of the items of the next few batches take those whose costs are nearest to the first one, which always goes."""
    queue, rule = group.queue, group.rule
    window: dict[ScheduledJob[Any], None] = {}  # in order; a retried job may be in the queue twice
    while len(window) < rule.window * rule.max_size - 1 and (mate := queue.pop()) is not None:
        window[mate] = None
    own = cost_of(batch.jobs[0])
    for mate in sorted(window, key=lambda job: abs(cost_of(job) - own)):
        if batch.is_full:
            break
        if batch.is_in_time(mate) and batch.try_add(mate):
            del window[mate]
    for mate in window:
        queue.push(mate)


class CostBudget:
    """The cost of a batch while it is being filled."""

    __slots__ = ("_highest", "_sum", "rule", "size")

    def __init__(self, rule: BatchRule, size: int = 0) -> None:
        self.rule = rule
        self._highest = self._sum = 0.0  # of the items added by `try_add`
        self.size = size

    def try_add(self, cost: float) -> bool:
        """Count one more item if it fits; whether it did. The first one always does."""
        rule = self.rule
        if self.size >= rule.max_size:
            return False
        if rule.max_cost is not None:
            highest, total = max(self._highest, cost), self._sum + cost
            if self.size and (highest * (self.size + 1) if rule.padded else total) > rule.max_cost:
                return False
            self._highest, self._sum = highest, total
        self.size += 1
        return True
