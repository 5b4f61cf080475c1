"""Jobs that have ended, the latest of them. Short jobs only replace other short jobs.

Written by the recorder alone; bounded.
"""

from __future__ import annotations

from collections import deque
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from director._format import known_repr
from director._untrusted.objects import is_a

if TYPE_CHECKING:
    from director import Device
    from director.hooks import RawRecord

_MOST_LONG = 4_000
_MOST_SHORT = 1_000
_MOST_BROKEN = 4_000
_SHORT = 0.05  # seconds
_MOST_CHARACTERS = 200  # of a reported progress
_LARGEST = 1e15  # larger numbers are sent as text


class Ended(NamedTuple):
    """A job that has ended, as it was recorded; its call may still run."""

    job: int
    name: str
    state: str
    slot: int | None
    submitted: float
    started: float | None
    ended: float | None
    settled: float
    attempts: int
    progress: Any
    failure: int | None

    @property
    def goes_on(self) -> bool:
        """Whether the job has ended for its caller while its call still runs."""
        return self.started is not None and self.ended is None


class Jobs:
    """The latest jobs, by number."""

    def __init__(self) -> None:
        self._long: deque[Ended] = deque(maxlen=_MOST_LONG)
        self._short: deque[Ended] = deque(maxlen=_MOST_SHORT)
        self._broken: dict[int, Ended] = {}  # failed or cancelled jobs: they may be recorded twice
        self._tries: dict[int, int] = {}  # failed attempts of jobs that may be retried
        self._progress: dict[int, Any] = {}  # of running jobs

    def keep(self, ended: Ended) -> None:
        """Keep a job that has ended."""
        if ended.state != "succeeded":
            self._broken[ended.job] = ended
            _bound(self._broken, _MOST_BROKEN)
        elif ended.started is not None and ended.ended is not None and ended.ended - ended.started < _SHORT:
            self._short.append(ended)
        else:
            self._long.append(ended)

    def broken(self, job: int) -> Ended | None:
        """The earlier record of a job that has failed or was cancelled."""
        return self._broken.get(job)

    def note_try(self, job: int) -> None:
        """An attempt has failed, and another may follow."""
        self._tries[job] = self._tries.pop(job, 0) + 1
        _bound(self._tries, _MOST_BROKEN)

    def failed_tries(self, job: int, *, forget: bool = False) -> int:
        """How many attempts of a job have failed."""
        return self._tries.pop(job, 0) if forget else self._tries.get(job, 0)

    def note_progress(self, job: int, progress: Any) -> None:
        """A running job has reported its progress."""
        self._progress[job] = progress
        _bound(self._progress, _MOST_BROKEN)

    def progress(self, job: int, *, forget: bool = False) -> Any:
        """The last progress of a job, `None` if it has reported none."""
        return self._progress.pop(job, None) if forget else self._progress.get(job)

    def find(self, job: int) -> Ended | None:
        """The one with this number, if it is kept."""
        kept = chain(reversed(self._long), reversed(self._short))
        return self._broken.get(job) or next((ended for ended in kept if ended.job == job), None)

    def latest(self, count: int) -> list[Ended]:
        """The latest that have ended, newest first."""
        kept = (self._long, self._short, self._broken.values())
        some = chain.from_iterable(islice(reversed(each), count) for each in kept)
        return sorted(some, key=lambda ended: ended.settled, reverse=True)[:count]


def _bound(kept: dict[int, Any], most: int) -> None:
    if len(kept) > most:
        del kept[next(iter(kept))]


def document(ended: Ended, slots: tuple[Device, ...], jobs: int = 1) -> dict[str, Any]:
    """The JSON document of a job that has ended; `jobs`: how many of its call it stands for."""
    ran = None if ended.started is None or ended.ended is None else ended.ended - ended.started
    return _document(ended, slots, jobs) | {
        "settled": ended.settled,
        "waited": (ended.settled if ended.started is None else ended.started) - ended.submitted,
        "ran": ran,
        "attempts": ended.attempts,
        "progress": ended.progress,
        "call_goes_on": ended.goes_on,
        "failure": ended.failure,
    }


def open_document(
    raw: RawRecord, slots: tuple[Device, ...], attempts: int, progress: Any, jobs: int = 1
) -> dict[str, Any]:
    """The JSON document of a job that waits or runs; `jobs`: how many of its call it stands for."""
    number, name, state, slot, submitted, started, *_ = raw
    made = Ended(number, name, state, slot, submitted, started, None, 0.0, attempts, progress, None)
    return _document(made, slots, jobs) | {
        "settled": None,
        "waited": None if started is None else started - submitted,
        "ran": None,
        "attempts": attempts + (started is not None),
        "progress": progress,
        "call_goes_on": False,
        "failure": None,
    }


def _document(ended: Ended, slots: tuple[Device, ...], jobs: int) -> dict[str, Any]:
    return {
        "job": ended.job,
        "name": shown(ended.name),
        "state": ended.state,
        "jobs": jobs,
        "device": None if ended.slot is None else slots[ended.slot].label,
        "slot": ended.slot,
        "submitted": ended.submitted,
        "started": ended.started,
        "ended": ended.ended,
    }


def as_text(progress: Any) -> float | str | None:
    """A reported progress as viewers show it: a number unchanged, anything else as text."""
    if progress is None:
        return None
    if type(progress) is str:
        return progress[:_MOST_CHARACTERS]
    if is_a(progress, float):  # also of a subclass such as numpy's: converted by `float` itself
        progress = float.__float__(progress)
    is_number = type(progress) in (int, float)
    return float(progress) if is_number and abs(progress) < _LARGEST else known_repr(progress, _MOST_CHARACTERS)


LONGEST = 120  # characters


def shown(name: str) -> str:
    """The name, cut if it is very long."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
