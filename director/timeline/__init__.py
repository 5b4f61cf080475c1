"""Records what a Director does, and writes it as a trace for Perfetto or as an HTML page."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from director._format import known_line
from director._untrusted.numbers import whole
from director.events import DeviceQuarantined, DeviceRestored, Event, JobRejected, ModelFailed, ModelLoaded
from director.hooks import JobRecord
from director.timeline import _chrome_trace as chrome
from director.timeline._memory import Meter
from director.timeline._story import Incident, Load, Story, calls_of, in_order

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from director import Device
    from director.hooks import RawRecord

__all__ = ["Timeline"]

_MOST_LOADS = 10_000
_LONGEST = 200  # characters of the error of a load


class Timeline:
    """A hook that records the last jobs of a Director: ``Director(hooks=[timeline])``.

    It takes one plain tuple for each job, at its end, which costs about half a microsecond. Unfinished
    jobs are read when a trace or page is made, so the trace of a Director that hangs shows the calls that hang. When
    the Director is started again, the records are cleared. Give each Director a Timeline of its own.

    Args:
        limit: Most jobs that are kept, about 300 bytes each; then the oldest are dropped.
        memory: Sample the memory in use, of this process and of each GPU, once a second, on a thread of its own.
        name: Title of the trace and the page.

    Raises:
        TypeError: `limit` is no int.
        ValueError: It is below 1, or above what 64 bits hold.
    """

    wants: tuple[type[Event], ...] = (JobRejected, ModelLoaded, ModelFailed, DeviceQuarantined, DeviceRestored)

    def __init__(self, limit: int = 100_000, *, memory: bool = True, name: str | None = None) -> None:
        self.name = name
        self._records: deque[RawRecord] = deque(maxlen=whole("limit", limit, 1))
        self.record: Callable[[RawRecord], None] = self._records.append
        self._samples_memory = memory
        # Guards `begin` and `end` against `story` on another thread. Reentrant: a finalizer or a signal handler may
        # call `story` on this one.
        self._lock = RLock()
        self._clock: Callable[[], float] = time.monotonic
        self._slots: tuple[Device, ...] = ()
        self._unfinished: Callable[[], list[RawRecord]] = list
        self._began = 0.0
        self._ended: float | None = 0.0  # `None` while the Director is open
        self._rejected = 0
        self._loads: deque[Load] = deque(maxlen=_MOST_LOADS)
        self._incidents: deque[Incident] = deque(maxlen=_MOST_LOADS)
        self._meter: Meter | None = None

    # ---- called by the Director, on its event loop

    def __call__(self, event: Event) -> None:
        """Record what is not a job: a `director.events.Hook`."""
        if isinstance(event, JobRejected):
            self._rejected += 1
        elif isinstance(event, ModelLoaded):
            self._loads.append(Load(event.model, event.device, event.at - event.seconds, event.at, None))
        elif isinstance(event, ModelFailed):
            error = known_line(event.error, _LONGEST)
            self._loads.append(Load(event.model, event.device, event.at, event.at, error))
        elif isinstance(event, DeviceQuarantined):
            self._incidents.append(Incident(event.at, event.device, event.reason))
        elif isinstance(event, DeviceRestored):
            self._incidents.append(Incident(event.at, event.device, None))

    def begin(
        self, clock: Callable[[], float], slots: tuple[Device, ...], unfinished: Callable[[], list[RawRecord]]
    ) -> None:
        """A Director opens: clear the records."""
        with self._lock:
            if self._meter is not None:
                self._meter.stop()
            self._records.clear()
            self._loads.clear()
            self._incidents.clear()
            self._rejected = 0
            self._clock, self._slots, self._unfinished = clock, slots, unfinished
            self._began, self._ended = clock(), None
            self._meter = Meter(clock, slots) if self._samples_memory else None

    def devices_changed(self, slots: tuple[Device, ...]) -> None:
        """Devices have joined."""
        with self._lock:
            self._slots = slots

    def end(self, at: float) -> None:
        """The Director has closed."""
        with self._lock:
            self._ended = at
            if self._meter is not None:
                self._meter.stop()

    # ---- called by users, from any thread, at any time

    def records(self) -> list[JobRecord]:
        """The jobs that are kept and the unfinished ones, one record each, in order of submission."""
        return list(self.story().jobs)

    def trace(self) -> dict[str, Any]:
        """A Chrome trace, as `json.dump` takes it."""
        return chrome.trace(self.story())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a Chrome trace, which ui.perfetto.dev opens: a lane for each slot, arrows from submission to run.

        Blocks while it writes, about 15 microseconds for each job.

        Raises:
            OSError: The file can't be written.
        """
        with Path(path).open("w", encoding="utf-8") as file:
            chrome.write(self.story(), file)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write a page that shows lanes, waits, idle time and the slowest jobs: one file, which needs no network.

        Blocks while it writes.

        Raises:
            OSError: The file can't be written.
        """
        from director.timeline._page import page

        Path(path).write_text(page(self.story()), encoding="utf-8", errors="backslashreplace")

    def story(self) -> Story:
        """Everything that was recorded, in order; for `director` itself."""
        with self._lock:
            # Read first: a job that ends meanwhile is in both lists, which `in_order` resolves.
            open_jobs = self._unfinished()
            settled = self._records.copy()
            until = self._clock() if self._ended is None else self._ended
            began, slots, name, rejected = self._began, self._slots, self.name, self._rejected
            loads, incidents = tuple(self._loads), tuple(self._incidents)
            memory = () if self._meter is None else self._meter.samples()
        jobs, tries = in_order(JobRecord(*raw) for raw in (*open_jobs, *settled))
        is_full = len(settled) == settled.maxlen
        since = max(began, settled[0][7] or began) if is_full else began
        last = max((job.job for job in jobs), default=0)
        return Story(
            name=name,
            since=since,
            until=max(since, until),
            wall=time.time() - (time.monotonic() - since),  # correct for every clock but that of a test
            slots=slots,
            jobs=jobs,
            tries=tries,
            calls=calls_of((*jobs, *tries)),
            loads=loads,
            incidents=incidents,
            rejected=rejected,
            forgotten=max(0, last - len(jobs) - rejected) if is_full else 0,
            memory=tuple(sample for sample in memory if sample.at >= since),
        )
