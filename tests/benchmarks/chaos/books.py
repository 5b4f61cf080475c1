"""The books of a storm: how each job was begun and how it ended. On the event loop only.

They are bytes, so that they take no part in what the storm says of memory.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.chaos.calls import NUMBER
from benchmarks.chaos.received import Received
from benchmarks.chaos.values import Value
from director import events

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOST_NAMED = 5  # faults of one kind that are told one by one
_FULL = 255


class Books:
    """Accounts of all jobs, and everything that was found to be wrong.

    Args:
        notes: The file in which calls note that they have begun; `None` if they can't.
    """

    wants = (events.JobSubmitted, events.JobProgressed, events.JobEnded)

    def __init__(self, notes: Path | None) -> None:
        self.outcomes: Counter[str] = Counter()
        self.faults: list[str] = []
        self.received = Received(self.wrong)
        self.reports = 0
        self._notes = notes
        self._ends = bytearray()  # by the Director's number of the job: how often an event has told its end
        self._starts = bytearray()  # by our number of it: how often a call may have begun for it
        self._must_run = bytearray()  # whether it has an answer, so that a call has begun
        if notes is not None:
            notes.touch()

    def __call__(self, event: events.Event) -> None:
        """A hook: take note of a submission, a report or an end."""
        assert isinstance(event, events.JobEvent)
        if isinstance(event, events.JobProgressed):
            if isinstance(event.progress, Value):  # where a job can report, our number of it is its name
                self.reports += 1
                self.received.take(event.progress, int(event.name), event.progress.number)
            return
        _bump(self._ends, event.job, isinstance(event, events.JobEnded))

    def ended(self, number: int, outcome: str, starts: int, has_run: bool) -> None:
        """The caller of our job `number` knows what came of it.

        Args:
            number: Ours.
            outcome: In a word.
            starts: How often a call may have begun for it.
            has_run: Whether one must have.
        """
        self.outcomes[outcome] += 1
        _bump(self._starts, number, starts)
        _bump(self._must_run, number, has_run)

    def wrong(self, fault: str) -> None:
        """Something is not as it must be."""
        self.faults.append(fault)

    @property
    def jobs(self) -> int:
        """How many have ended."""
        return self.outcomes.total()

    def close(self) -> None:
        """Compare everything, once all is over."""
        self._tell("ended {} times, by the events", self._ends, lambda ends, _: ends != 1, first=1)
        if self._notes is None:
            return
        begun = bytearray(len(self._starts))
        for (number,) in NUMBER.iter_unpack(self._notes.read_bytes()):
            _bump(begun, number, 1)
        self._tell("begun {} times, which is too often", begun, lambda times, n: times > self._starts[n])
        self._tell("begun {} times, and has an answer", begun, lambda times, n: not times and self._must_run[n] == 1)

    def _tell(self, what: str, times: bytearray, is_wrong: Callable[[int, int], bool], first: int = 0) -> None:
        found = [number for number in range(first, len(times)) if is_wrong(times[number], number)]
        for number in found[:MOST_NAMED]:
            self.wrong(f"job {number}: {what.format(times[number])}")
        if len(found) > MOST_NAMED:
            self.wrong(f"... and {len(found) - MOST_NAMED} more such jobs")


def _bump(counts: bytearray, number: int, by: int) -> None:
    if number >= len(counts):
        counts.extend(bytes(number + 1 - len(counts)))
    counts[number] = min(_FULL, counts[number] + by)
