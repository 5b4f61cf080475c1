"""Which jobs share a batch, decided at the moment a slot takes it. Called under `scheduler`'s lock.

The first job is the one whose turn it is. Its mates follow in the order of service of its group, as long as there is
room, their cost fits, and no deadline in the batch is endangered by one more.
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
        known: Tells what calls of its function cost on this device, if that is known.
        now: The moment.
        most: Most items that fit into the device's memory.
        jobs: Those that it has already: without deadlines, and of a function whose costs nobody counts.
    """

    __slots__ = ("_basket", "_due", "_known", "_line", "_most", "_now", "jobs", "late")

    def __init__(self, rule: BatchRule, known: Known, now: float, most: int, jobs: list[ScheduledJob[Any]]) -> None:
        self.jobs = jobs  # RUNNING from now on
        self.late: list[ScheduledJob[Any]] = []  # FAILED: they would miss their deadlines
        self._basket = CostBudget(rule, len(jobs))
        self._now = now
        self._most = most
        self._known: Known | None = known
        self._line: LinearCost | None = None
        self._due = _NEVER

    def line(self) -> LinearCost | None:
        """What calls cost; asked for at the first deadline, for most batches have none."""
        if self._known is not None:
            self._line, self._known = self._known(), None
        return self._line

    @property
    def is_full(self) -> bool:
        """No more items are allowed."""
        return self._basket.size >= self._most

    def is_in_time(self, job: ScheduledJob[Any]) -> bool:
        """Whether `job` would make its deadline, at least alone."""
        due = job.deadline_at()
        if due == _NEVER:
            return True
        line = self.line()
        return self._now + (0.0 if line is None else line.seconds(1)) <= due

    def drops(self, job: ScheduledJob[Any]) -> bool:
        """Whether `job` would miss its deadline even alone; if so it is over."""
        if self.is_in_time(job):
            return False
        job.state = _FAILED
        self.late.append(job)
        return True

    def takes(self, job: ScheduledJob[Any]) -> bool:
        """Add `job` if it fits and endangers nobody's deadline; the first one always."""
        due = min(self._due, job.deadline_at())
        if (self.jobs and self._would_miss(due)) or not self._basket.takes(cost_of(job)):
            return False
        self._due = due
        job.state = _RUNNING  # from QUEUED: who stands in a line and waits
        self.jobs.append(job)
        return True

    def _would_miss(self, due: float) -> bool:
        """Whether a call with one item more might end after that moment."""
        if due == _NEVER or (line := self.line()) is None:
            return False
        return self._now + line.seconds(self._basket.size + 1) + line.margin > due


def form_batch(
    first: ScheduledJob[Any], group: BatchGroup, known: Known, now: float, most: int
) -> tuple[list[ScheduledJob[Any]], list[ScheduledJob[Any]]]:
    """The batch of the job whose turn it is. Who leaves the group has its new state; the counts are yet to be told.

    Args:
        first: The job whose turn it is; its group's line still has it.
        group: Where it waits.
        known: Tells what calls of this function cost here, if that is known.
        now: The moment.
        most: Most items that the batch may have.

    Returns:
        The jobs that share the call, none if nobody could be served in time, and those who are too late.
    """
    rule = group.rule
    is_simple = rule.max_cost is None and rule.window == 1  # nearly always, and most often the run is all
    run = group.line.pop_run(first, most) if is_simple else []
    for job in run:
        job.state = _RUNNING  # from QUEUED: the line hands out no other
    if len(run) in (most, group.live):
        return run, []
    batch = BatchBuilder(rule, known, now, most, run)
    if not run:
        _start(batch, first, group, now, most)
    if batch.jobs and not batch.is_full:
        (_fill if rule.window == 1 else _fill_with_nearest)(batch, group)
    return batch.jobs, batch.late


def _start(batch: BatchBuilder, first: ScheduledJob[Any], group: BatchGroup, now: float, most: int) -> None:
    """Begin with the job whose turn it is, and those that deadlines force upon it.

    While there is time for all, that is the job alone. When there is not, the batch begins with the job that lets most
    of those be saved who can't wait for another call; the ones before it stay, first in line for the next slot.
    """
    pressed: list[ScheduledJob[Any]] = []
    line = None if first.options.deadline is None else batch.line()
    if line is not None and _has_no_time(first, min(group.live, most), line, now):
        pressed = group.line.pop_timed(first, 2 * most)
    if not pressed or line is None:
        if not batch.drops(first):
            batch.takes(first)
        return
    alive = [job for job in pressed if not batch.drops(job)]
    if not alive:
        return
    at, size = choose([job.deadline_at() for job in alive], now, most, line)
    taken = 0
    while taken < size and batch.takes(alive[at + taken]):
        taken += 1
    for job in alive[:at] + alive[at + taken :]:
        group.line.push(job)


def _has_no_time(first: ScheduledJob[Any], size: int, line: LinearCost, now: float) -> bool:
    """Whether so many can't all be served together before the first one's deadline."""
    return now + line.seconds(size) + line.margin > first.deadline_at()


def choose(dues: list[float], now: float, most: int, line: LinearCost) -> tuple[int, int]:
    """How many jobs to leave out, and how many then go together, so that most of the pressing ones are saved.

    Pressing is who can't wait for another call after this one. With loose deadlines nobody is, and nobody is left out.
    In simulation (`docs/explanation/scheduling.md`) the rule reaches 92 % of the rate that is possible at all, where
    serving strictly by deadline reaches 83 % and can collapse.

    Args:
        dues: Moments, sorted, of jobs that can still make it.
        now: The moment.
        most: Most that may go together.
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
        if size == room:  # everything that is left fits: a later start saves no more
            break
    return best_at, best_size


def _fill(batch: BatchBuilder, group: BatchGroup) -> None:
    """Add mates strictly in order: nobody overtakes one that did not fit."""
    while not batch.is_full and (found := group.line.peek()) is not None:
        mate = found[1]
        if not batch.drops(mate) and not batch.takes(mate):
            return


def _fill_with_nearest(batch: BatchBuilder, group: BatchGroup) -> None:
    """Of the next few batches' worth of items take those most like the first one, which nobody can overtake."""
    line, rule = group.line, group.rule
    ahead: dict[ScheduledJob[Any], None] = {}  # in order; one that is tried again may stand there twice
    while len(ahead) < rule.window * rule.max_size - 1 and (mate := line.pop()) is not None:
        ahead[mate] = None
    own = cost_of(batch.jobs[0])
    for mate in sorted(ahead, key=lambda job: abs(cost_of(job) - own)):
        if batch.is_full:
            break
        if batch.is_in_time(mate) and batch.takes(mate):
            del ahead[mate]
    for mate in ahead:
        line.push(mate)


class CostBudget:
    """The cost of a batch while it is being filled."""

    __slots__ = ("_dearest", "_sum", "rule", "size")

    def __init__(self, rule: BatchRule, size: int = 0) -> None:
        self.rule = rule
        self._dearest = self._sum = 0.0  # of those whose costs are counted
        self.size = size

    def takes(self, cost: float) -> bool:
        """Whether one more item of that cost fits; if so it is counted. The first one always does."""
        rule = self.rule
        if self.size >= rule.max_size:
            return False
        if rule.max_cost is not None:
            dearest, total = max(self._dearest, cost), self._sum + cost
            if self.size and (dearest * (self.size + 1) if rule.padded else total) > rule.max_cost:
                return False
            self._dearest, self._sum = dearest, total
        self.size += 1
        return True
