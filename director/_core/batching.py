"""Which jobs share a batch, decided at the moment a slot takes it. Called under `dispatch`'s lock.

The first job is the one whose turn it is. Its mates follow in the order of service of its group, as long as there is
room, their cost fits, and no deadline in the batch is endangered by one more.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from director._core.batch_rule import Basket

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._core.costs import CostLine
    from director._core.group import Group
    from director._core.job import Job


class Batch:
    """A batch that is being filled.

    Args:
        first: The job whose turn it is.
        line: What calls of its function cost on this device, if that is known.
        now: The moment.
        most: Most items that fit into the device's memory.
    """

    __slots__ = ("_basket", "_due", "_fixed", "_margin", "_most", "_now", "_slope", "jobs")

    def __init__(self, first: Job[Any], line: CostLine | None, now: float, most: int) -> None:
        assert first._options.batch is not None
        self.jobs = [first]
        self._basket = Basket(first._options.batch, cost_of(first))
        self._now = now
        self._most = most
        self._fixed, self._slope = (0.0, 0.0) if line is None else line.fit()
        self._margin = 0.0 if line is None else line.margin
        self._due = first._deadline_at()

    @property
    def is_full(self) -> bool:
        """No more items are allowed."""
        return self._basket.size >= self._most

    def is_too_late_for(self, job: Job[Any]) -> bool:
        """Whether `job` would miss its deadline even alone."""
        return self._now + self._fixed + self._slope > job._deadline_at()

    def takes(self, job: Job[Any]) -> bool:
        """Add `job` if it fits and endangers nobody's deadline."""
        due = min(self._due, job._deadline_at())
        if self._now + self._fixed + self._margin + self._slope * (self._basket.size + 1) > due:
            return False
        if not self._basket.takes(cost_of(job)):
            return False
        self._due = due
        self.jobs.append(job)
        return True


def start(
    first: Job[Any],
    group: Group,
    line: CostLine | None,
    now: float,
    most: int,
    leave: Callable[[Job[Any], bool], None],
) -> Batch | None:
    """The batch of the job whose turn it is, with those that deadlines force upon it; `fill` adds the others.

    While there is time for all, that is the job alone. When there is not, the batch begins with the job that lets most
    of those be saved who can't wait for another call; the ones before it stay, first in line for the next slot.

    Args:
        first: The job whose turn it is; its group's line still has it.
        group: Where it waits.
        line: What calls of this function cost here, if it is known.
        now: The moment.
        most: Most items that the batch may have.
        leave: Called with each job that leaves the group, and whether it runs: not if it would miss its deadline.

    Returns:
        `None` if nobody of them can be served in time.
    """
    pressed: list[Job[Any]] = []
    if line is not None and _has_no_time(first, min(group.live, most), line, now):
        pressed = group.line.pop_timed(first, 2 * most)
    if not pressed or line is None:
        batch = Batch(first, line, now, most)
        if batch.is_too_late_for(first):
            leave(first, False)
            return None
        leave(first, True)
        return batch
    return _start_pressed(pressed, group, line, now, most, leave)


def _has_no_time(first: Job[Any], size: int, line: CostLine, now: float) -> bool:
    """Whether so many can't all be served together before the first one's deadline."""
    return now + line.seconds(size) + line.margin > first._deadline_at()


def _start_pressed(
    pressed: list[Job[Any]],
    group: Group,
    line: CostLine,
    now: float,
    most: int,
    leave: Callable[[Job[Any], bool], None],
) -> Batch | None:
    alive = [job for job in pressed if now + line.seconds(1) <= job._deadline_at()]
    for job in pressed:
        if now + line.seconds(1) > job._deadline_at():
            leave(job, False)
    if not alive:
        return None
    at, size = choose([job._deadline_at() for job in alive], now, most, line)
    batch = Batch(alive[at], line, now, most)
    leave(alive[at], True)
    taken = 1
    while taken < size and batch.takes(alive[at + taken]):
        leave(alive[at + taken], True)
        taken += 1
    for job in alive[:at] + alive[at + taken :]:
        group.line.push(job)
    return batch


def choose(dues: list[float], now: float, most: int, line: CostLine) -> tuple[int, int]:
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


def fill(batch: Batch, group: Group, leave: Callable[[Job[Any], bool], None]) -> None:
    """Add mates from the group of its first job.

    Args:
        batch: With its first job.
        group: Where the mates wait.
        leave: Called with each job that leaves the group, and whether it runs: not if it would miss its deadline.
    """
    if group.rule.window > 1:
        _fill_with_nearest(batch, group, leave)
        return
    while not batch.is_full and (found := group.line.front(0.0)) is not None:
        mate = found[1]
        if batch.is_too_late_for(mate):
            leave(mate, False)
        elif batch.takes(mate):
            leave(mate, True)
        else:
            return  # strictly in order: nobody overtakes one that did not fit


def _fill_with_nearest(batch: Batch, group: Group, leave: Callable[[Job[Any], bool], None]) -> None:
    """Of the next few batches' worth of items take those most like the first one, which nobody can overtake."""
    line, rule = group.line, group.rule
    ahead: list[Job[Any]] = []
    while len(ahead) < rule.window * rule.max_size - 1 and (mate := line.pop(0.0)) is not None:
        ahead.append(mate)
    own = cost_of(batch.jobs[0])
    taken: set[Job[Any]] = set()
    for mate in sorted(ahead, key=lambda job: abs(cost_of(job) - own)):
        if not batch.is_full and not batch.is_too_late_for(mate) and batch.takes(mate):
            taken.add(mate)
            leave(mate, True)
    for mate in ahead:
        if mate not in taken:
            line.push(mate)


def cost_of(job: Job[Any]) -> float:
    """What its function's `batch_cost` said of it."""
    return 0.0 if job._extra is None else job._extra.cost
