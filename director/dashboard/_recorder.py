"""The hook that records what the dashboard shows.

The only writer of tally, tracks, jobs and failures; on the loop only.

It takes one plain tuple per job that has ended, and only rare events, so that it costs a few microseconds per job. The
jobs that run and wait are read from the Director while there are viewers.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from director._format import colours
from director.dashboard._failures import Failures
from director.dashboard._jobs import LONGEST, Ended, Jobs, as_text, shown
from director.dashboard._tally import Tally, note
from director.dashboard._tracks import make_tracks
from director.events import Event, JobFailed, JobProgressed, JobRejected, JobRetried, ModelFailed, ModelLoaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from director import Device
    from director.dashboard._tracks import Track
    from director.hooks import RawRecord, Unfinished

_MOST_LOADS = 1_000
_MOST_NAMES = 100  # functions that have a colour


class Recorder:
    """Keeps the last minutes of one Director, in bounded memory: a `director.hooks.JobRecorder`.

    Args:
        count_jobs: Returns how many jobs wait and run, and how many were refused in all; called once in each second in
            which something happens.
        began: Called when the Director is about to open, maybe again.
    """

    def __init__(self, count_jobs: Callable[[], tuple[int, int, int]], began: Callable[[], None]) -> None:
        self._count_jobs = count_jobs
        self._began = began
        self.clock: Callable[[], float] = monotonic
        self.unfinished: Unfinished = _nothing
        self.slots: tuple[Device, ...] = ()  # the device of each slot
        self._reset(())

    def begin(self, clock: Callable[[], float], slots: tuple[Device, ...], unfinished: Unfinished) -> None:
        """A Director is about to open."""
        self.clock = clock
        self.unfinished = unfinished
        self._reset(slots)
        self._began()

    def devices_changed(self, slots: tuple[Device, ...]) -> None:
        """Devices have joined."""
        self.tracks += make_tracks(len(slots))[len(self.slots) :]
        self.slots = slots

    def end(self, at: float) -> None:
        """The Director has closed; what was recorded stays."""

    def _reset(self, slots: tuple[Device, ...]) -> None:
        self.opened = self.opened_at = self.clock()  # when recording began, and when the Director was opened
        self.slots = slots
        self.tally = Tally(self.opened, self._count_jobs)
        self.jobs = Jobs()
        self.failures = Failures()
        self.tracks: list[Track] = make_tracks(len(slots))
        self.load_seconds: dict[tuple[str, str], float] = {}  # by model and device
        self.colours: dict[str, int] = {}  # by function
        self._refused = 0  # jobs, of which there was an event

    def meet(self, name: str) -> None:
        """Give a function a colour, unless it has one; others may get another one then."""
        if name not in self.colours and len(self.colours) < _MOST_NAMES:
            self.colours = colours([*self.colours, name])

    def record(self, raw: RawRecord) -> None:
        """A job, or an attempt of one, has ended."""
        job, name, state, slot, submitted, started, ended, settled, _, tenant = raw
        assert settled is not None
        if len(name) > LONGEST:
            name = shown(name)
        if name not in self.colours:
            self.meet(name)
        if state != "succeeded" and self._is_known(raw):
            return
        second = self.tally.at(settled)
        groups = second.groups_of(name, tenant)
        if slot is not None and started is not None:
            failed = state != "succeeded" and state != "cancelled"
            if ended is None:
                second.count_call(self.tracks[slot].leave(started, job, name, failed))
            else:
                second.count_call(self.tracks[slot].add(started, ended, job, name, failed))
                note(ended - started, second.runs, *(group.runs for group in groups))
        if state == "retried":
            self.jobs.note_try(job)
            return
        second.ends[state] += 1
        for group in groups:
            group.ends[state] += 1
        tries = self.jobs.failed_tries(job, forget=True)
        if started is not None and not tries:  # after a failed attempt the time includes that attempt
            note(started - submitted, second.waits, *(group.waits for group in groups))
        progress = self.jobs.progress(job, forget=True)
        attempts = tries + (started is not None)
        self.jobs.keep(Ended(job, name, state, slot, submitted, started, ended, settled, attempts, progress, None))

    def _is_known(self, raw: RawRecord) -> bool:
        """Whether the job had ended for its caller before; then this record is of the end of its call."""
        job, name, _, slot, _, started, ended, settled, _, tenant = raw
        before = self.jobs.broken(job)
        if before is None:
            return False
        if slot is not None and started is not None and ended is not None and settled is not None:
            self.tracks[slot].end(started, ended)
            second = self.tally.at(settled)
            note(ended - started, second.runs, *(group.runs for group in second.groups_of(shown(name), tenant)))
            self.jobs.keep(before._replace(slot=slot, started=started, ended=ended))
        return True

    # ---- rare events

    def __call__(self, event: Event) -> None:
        """Record `event`: a `director.events.Hook`."""
        self._TAKERS[type(event)](self, event)

    def begin_late(self, opened_at: float, refused: int) -> None:
        """After `begin`: the Director has been open since `opened_at`, and has refused so many jobs."""
        self.opened_at, self._refused = opened_at, refused
        self.tally.begin_late(refused)

    def _reject(self, event: JobRejected) -> None:
        self._refused += 1
        self.tally.count_refused(self._refused, event.at)
        self.failures.add("rejected", shown(event.name), event.error, event.at)

    def _fail(self, event: JobFailed) -> None:
        number = self.failures.add("failed", shown(event.name), event.error, event.at, event.job, event.device)
        ended = self.jobs.broken(event.job)
        if ended is not None:
            self.jobs.keep(ended._replace(failure=number))

    def _retry(self, event: JobRetried) -> None:
        self.failures.add("retried", shown(event.name), event.error, event.at, event.job, event.device)

    def _progress(self, event: JobProgressed) -> None:
        self.jobs.note_progress(event.job, as_text(event.progress))  # the object itself may refer to much memory

    def _load(self, event: ModelLoaded) -> None:
        if len(self.load_seconds) < _MOST_LOADS:
            self.load_seconds[event.model, event.device.label] = event.seconds

    def _not_load(self, event: ModelFailed) -> None:
        self.failures.add("model", shown(event.model), event.error, event.at, None, event.device)

    _TAKERS: ClassVar[dict[type[Event], Callable[[Any, Any], None]]] = {
        JobRejected: _reject,
        JobFailed: _fail,
        JobRetried: _retry,
        JobProgressed: _progress,
        ModelLoaded: _load,
        ModelFailed: _not_load,
    }

    wants = tuple(_TAKERS)
    """Makes it a `director.hooks.SelectiveHook`: other events are not made for it."""


def _nothing(*, and_waiting: bool = True) -> list[RawRecord]:
    return []
