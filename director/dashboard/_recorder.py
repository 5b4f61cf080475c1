"""The hook that keeps what the dashboard shows. The only writer of tally, tracks, jobs and failures; on the loop only.

It is called several times for each job, so it only counts and files; everything else is worked out when somebody looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from director.dashboard._failures import Failures
from director.dashboard._jobs import JobRecord, Jobs, Outcome
from director.dashboard._tally import Second, Tally, note
from director.dashboard._tracks import make_tracks
from director.events import (
    DirectorOpened,
    Event,
    JobCancelled,
    JobEnded,
    JobFailed,
    JobProgressed,
    JobRejected,
    JobRetried,
    JobStarted,
    JobSubmitted,
    JobSucceeded,
    ModelFailed,
    ModelLoaded,
    WorkerReaped,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from director.dashboard._tracks import Track

_MOST_LOADS = 1_000


class Recorder:
    """Keeps the last minutes of one Director, in bounded memory.

    Args:
        opened: Called when the Director has opened; tells how many slots it has.
    """

    def __init__(self, opened: Callable[[], int]) -> None:
        self._opened = opened
        self._reset(0.0, 0)

    def __call__(self, event: Event) -> None:
        """Take note of `event`: a `director.events.Hook`."""
        take = self._TAKERS.get(type(event))
        if take is not None:
            take(self, event)

    def _reset(self, at: float, slots: int) -> None:
        self.opened = at
        self.tally = Tally(at, self._weigh)
        self.jobs = Jobs()
        self.failures = Failures()
        self.tracks: list[Track] = make_tracks(slots)
        self.load_seconds: dict[tuple[str, str], float] = {}  # by model and device

    def _open(self, event: DirectorOpened) -> None:
        self._reset(event.at, self._opened())

    def _submit(self, event: JobSubmitted) -> None:
        self.tally.at(event.at).submitted += 1
        self.jobs.submit(JobRecord(event.job, event.name, event.at, event.priority, event.tenant))

    def _reject(self, event: JobRejected) -> None:
        self.tally.at(event.at).rejected += 1
        self.failures.add("rejected", event.name, event.error, event.at)

    def _start(self, event: JobStarted) -> None:
        second = self.tally.at(event.at)
        record = self.jobs.start(event.job, event.name)
        if not record.attempts:  # afterwards it has waited and run
            note(second.waits, event.waited)
        second.calls[event.batch] = second.calls.get(event.batch, 0.0) + 1 / event.batch
        record.started = event.at
        record.waited = event.waited
        record.device = event.device
        record.slot = event.slot
        record.batch = event.batch
        record.attempts += 1
        self.tracks[event.slot].begin(event.at, event.job, event.name)

    def _retry(self, event: JobRetried) -> None:
        self.failures.add("retried", event.name, event.error, event.at, event.job, event.device)
        record = self.jobs.retry(event.job, event.name)
        if record.slot is not None and record.started is not None:
            self.tracks[record.slot].end(record.started, event.at - record.started, True)

    def _progress(self, event: JobProgressed) -> None:
        record = self.jobs.running.get(event.job)
        if record is not None:
            record.progress = event.progress

    def _succeed(self, event: JobSucceeded) -> None:
        self._end(event, "succeeded").succeeded += 1

    def _cancel(self, event: JobCancelled) -> None:
        self._end(event, "cancelled").cancelled += 1

    def _fail(self, event: JobFailed) -> None:
        number = self.failures.add("failed", event.name, event.error, event.at, event.job, event.device)
        self._end(event, "failed", number).failed += 1

    def _end(self, event: JobEnded, outcome: Outcome, failure: int | None = None) -> Second:
        second = self.tally.at(event.at)
        record = self.jobs.end(event.job, event.name)
        record.ended = event.at
        record.device = event.device
        record.waited = event.waited
        record.ran = event.ran
        record.outcome = outcome
        record.error = failure
        if event.ran is not None and event.device is not None:
            note(second.runs, event.ran)
        self._vacate(record, outcome == "failed")
        self.jobs.keep(record)
        return second

    def _vacate(self, record: JobRecord, failed: bool) -> None:
        if record.slot is None or record.started is None:
            return  # it never ran
        track = self.tracks[record.slot]
        if record.ran is None:
            record.left = True
            track.leave(record.started, failed)
        else:
            track.end(record.started, record.ran, failed)

    def _rest(self, event: WorkerReaped) -> None:
        self.tracks[event.slot].rest(event.at)

    def _load(self, event: ModelLoaded) -> None:
        if len(self.load_seconds) < _MOST_LOADS:
            self.load_seconds[event.model, event.device.label] = event.seconds

    def _not_load(self, event: ModelFailed) -> None:
        self.failures.add("model", event.model, event.error, event.at, None, event.device)

    def _weigh(self) -> tuple[int, int]:
        return self.jobs.queued, len(self.jobs.running)

    _TAKERS: ClassVar[dict[type[Event], Callable[[Any, Any], None]]] = {
        DirectorOpened: _open,
        JobSubmitted: _submit,
        JobRejected: _reject,
        JobStarted: _start,
        JobRetried: _retry,
        JobProgressed: _progress,
        JobSucceeded: _succeed,
        JobFailed: _fail,
        JobCancelled: _cancel,
        WorkerReaped: _rest,
        ModelLoaded: _load,
        ModelFailed: _not_load,
    }
