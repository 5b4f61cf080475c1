"""The jobs that run and wait at present, read from the Director. Owner: `CurrentJobs`.

Listing very many waiting jobs would block the event loop, and the lock that workers need: the more there are the less
often they are listed, and beyond some number they are only counted.
"""

from __future__ import annotations

import threading
from heapq import nlargest
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

from director._devices.nvml import within
from director._devices.readings import read
from director.dashboard._jobs import shown
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director import Device
    from director._devices.readings import Reading
    from director.dashboard._recorder import Recorder
    from director.hooks import RawRecord

# Up to `_FEW` waiting jobs are listed each time, more than `_MANY` are only counted, numbers in between are listed
# every `_SELDOM` seconds.
_FEW = 2_000
_MANY = 50_000
_SELDOM = 2.0
_MOST_NAMES = 20

Calls: TypeAlias = "dict[int, list[RawRecord]]"


class CurrentJobs:
    """The jobs that ran and waited at the last `refresh`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._looked = -float("inf")  # when waiting jobs were listed last
        self.running: list[RawRecord] = []  # by slot
        self._waiting: dict[str, tuple[int, float]] = {}  # by name: how many, and when the first was submitted

    def refresh(self, queued: int, moment: float) -> None:
        """List the jobs again."""
        is_due = queued <= _FEW or (queued <= _MANY and moment - self._looked >= _SELDOM)
        jobs = self._recorder.unfinished(and_waiting=is_due)
        self.running = [raw for raw in jobs if raw[5] is not None and raw[3] is not None]
        if is_due:
            self._looked = moment
            self._waiting = _group(raw for raw in jobs if raw[5] is None)
        elif queued > _MANY:
            self._waiting = {}

    def find(self, job: int, queued: int) -> RawRecord | None:
        """A job that runs or waits; `None` if there is none, or there are too many to search."""
        jobs = self._recorder.unfinished(and_waiting=queued <= _MANY)
        return next((raw for raw in jobs if raw[0] == job), None)

    def calls(self) -> Calls:
        """The jobs of the call that runs on each slot."""
        calls: Calls = {}
        for raw in self.running:
            assert raw[3] is not None
            calls.setdefault(raw[3], []).append(raw)
        return calls

    def waiting(self, queued: int, now: float) -> list[dict[str, Any]]:
        """How many jobs of each function wait, and how long the first of them has waited; the most first."""
        most = nlargest(_MOST_NAMES, self._waiting.items(), key=lambda item: item[1][0])
        listed = [{"name": shown(name), "jobs": jobs, "oldest": round(now - first, 7)} for name, (jobs, first) in most]
        rest = queued - sum(jobs for _, (jobs, _) in most)
        others = {"name": "(others)" if listed else "(too many to look at)", "jobs": rest, "oldest": None}
        return [*listed, others] if rest > 0 else listed


def _group(jobs: Any) -> dict[str, tuple[int, float]]:
    groups: dict[str, tuple[int, float]] = {}
    for raw in jobs:
        count, first = groups.get(raw[1], (0, raw[4]))
        groups[raw[1]] = (count + 1, min(first, raw[4]))
    return groups


_PERIOD = 1.0  # seconds between two readings
_PATIENCE = 10.0  # seconds until a reading counts as failed


class Meter:
    """The latest readings, by UUID."""

    def __init__(self) -> None:
        self.readings: dict[str, Reading] = {}
        self.error: str | None = None
        self._taken = 0.0
        self._thread: threading.Thread | None = None

    def refresh(self, devices: Sequence[Device]) -> None:
        """Start to take readings, unless they are recent or being taken; never blocks."""
        uuids = [device.uuid for device in devices if device.kind == "cuda" and device.node is None]
        if not uuids or monotonic() - self._taken < _PERIOD or (self._thread is not None and self._thread.is_alive()):
            return
        self._taken = monotonic()
        self._thread = threading.Thread(target=self._take, args=(uuids,), name="director-meter", daemon=True)
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            self.readings, self.error = {}, str(error)

    def _take(self, uuids: list[str]) -> None:
        try:
            self.readings = {reading.uuid: reading for reading in within(_PATIENCE, lambda: read(uuids))}
            self.error = None
        except DiscoveryError as error:
            self.readings, self.error = {}, str(error)
