"""How one Director admits jobs and in which order it serves them. Frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from director._scheduler.memory.limits import UNLIMITED, MemoryLimit

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping


@dataclass(frozen=True, slots=True)
class SchedulingPolicy:
    """The bounds and the order of service of one Director.

    Args:
        max_queue: Most jobs that may wait; `None` for no bound.
        max_queue_per_tenant: The same for each tenant, or for those that are named.
        weights: Shares of the tenants in device time; 1 for those that are not named.
        predict: Refuse jobs at submission that would miss their deadlines.
        ageing: Seconds after which a waiting job is served before all that came later, whatever their priority.
        memory: What replicas and jobs may take of each device.
    """

    max_queue: int | None = None
    max_queue_per_tenant: int | Mapping[Hashable, int] | None = None
    weights: Mapping[Hashable, float] = field(default_factory=dict)
    predict: bool = False
    ageing: float | None = None
    memory: MemoryLimit = UNLIMITED

    def bound_of(self, account: Hashable) -> int | None:
        """Most jobs of one tenant that wait; `None` for no bound. Jobs without a tenant have none of their own."""
        bound = self.max_queue_per_tenant
        if account is None or bound is None or isinstance(bound, int):
            return None if account is None else bound  # type: ignore[return-value]  # an int or None
        return bound.get(account)
