"""When a run will be over."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from director.cli._run.progress.tally import Tally

    Running: TypeAlias = Callable[[], Iterable[tuple[float, int]]]

_SPAN = 60.0  # s: long enough for a steady rate, short enough to follow changes
_MOST = 0.95  # of an item that still runs


class _Sample(NamedTuple):
    """Items and bytes that were done at a time; of those that ran the shares that were."""

    time: float
    items: float
    size: float


class Eta:
    """Estimates the rest of a run from its rate of the last minute.

    What is done and what is left is weighed by how long calls take: by the item and, as far as larger ones take
    longer and all sizes are known, by the byte. Calls that run count as parts of items, by their age: else items of
    minutes would have no rate between two ends. Items that an earlier run has done are no part of the rate.

    Args:
        running: Of each call that runs, for how many seconds, and the bytes of its item.
    """

    def __init__(self, running: Running = tuple) -> None:
        self._running = running
        self._samples: deque[_Sample] = deque()

    def sample(self, now: float, tally: Tally) -> None:
        """Take a sample at `now`, by a clock that is never set back."""
        each, byte = tally.cost.line()
        items, size = float(tally.done), float(tally.bytes_done)
        for age, bytes_of_item in self._running():
            if (expected := each + byte * bytes_of_item) > 0.0:
                share = min(_MOST, age / expected)
                items += share
                size += share * bytes_of_item
        self._samples.append(_Sample(now, items, size))
        while len(self._samples) > 2 and now - self._samples[1].time >= _SPAN:
            self._samples.popleft()

    def read(self, tally: Tally) -> float | None:
        """Seconds until all is done; `None` while the number of items or the rate is not known."""
        to_do, bytes_to_do = tally.to_do, tally.bytes_to_do
        if to_do is None or len(self._samples) < 2 or not tally.done:
            return None
        first, last = self._samples[0], self._samples[-1]
        each, byte = (1.0, 0.0) if bytes_to_do is None else tally.cost.line()
        if byte == 0.0:
            each = 1.0  # all items weigh the same
        done = each * (last.items - first.items) + byte * (last.size - first.size)
        left = each * (to_do - last.items) + byte * ((bytes_to_do or 0) - last.size)
        if last.time <= first.time or done <= 0.0:
            return None
        return max(0.0, left) * (last.time - first.time) / done
