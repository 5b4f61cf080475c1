"""A lane: waiting jobs that the same slots can serve, single ones and groups that share batches.

Guarded by `dispatch`'s lock. `live` and `calls` are recounted from the groups at each change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._core.group import Group
from director._core.line import Line

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from director._core.batch_rule import BatchRule
    from director._core.job import Job
    from director._core.line import Home
    from director._core.tenants import Tenants
    from director._options import LaneKey


class Lane:
    """Jobs with the same allowed slots and the same model.

    Args:
        key: Allowed slots and model; `None` for any slot and no model.
        tenants: Tell what each has used.
        spent: Takes what is passed over.
        aged: Seconds of waiting that put a job before all others, or `None`.
    """

    __slots__ = ("_groups", "_spent", "_tenants", "allowed", "calls", "key", "line", "live", "model")

    upper: Home | None = None

    def __init__(self, key: LaneKey, tenants: Tenants, spent: list[Any], aged: float | None) -> None:
        self.key = key
        self.allowed, self.model = key if key is not None else (None, None)
        self.live = 0  # jobs that a slot may take
        self.calls = 0  # calls that these would make, if every batch were full
        self.line = Line(self, tenants, spent, aged)
        self._tenants = tenants
        self._spent = spent
        self._groups: dict[tuple[BatchRule, Hashable], Group] = {}

    def push(self, job: Job[Any]) -> Group | None:
        """Add a job; returns the group in which it waits, if it can share a batch."""
        rule = job._options.batch
        if rule is None:
            job._where = self
            self.line.push(job)
            self.grow(1, 1)
            return None
        assert job._extra is not None
        key = (rule, job._extra.key)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(self, rule, key, self._tenants, self._spent)
        group.push(job)
        return group

    def left(self, job: Job[Any]) -> None:
        """A single job, QUEUED until now, waits here no more."""
        self.grow(-1, -1)

    def grow(self, jobs: int, calls: int) -> None:
        """So many more can be taken, or fewer."""
        self.live += jobs
        self.calls += calls
        if not self.live:  # nothing but what has left: let go of it
            self.line.clear()
        elif jobs < 0:
            self.line.tidy(self.live)

    def dissolve(self, group: Group) -> None:
        """A group is empty."""
        del self._groups[group.key]
        self._spent.append(group)

    def held(self) -> list[Group]:
        """Groups that are held."""
        return [group for group in self._groups.values() if group.upper is None]

    @property
    def is_empty(self) -> bool:
        """Nothing waits here."""
        return not self.live and not self._groups

    def __iter__(self) -> Iterator[Job[Any]]:
        yield from self.line
        for group in self._groups.values():
            if group.upper is None:
                yield from group.line

    def __repr__(self) -> str:
        return f"<Lane {self.key} {self.live} waiting>"
