"""JSON documents for viewers, computed from what was recorded and the current state. No state.

`docs/reference/dashboard.md` names every field. Times are seconds of the Director's clock.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from director import DirectorState, Health, __version__
from director.dashboard._jobs import document, open_document, shown
from director.dashboard._tally import quantiles
from director.dashboard._tracks import WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from director import DeviceStats, Director, Stats
    from director.dashboard._current import Calls, CurrentJobs, Meter
    from director.dashboard._recorder import Recorder
    from director.dashboard._tally import Second
    from director.dashboard._tracks import Row

_RATES = 5  # seconds that rates are counted over
_PERCENTILES = 10  # seconds that percentiles are taken over
# A device that was busy for less than this share of the last seconds has room, and is not only between two jobs.
_FREE = 0.5
_BATCHES = 60  # seconds that batch sizes are counted over
_MOST_RUNNING = 100
_MOST_ENDED = 30
_MOST_FAILURES = 50

SERIES = ("time", "queued", "running", "succeeded", "failed", "rejected", "wait_p50", "wait_p99", "run_p50", "run_p99")
Point = list["float | None"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a Director at one time."""

    now: float
    late: float  # seconds by which the event loop was late
    director: Director
    stats: Stats
    recorder: Recorder
    glance: CurrentJobs
    meter: Meter


def identity(director: Director, stats: Stats) -> dict[str, Any]:
    """What does not change while a Director is open."""
    devices = [
        {
            "device": each.device.label,
            "name": each.device.name,
            "uuid": each.device.uuid,
            "kind": each.device.kind,
            "total_memory": each.device.total_memory,
            "slots": list(slots),
        }
        for each, slots in _with_slots(stats)
    ]
    return {
        "name": director.name,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "version": __version__,
        "window": WINDOW,
        "devices": devices,
    }


def view(seen: Snapshot) -> dict[str, Any]:
    """The numbers and lists of a snapshot, without what `identity` says and without history."""
    now, stats, recorder = seen.now, seen.stats, seen.recorder
    seconds = recorder.tally.last(_BATCHES, now)
    devices = list(_devices(seen))
    return {
        "at": round(now, 4),
        "time": round(time.time(), 3),
        "state": seen.director.state.value,
        "healthy": seen.director.healthy,
        "open_for": round(now - recorder.opened, 3),
        "loop_late": round(seen.late, 4),
        "counts": {
            "queued": stats.queued,
            "running": stats.running,
            "succeeded": stats.succeeded,
            "failed": stats.failed,
            "cancelled": stats.cancelled,
            "rejected": stats.rejected,
        },
        "per_second": _rates(seconds[-_RATES:]),
        "waited": _percentiles(second.waits for second in seconds[-_PERCENTILES:]),
        "ran": _percentiles(second.runs for second in seconds[-_PERCENTILES:]),
        "batches": _batches(seconds),
        "why_waiting": _why(seen.director, stats, devices),
        "waiting": seen.glance.waiting(stats.queued, now),
        "devices": devices,
        "meter_error": seen.meter.error,
        "running": _running(seen),
        "ended": [document(ended, recorder.slots) for ended in recorder.jobs.latest(_MOST_ENDED)],
        "failures": [failure.summary() for failure in recorder.failures.latest(_MOST_FAILURES)],
        "calls": {str(slot): _call(jobs) for slot, jobs in seen.glance.calls().items()},
    }


def points(seconds: Iterable[Second], offset: float) -> list[Point]:
    """The columns of `SERIES` for each second; `offset` turns the Director's clock into the time of day."""
    return [_point(second, offset) for second in seconds]


def track_changes(recorder: Recorder) -> dict[str, tuple[int, list[Row]]]:
    """What has changed on the tracks since the last call."""
    changes = ((slot, track.changes()) for slot, track in enumerate(recorder.tracks))
    return {str(slot): change for slot, change in changes if change is not None}


def _with_slots(stats: Stats) -> Iterator[tuple[DeviceStats, range]]:
    """Each device with the numbers of its slots, which are counted through all devices."""
    first = 0
    for each in stats.devices:
        yield each, range(first, first + each.slots)
        first += each.slots


def _point(second: Second, offset: float) -> Point:
    nothing: Point = [None, None]
    waits, runs = (quantiles([kept], 0.5, 0.99) or nothing for kept in (second.waits, second.runs))
    counts = [second.queued, second.running, second.ends["succeeded"], second.ends["failed"], second.rejected]
    return [round(second.at + 1 + offset, 3), *counts, *map(_short, (*waits, *runs))]


