"""Where a seat that can have calls ready gets them from. For the slot's own thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director._core.dispatch import Dispatch
    from director._core.job import Job
    from director._core.slot import Slot


class Supply:
    """Jobs for one slot ahead of their turn; the shift gets them from `Dispatch.take` in the same order.

    Args:
        slot: Whose.
        dispatch: Decides.
    """

    __slots__ = ("_ahead", "_dispatch", "_slot")

    def __init__(self, slot: Slot, dispatch: Dispatch) -> None:
        self._slot = slot
        self._dispatch = dispatch
        self._ahead = dispatch.ahead

    @property
    def is_scarce(self) -> bool:
        """Whether there is none, by a look without the lock: what it misses is there at the next one."""
        return self._ahead.is_scarce

    def take(self) -> Job[Any] | None:
        """One more, if there are enough."""
        return self._dispatch.take_ahead(self._slot)

    def give_back(self, jobs: Iterable[Job[Any]]) -> None:
        """Jobs that have not begun may go elsewhere."""
        ring = self._dispatch.give_back(self._slot, jobs)
        if ring is not None:
            ring()
