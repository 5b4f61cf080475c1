"""Jobs that can still be looked at: those that wait, that run, and the latest that ended. Written by the recorder.

All of it is bounded. Of very many that wait the earliest are kept, of those that ended short ones crowd out only short
ones; the rest is counted and forgotten.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director import Device

Outcome: TypeAlias = Literal["succeeded", "failed", "cancelled"]

_MOST_WAITING = 10_000
_MOST_LONG = 4_000
_MOST_SHORT = 1_000
_SHORT = 0.05  # seconds
_MOST_NAMES = 200
_MOST_CHARACTERS = 200  # of a progress
OTHERS = "(other names)"


class JobRecord:
    """What is known of one job."""

    __slots__ = (
        "attempts",
        "batch",
        "device",
        "ended",
        "error",
        "id",
        "left",
        "name",
        "outcome",
        "priority",
        "progress",
        "ran",
        "slot",
        "started",
        "submitted",
        "waited",
    )

    def __init__(self, job: int, name: str, submitted: float | None, priority: int | None) -> None:
        self.id = job
        self.name = name
        self.submitted = submitted  # None: from before anybody listened, or it was one too many to be kept
        self.priority = priority
        self.started: float | None = None
        self.ended: float | None = None
        self.device: Device | None = None
        self.slot: int | None = None
        self.waited: float | None = None
        self.ran: float | None = None
        self.batch = 1
        self.attempts = 0
        self.progress: Any = None
        self.outcome: Outcome | None = None
        self.error: int | None = None  # number of the failure
        self.left = False

    @property
    def state(self) -> str:
        """As `Job.state` has it."""
        return self.outcome or ("queued" if self.started is None else "running")

    def document(self) -> dict[str, Any]:
        """As it travels."""
        return {
            "job": self.id,
            "name": self.name,
            "state": self.state,
            "priority": self.priority,
            "device": None if self.device is None else self.device.label,
            "slot": self.slot,
            "submitted": self.submitted,
            "started": self.started,
            "ended": self.ended,
            "waited": self.waited,
            "ran": self.ran,
            "batch": self.batch,
            "attempts": self.attempts,
            "progress": as_text(self.progress),
            "call_goes_on": self.left,
            "failure": self.error,
        }


class Jobs:
    """All that is kept, by number."""

    def __init__(self) -> None:
        self.queued = 0  # kept or not
        self.waiting_by_name: dict[str, int] = {}
        self.running: dict[int, JobRecord] = {}
        self._waiting: dict[int, JobRecord] = {}
        self._long = Shelf(_MOST_LONG)
        self._short = Shelf(_MOST_SHORT)

    def submit(self, record: JobRecord) -> None:
        """It waits."""
        self.queued += 1
        self._count(record.name, 1)
        if len(self._waiting) < _MOST_WAITING:
            self._waiting[record.id] = record

    def start(self, job: int, name: str) -> JobRecord:
        """It runs."""
        record = self._leave_queue(job, name)
        self.running[job] = record
        return record

    def end(self, job: int, name: str) -> JobRecord:
        """It is over, and runs or waits no more."""
        return self.running.pop(job, None) or self._leave_queue(job, name)

    def keep(self, record: JobRecord) -> None:
        """Put away one that is over."""
        if record.progress is not None:
            record.progress = as_text(record.progress)  # the object itself may hold a lot
        is_short = record.ran is not None and record.ran < _SHORT and record.error is None
        (self._short if is_short else self._long).put(record)

    def find(self, job: int) -> JobRecord | None:
        """The one with this number, if it is kept."""
        kept = (self.running, self._waiting, self._long.records, self._short.records)
        return next((records[job] for records in kept if job in records), None)

    def waiting(self) -> Iterator[JobRecord]:
        """The kept ones that wait, in the order of their arrival."""
        return iter(self._waiting.values())

    def ended(self, count: int) -> list[JobRecord]:
        """The latest that are over, newest first; at most so many of the long and of the short ones."""
        latest = [*self._long.latest(count), *self._short.latest(count)]
        return sorted(latest, key=lambda record: record.ended or 0.0, reverse=True)[:count]

    def _leave_queue(self, job: int, name: str) -> JobRecord:
        if self.queued:
            self.queued -= 1
            self._count(name, -1)
        return self._waiting.pop(job, None) or JobRecord(job, name, None, None)

    def _count(self, name: str, change: int) -> None:
        names = self.waiting_by_name
        if name not in names and (change < 0 or len(names) >= _MOST_NAMES):
            name = OTHERS
        left = names.get(name, 0) + change
        if left > 0:
            names[name] = left
        else:
            names.pop(name, None)


class Shelf:
    """The latest records of one kind.

    Args:
        length: Most that are kept.
    """

    def __init__(self, length: int) -> None:
        self.records: dict[int, JobRecord] = {}
        self._order: deque[JobRecord] = deque()
        self._length = length

    def put(self, record: JobRecord) -> None:
        """Keep `record`, at the cost of the oldest."""
        if len(self._order) >= self._length:
            oldest = self._order.popleft()
            if self.records.get(oldest.id) is oldest:
                del self.records[oldest.id]
        self._order.append(record)
        self.records[record.id] = record

    def latest(self, count: int) -> Iterator[JobRecord]:
        """The latest, newest first."""
        return islice(reversed(self._order), count)


def as_text(progress: Any) -> float | str | None:
    """What a viewer shows of a reported progress: a number as it is, anything else as text."""
    if progress is None:
        return None
    if isinstance(progress, (int, float)) and not isinstance(progress, bool) and abs(progress) < 1e15:
        return float(progress)
    try:
        text = progress if isinstance(progress, str) else repr(progress)
    except Exception as error:  # noqa: BLE001 - a user's own __repr__
        text = f"<repr() raised {type(error).__name__}>"
    return text[:_MOST_CHARACTERS]
