"""The counts of one run. Only the flow writes them, on the event loop; views and the summary read."""

from __future__ import annotations

from collections import Counter
from dataclasses import InitVar, dataclass, field

from director.cli._run.records import type_name


@dataclass(slots=True)
class Lane:
    """What one device did.

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
    """What became of the items so far.

    Args:
        slots: Of each device, by its label, in their order.
        total: How many items there are; `None` while unknown.
    """

    slots: InitVar[dict[str, int]]
    total: int | None = None
    taken: int = 0
    succeeded: int = 0
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    lanes: dict[str, Lane] = field(init=False)

    def __post_init__(self, slots: dict[str, int]) -> None:
        self.lanes = {device: Lane(number) for device, number in slots.items()}

    @property
    def done(self) -> int:
        """Items with a record."""
        return self.succeeded + self.failed

    @property
    def left(self) -> int:
        """Items without a record; of an input that nobody counted, those that were taken."""
        return (self.taken if self.total is None else self.total) - self.done

    def know(self, device: str, slots: int) -> None:
        """A device has come that was not there at the start."""
        self.lanes[device] = Lane(slots)

    def count(self, error: BaseException | None, device: str | None, seconds: float | None) -> None:
        """One more item has an outcome."""
        if error is None:
            self.succeeded += 1
        else:
            self.failed += 1
            self.errors[type_name(error)] += 1
        if device is not None:
            lane = self.lanes[device]
            lane.items += 1
            lane.seconds += seconds or 0.0
