"""Counts of a run: of its items, its devices, and how long the calls took."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import InitVar, dataclass, field

from director.cli._run.journal.pending import Counts
from director.cli._run.output.records import type_name

_ENOUGH = 10  # calls before their sizes mean anything
_STEPS = 20  # of the histogram, for a factor of e: 5 % exact


class Times:
    """How long calls took, as a histogram: of constant size, and 5 % exact."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """One more call has ended."""
        step = int(math.log(seconds) * _STEPS) if seconds > 1e-9 else -1000
        self._counts[step] = self._counts.get(step, 0) + 1

    def quantile(self, share: float) -> float:
        """The time that `share` of the calls did not exceed; 0 if there is none."""
        rest = math.ceil(share * sum(self._counts.values()))
        for step in sorted(self._counts):
            rest -= self._counts[step]
            if rest <= 0:
                return math.exp((step + (0.5 if step > 0 else -0.5)) / _STEPS)
        return 0.0


class Cost:
    """How long a call takes by the size of its item: a line through all calls so far, by least squares."""

    def __init__(self) -> None:
        self._calls = 0
        self._sizes = self._squares = self._products = self._seconds = 0.0

    def add(self, size: int, seconds: float) -> None:
        """One more call has ended."""
        self._calls += 1
        self._sizes += size
        self._squares += size * size
        self._products += size * seconds
        self._seconds += seconds

    def line(self) -> tuple[float, float]:
        """Seconds of each call, and of each byte, both at least 0; the second is 0 where size makes no difference."""
        calls, sizes, seconds = self._calls, self._sizes, self._seconds
        mean = seconds / calls if calls else 0.0
        spread = calls * self._squares - sizes * sizes
        if calls < _ENOUGH or spread <= 1e-6 * calls * self._squares:
            return mean, 0.0
        slope = (calls * self._products - sizes * seconds) / spread
        if slope <= 0.0:
            return mean, 0.0
        base = (seconds - slope * sizes) / calls
        return (base, slope) if base >= 0.0 else (0.0, seconds / sizes)


@dataclass(slots=True)
class Lane:
    """The items of one device.

    Args:
        slots: How many items it runs at once.
        items: Calls that ended on it, with a result or an error.
        seconds: How long they ran, summed over its slots.
    """

    slots: int
    items: int = 0
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        """Mean seconds of an item; 0 before the first."""
        return self.seconds / self.items if self.items else 0.0


@dataclass(slots=True)
class Tally:
    """Counts of the items so far.

    Args:
        slots: Of each device, by its label, in their order.
        total: How many items the input has; `None` while unknown.
        total_bytes: Of all items of the input; `None` while unknown.
        counts: What becomes of them, by the thread that reads them.
    """

    slots: InitVar[dict[str, int]]
    total: int | None = None
    total_bytes: int | None = None
    counts: Counts = field(default_factory=Counts)
    taken: int = 0
    succeeded: int = 0
    failed: int = 0
    bytes_done: int = 0
    """Of the items with a record."""
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    """The key of the first item that failed with an error, by its name."""
    times: Times = field(default_factory=Times)
    cost: Cost = field(default_factory=Cost)
    lanes: dict[str, Lane] = field(init=False)

    def __post_init__(self, slots: dict[str, int]) -> None:
        self.lanes = {device: Lane(number) for device, number in slots.items()}

    @property
    def done(self) -> int:
        """Items with a record."""
        return self.succeeded + self.failed

    @property
    def to_do(self) -> int | None:
        """Items that this run is about; `None` while unknown."""
        return None if self.total is None else max(self.total - self.counts.left_out, self.taken)

    @property
    def left(self) -> int:
        """Items without a record; if the input was not counted, only those that were read."""
        to_do = self.to_do
        return (self.taken if to_do is None else to_do) - self.done

    @property
    def bytes_to_do(self) -> int | None:
        """Bytes of the items that this run is about; `None` while unknown."""
        return None if self.total_bytes is None else max(self.total_bytes - self.counts.bytes_left_out, self.bytes_done)

    def know_taken(self) -> None:
        """The input has ended: what was taken is all there is."""
        self.total = self.taken + self.counts.left_out

    def add_device(self, device: str, slots: int) -> None:
        """Add a device that has joined."""
        self.lanes[device] = Lane(slots)

    def count(
        self, error: BaseException | None, device: str | None, seconds: float | None, key: str = "", size: int = 0
    ) -> None:
        """One more item, of `size` bytes, has an outcome."""
        self.bytes_done += size
        if error is None:
            self.succeeded += 1
        else:
            self.failed += 1
            name = type_name(error)
            self.errors[name] += 1
            self.examples.setdefault(name, key)
        if device is not None:
            lane = self.lanes[device]
            lane.items += 1
            if seconds is not None:
                lane.seconds += seconds
                self.times.add(seconds)
                self.cost.add(size, seconds)

    def take_back(self, size: int, *, is_failed: bool) -> None:
        """The record of an item was not written."""
        self.bytes_done -= size
        if is_failed:
            self.failed -= 1
        else:
            self.succeeded -= 1
