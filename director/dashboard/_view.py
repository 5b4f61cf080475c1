"""What viewers see, as JSON documents worked out of the recorder and the Director's stats. No state.

`docs/reference/dashboard.md` names every field. Moments are seconds of the Director's clock.
"""

from __future__ import annotations

import os
import socket
import time
from heapq import nlargest
from typing import TYPE_CHECKING, Any

from director import DirectorState, __version__
from director.dashboard._jobs import as_text
from director.dashboard._tally import quantiles
from director.dashboard._tracks import WINDOW

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from director import DeviceStats, Director, Stats
    from director.dashboard._meter import Meter
    from director.dashboard._recorder import Recorder
    from director.dashboard._tally import Second
    from director.dashboard._tracks import Row

_RATES = 5  # seconds that rates are counted over
_PERCENTILES = 10  # seconds that percentiles are taken over
_FREE = 0.5  # share of its last seconds that a device was busy, below which it has room and is not between two jobs
_BATCHES = 60  # seconds that batch sizes are counted over
_MOST_NAMES = 20
_MOST_RUNNING = 100
_MOST_ENDED = 30
_MOST_FAILURES = 50

SERIES = ("time", "queued", "running", "succeeded", "failed", "rejected", "wait_p50", "wait_p99", "run_p50", "run_p99")
Point = list["float | None"]


def identity(director: Director, stats: Stats) -> dict[str, Any]:
    """What does not change while a Director is open."""
    first = 0
    devices = []
    for each in stats.devices:
        device = each.device
        devices.append(
            {
                "device": device.label,
                "name": device.name,
                "uuid": device.uuid,
                "kind": device.kind,
                "total_memory": device.total_memory,
                "slots": list(range(first, first + each.slots)),
            }
        )
        first += each.slots
    return {
        "name": director.name,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "version": __version__,
        "window": WINDOW,
        "devices": devices,
    }


def view(director: Director, recorder: Recorder, stats: Stats, meter: Meter, now: float, late: float) -> dict[str, Any]:
    """The numbers and lists of this moment, without what `identity` says and without history."""
    seconds = recorder.tally.last(_BATCHES, now)
    devices = [_device(each, *place) for each, *place in _places(recorder, stats, meter, now)]
    return {
        "at": round(now, 4),
        "time": round(time.time(), 3),
        "state": director.state.value,
        "healthy": director.healthy,
        "open_for": round(now - recorder.opened, 3),
        "loop_late": round(late, 4),
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
        "why_waiting": _why(director, stats, devices),
        "waiting": _waiting(recorder, now),
        "devices": devices,
        "meter_error": meter.error,
        "running": _running(recorder),
        "ended": [record.document() for record in recorder.jobs.ended(_MOST_ENDED)],
        "failures": [failure.summary() for failure in recorder.failures.latest(_MOST_FAILURES)],
    }


def points(seconds: Iterable[Second], offset: float) -> list[Point]:
    """The columns of `SERIES` for each second; `offset` turns the Director's clock into the time of day."""
    return [_point(second, offset) for second in seconds]


def tracks_since(recorder: Recorder, since: float) -> dict[str, tuple[int, list[Row]]]:
    """The tracks of all slots from a moment on."""
    return {str(slot): track.rows(since) for slot, track in enumerate(recorder.tracks)}


def track_changes(recorder: Recorder) -> dict[str, tuple[int, list[Row]]]:
    """What has changed on the tracks since this was called last."""
    changes = ((slot, track.changes()) for slot, track in enumerate(recorder.tracks))
    return {str(slot): change for slot, change in changes if change is not None}


def _point(second: Second, offset: float) -> Point:
    nothing: Point = [None, None]
    waits, runs = (quantiles([kept], 0.5, 0.99) or nothing for kept in (second.waits, second.runs))
    counts = [second.queued, second.running, second.succeeded, second.failed, second.rejected]
    return [round(second.at + 1 + offset, 3), *counts, *map(_short, (*waits, *runs))]


