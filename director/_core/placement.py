"""Which device: most free slots first, ties in rotation. Guarded by `dispatch`'s lock; decides, and wakes nobody.

Places stand in buckets by their number of free slots; one that changes goes to the end of its new bucket, so the head
of a bucket is the one that has rested longest, and the pick is O(1) however many devices there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from director._core.states import SlotState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director._core.slot import Place, Slot

_NOWHERE: frozenset[int] = frozenset()


class FreeSlots:
    """The slots that could take a job now: idle ones without a worker, and parked ones whose worker waits.

    Args:
        places: All devices of a Director, every slot idle.
    """

    __slots__ = ("_buckets", "_top", "idle", "parked")

    def __init__(self, places: list[Place]) -> None:
        self._buckets: list[dict[Place, None]] = [{} for _ in range(1 + max(len(p.slots) for p in places))]
        for place in places:
            self._buckets[place.free][place] = None
        self._top = len(self._buckets) - 1
        self.idle = sum(place.free for place in places)
        self.parked = 0

    def park(self, slot: Slot) -> None:
        """A worker found nothing to do and waits."""
        self._add(slot, slot.place.parked)
        self.parked += 1

    def rest(self, slot: Slot) -> None:
        """A worker was reaped; the slot is without one."""
        self._add(slot, slot.place.idle)
        self.idle += 1

    def claim(self, slot: Slot) -> None:
        """The slot is free no more: somebody brings it work, or its worker leaves."""
        place = slot.place
        del self._buckets[place.free][place]
        if slot.state is SlotState.PARKED:
            place.parked.remove(slot)
            self.parked -= 1
        else:
            place.idle.remove(slot)
            self.idle -= 1
        self._buckets[place.free][place] = None

    def pick(
        self,
        allowed: frozenset[int] | None = None,
        warm: frozenset[int] = _NOWHERE,
        only: SlotState | None = None,
    ) -> Slot | None:
        """The free slot that the next job of a lane should go to, or `None`.

        Args:
            allowed: Numbers of the slots that may run it; `None` for all.
            warm: Numbers of the slots on which its model is loaded: preferred whatever their load.
            only: `PARKED` or `IDLE`: consider no others.
        """
        cold = None
        for place in self._most_free_first():
            for slot in self._of(place, only):
                if allowed is not None and slot.number not in allowed:
                    continue
                if not warm or slot.number in warm:
                    return slot
                cold = cold or slot
        return cold

    def _most_free_first(self) -> Iterator[Place]:
        while self._top and not self._buckets[self._top]:
            self._top -= 1
        for bucket in reversed(self._buckets[1 : self._top + 1]):
            yield from bucket

    @staticmethod
    def _of(place: Place, only: SlotState | None) -> Iterator[Slot]:
        """Free slots of a place, those whose worker is awake first."""
        if only is not SlotState.IDLE:
            yield from reversed(place.parked)
        if only is not SlotState.PARKED:
            yield from reversed(place.idle)

    def _add(self, slot: Slot, to: list[Slot]) -> None:
        place = slot.place
        del self._buckets[place.free][place]
        to.append(slot)
        self._buckets[place.free][place] = None
        self._top = max(self._top, place.free)
