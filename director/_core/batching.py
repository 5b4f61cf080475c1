"""Which jobs share a batch, decided at the moment a slot takes it. Called under `dispatch`'s lock.

The first job is the one whose turn it is. Its mates follow in the order of service of its group, as long as there is
room, their cost fits, and no deadline in the batch is endangered by one more.
"""

from __future__ import annotations

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
    """

    __slots__ = ("_basket", "_due", "_fixed", "_now", "_slope", "jobs")

    def __init__(self, first: Job[Any], line: CostLine | None, now: float) -> None:
        assert first._options.batch is not None
        self.jobs = [first]
        self._basket = Basket(first._options.batch, cost_of(first))
        self._now = now
        self._fixed, self._slope = (0.0, 0.0) if line is None else line.fit()
        self._due = first._deadline_at()

    @property
    def is_full(self) -> bool:
        """No more items are allowed."""
        return self._basket.size >= self._basket.rule.max_size

    def is_too_late_for(self, job: Job[Any]) -> bool:
        """Whether `job` would miss its deadline even alone."""
        return self._now + self._fixed + self._slope > job._deadline_at()

    def takes(self, job: Job[Any]) -> bool:
        """Add `job` if it fits and endangers nobody's deadline."""
        due = min(self._due, job._deadline_at())
        if self._now + self._fixed + self._slope * (self._basket.size + 1) > due:
            return False
        if not self._basket.takes(cost_of(job)):
            return False
        self._due = due
        self.jobs.append(job)
        return True


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
    for mate in reversed(ahead):
        if mate not in taken:
            line.push(mate, first=True)


def cost_of(job: Job[Any]) -> float:
    """What its function's `batch_cost` said of it."""
    return 0.0 if job._extra is None else job._extra.cost