def _rates(seconds: list[Second]) -> dict[str, float]:
    span = max(1, len(seconds))
    kinds = ("submitted", "succeeded", "failed", "cancelled", "rejected")
    return {kind: round(sum(getattr(second, kind) for second in seconds) / span, 2) for kind in kinds}


def _percentiles(histograms: Iterable[dict[int, int]]) -> dict[str, float] | None:
    found = quantiles(histograms, 0.5, 0.99)
    return None if found is None else {"p50": round(found[0], 7), "p99": round(found[1], 7)}


def _batches(seconds: list[Second]) -> dict[str, Any] | None:
    """Calls by the number of their jobs; `None` if nothing ran."""
    calls: dict[int, float] = {}
    for second in seconds:
        for size, count in second.calls.items():
            calls[size] = calls.get(size, 0) + count
    total = sum(calls.values())
    if not total:
        return None
    mean = sum(size * count for size, count in calls.items()) / total
    return {"mean": round(mean, 2), "calls": {str(size): round(calls[size], 2) for size in sorted(calls)}}


def _why(director: Director, stats: Stats, devices: list[dict[str, Any]]) -> str | None:
    """Why jobs wait, in words; `None` if none does."""
    if not stats.queued:
        return None
    if director.state not in (DirectorState.OPEN, DirectorState.DRAINING):
        return f"the Director is {director.state.value}"
    both = zip(stats.devices, devices, strict=True)
    free = [each.device.label for each, seen in both if each.busy < each.slots and seen["share"] < _FREE]
    if not free:
        return "every slot is busy"
    named = ", ".join(free[:3]) + (f" and {len(free) - 3} more" if len(free) > 3 else "")
    return f"they may not run on {named}, where there is room"


def _waiting(recorder: Recorder, now: float) -> list[dict[str, Any]]:
    """How many jobs of which function and tenant wait, and for how long the first of them; the most first."""
    groups: dict[tuple[str, Hashable], list[Any]] = {}
    for record in recorder.jobs.waiting.values():
        group = groups.setdefault((record.name, record.tenant), [0, record.submitted])
        group[0] += 1
    listed = [
        {"name": name, "tenant": as_text(tenant), "jobs": count, "oldest": _since(first, now)}
        for (name, tenant), (count, first) in nlargest(_MOST_NAMES, groups.items(), key=lambda item: item[1][0])
    ]
    rest = recorder.jobs.queued - sum(each["jobs"] for each in listed)
    others = {"name": "(others)", "tenant": None, "jobs": rest, "oldest": None}
    return [*listed, others] if rest > 0 else listed


def _places(
    recorder: Recorder, stats: Stats, meter: Meter, now: float
) -> Iterator[tuple[DeviceStats, float, dict[str, float | None], Any]]:
    """Each device with the share of its slots' last seconds that was busy, when its models were loaded, its reading."""
    first = 0
    since = max(recorder.opened, now - _RATES)
    for each in stats.devices:
        tracks = recorder.tracks[first : first + each.slots]
        first += each.slots
        span = (now - since) * each.slots
        share = sum(track.busy(since, now) for track in tracks) / span if span > 0 else 0.0
        models = {model: recorder.load_seconds.get((model, each.device.label)) for model in each.models}
        yield each, min(1.0, share), models, meter.readings.get(each.device.uuid)


def _device(each: DeviceStats, share: float, models: dict[str, float | None], reading: Any) -> dict[str, Any]:
    return {
        "device": each.device.label,
        "busy": each.busy,
        "share": round(share, 4),
        "jobs": each.jobs,
        "busy_seconds": round(each.busy_seconds, 3),
        "models": models,
        "used_memory": reading and reading.used_memory,
        "load": reading and reading.load,
        "temperature": reading and reading.temperature,
        "power": reading and reading.power,
        "error": reading and reading.error,
    }


def _running(recorder: Recorder) -> list[dict[str, Any]]:
    """The jobs that run, the longest first: a dict keeps the order of their starts."""
    running = recorder.jobs.running.values()
    return [record.document() for record, _ in zip(running, range(_MOST_RUNNING), strict=False)]


def _since(moment: float | None, now: float) -> float | None:
    return None if moment is None else round(now - moment, 7)


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 7)