def _rates(seconds: list[Second]) -> dict[str, float]:
    span = max(1, len(seconds))
    counts = {kind: sum(second.ends[kind] for second in seconds) for kind in ("succeeded", "failed", "cancelled")}
    counts["rejected"] = sum(second.rejected for second in seconds)
    return {kind: round(count / span, 2) for kind, count in counts.items()}


def _percentiles(histograms: Iterable[dict[int, int]]) -> dict[str, float] | None:
    found = quantiles(histograms, 0.5, 0.99)
    return None if found is None else {"p50": round(found[0], 7), "p99": round(found[1], 7)}


def _batches(seconds: list[Second]) -> dict[str, Any] | None:
    """Calls by the number of their jobs; `None` if nothing ran."""
    calls: dict[int, int] = {}
    for second in seconds:
        for size, count in second.calls.items():
            calls[size] = calls.get(size, 0) + count
    calls = {size: calls[size] for size in sorted(calls) if calls[size] > 0}
    total = sum(calls.values())
    if not total:
        return None
    mean = sum(size * count for size, count in calls.items()) / total
    return {"mean": round(mean, 2), "calls": {str(size): count for size, count in calls.items()}}


def _why(director: Director, stats: Stats, devices: list[dict[str, Any]]) -> str | None:
    """Why jobs wait, in words; `None` if none does."""
    if not stats.queued:
        return None
    if director.state not in (DirectorState.OPEN, DirectorState.DRAINING):
        return f"the Director is {director.state.value}"
    both = list(zip(stats.devices, devices, strict=True))
    out = _named([seen["device"] for each, seen in both if each.health is not Health.HEALTHY])
    working = [(each, seen) for each, seen in both if each.health is Health.HEALTHY]
    lent = _named([seen["device"] for each, seen in working if each.elsewhere])
    full = f"another process has slots of {lent}" if lent else "every slot is busy"
    unused = [(each, seen) for each, seen in working if each.busy + each.elsewhere < each.slots]
    free = _named([seen["device"] for _, seen in unused if seen["share"] < _FREE])
    why = f"they may not run on {free}, where there is room" if free else full
    return f"{why}, and {out} can't be used" if out else why


def _named(labels: list[str]) -> str:
    return ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")


def _devices(seen: Snapshot) -> Iterator[dict[str, Any]]:
    calls = seen.glance.calls()
    for each, slots in _with_slots(seen.stats):
        device = each.device
        reading = seen.meter.readings.get(device.uuid)
        yield {
            "device": device.label,
            "busy": each.busy,
            "share": _share(seen, slots, calls),
            "jobs": each.jobs,
            "busy_seconds": round(each.busy_seconds, 3),
            "models": {model: seen.recorder.load_seconds.get((model, device.label)) for model in each.models},
            "health": each.health.value,
            "reason": each.reason,
            "used_memory": reading and reading.used_memory,
            "load": reading and reading.load,
            "temperature": reading and reading.temperature,
            "power": reading and reading.power,
            "error": reading and reading.error,
        }


def _share(seen: Snapshot, slots: range, calls: Calls) -> float:
    """How busy some slots were in the last seconds, from 0 to 1."""
    since = max(seen.recorder.opened, seen.now - _RATES)
    span = (seen.now - since) * len(slots)
    if span <= 0 or not seen.recorder.tracks:
        return 0.0
    past = sum(seen.recorder.tracks[slot].busy(since, seen.now) for slot in slots)
    begun = (calls[slot][0][5] for slot in slots if slot in calls)
    present = sum(seen.now - max(since, begin) for begin in begun if begin is not None)
    return round(min(1.0, (past + present) / span), 4)


def _running(seen: Snapshot) -> list[dict[str, Any]]:
    """The jobs that run, the longest first."""
    jobs, slots = seen.recorder.jobs, seen.recorder.slots
    longest = sorted(seen.glance.running, key=lambda raw: raw[5] or 0.0)[:_MOST_RUNNING]
    return [open_document(raw, slots, jobs.failed_tries(raw[0]), jobs.progress(raw[0])) for raw in longest]


def _call(jobs: list[Any]) -> list[Any]:
    """A running call as it is sent: its start, the number of its jobs, one of them and its function."""
    first = jobs[0]
    return [round(first[5], 4), len(jobs), first[0], shown(first[1])]


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 7)
