"""How calls of one function share a batch. Frozen; its identity is the function's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from director._keys import Interner

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class BatchRule:
    """What `Director.function` was told about batches.

    Args:
        name: The function's, for people.
        max_size: Most items in one call.
        max_wait: Seconds, counted from the oldest item, that a batch may wait to become fuller while a slot is free.
        key: Only items with equal keys share a batch; `None` puts all together.
        cost: Cost of one item (tokens, pixels); `None` counts nothing.
        max_cost: Most cost in one call; an item that exceeds it runs alone.
        padded: The cost of a batch is that of its dearest item times its size, as for padded tensors; else the sum.
        window: Look at the next `window` full batches' worth of items and take those whose cost is nearest to the
            first one's, which always goes.
        isolate_failures: A batch that raises is run again item by item.
        interner: Makes keys of our own of what `key` returns.
    """

    name: str
    max_size: int = 1
    max_wait: float = 0.0
    key: Callable[[Any], Hashable] | None = None
    cost: Callable[[Any], float] | None = None
    max_cost: float | None = None
    padded: bool = False
    window: int = 1
    isolate_failures: bool = False
    interner: Interner = field(default_factory=Interner)


class Basket:
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
