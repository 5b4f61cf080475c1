"""Jobs that can still be looked at: those that wait, that run, and the latest that ended. Written by the recorder.

All of it is bounded. Of very many that wait the earliest are kept, of those that ended short ones crowd out only short
ones; the rest is counted and forgotten.
"""

from __future__ import annotations

from collections import deque
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable

    from director import Device

Outcome: TypeAlias = Literal["succeeded", "failed", "cancelled"]

_MOST_WAITING = 10_000
_MOST_LONG = 4_000
_MOST_SHORT = 1_000
_SHORT = 0.05  # seconds
_MOST_CHARACTERS = 200  # of a progress


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
        "tenant",
        "waited",
    )

    def __init__(
        self,
        job: int,
        name: str,
        submitted: float | None = None,
        priority: int | None = None,
        tenant: Hashable = None,
    ) -> None:
        self.id = job
        self.name = name
        self.submitted = submitted  # None, as the next two: it was one too many to be kept while it waited
        self.priority = priority
        self.tenant = tenant
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
            "tenant": as_text(self.tenant),
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
        self.running: dict[int, JobRecord] = {}  # in the order of their starts
        self.waiting: dict[int, JobRecord] = {}  # the earliest, in the order of their arrival
        self._long: deque[JobRecord] = deque(maxlen=_MOST_LONG)
        self._short: deque[JobRecord] = deque(maxlen=_MOST_SHORT)

    def submit(self, record: JobRecord) -> None:
        """It waits."""
        self.queued += 1
        if len(self.waiting) < _MOST_WAITING:
            self.waiting[record.id] = record

    def start(self, job: int, name: str) -> JobRecord:
        """It runs."""
        record = self._leave_queue(job, name)
        self.running[job] = record
        return record

    def retry(self, job: int, name: str) -> JobRecord:
        """It has failed, and waits again; returns what was known of the try."""
        record = self.end(job, name)
        again = JobRecord(job, name, record.submitted, record.priority, record.tenant)
        again.attempts = record.attempts
        self.submit(again)
        return record

    def end(self, job: int, name: str) -> JobRecord:
        """It is over, and runs or waits no more."""
        return self.running.pop(job, None) or self._leave_queue(job, name)

    def keep(self, record: JobRecord) -> None:
        """Put away one that is over."""
        if record.progress is not None:
            record.progress = as_text(record.progress)  # the object itself may hold a lot
        is_short = record.ran is not None and record.ran < _SHORT and record.error is None
        (self._short if is_short else self._long).append(record)

    def find(self, job: int) -> JobRecord | None:
        """The one with this number, if it is kept."""
        going_on = self.running.get(job) or self.waiting.get(job)
        ended = chain(reversed(self._long), reversed(self._short))
        return going_on or next((record for record in ended if record.id == job), None)

    def ended(self, count: int) -> list[JobRecord]:
        """The latest that are over, newest first."""
        latest = chain(islice(reversed(self._long), count), islice(reversed(self._short), count))
        return sorted(latest, key=lambda record: record.ended or 0.0, reverse=True)[:count]

    def _leave_queue(self, job: int, name: str) -> JobRecord:
        if self.queued:
            self.queued -= 1
        return self.waiting.pop(job, None) or JobRecord(job, name)


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
