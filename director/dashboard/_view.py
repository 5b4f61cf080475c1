"""JSON documents for viewers, computed from what was recorded and the current state. No state.

`docs/reference/dashboard.md` names every field. Times are seconds of the Director's clock.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from director import DirectorState, Health, __version__
from director.dashboard._jobs import document, open_document, shown
from director.dashboard._tally import RECENT, largest, quantiles
from director.dashboard._tracks import WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from director import Device, DeviceStats, MemoryStats, Stats
    from director.dashboard._current import Calls, CurrentJobs, Meter
    from director.dashboard._jobs import Ended
    from director.dashboard._recorder import Recorder
    from director.dashboard._tally import Group, Groups, Recent, Second
    from director.dashboard._tracks import Row

# A device that was busy for less than this share of the last seconds has room, and is not only between two jobs.
_FREE = 0.5
_MOST_RUNNING = 100  # calls
_MOST_ENDED = 30  # calls
_MOST_LOOKED_AT = 500  # jobs, for the calls that ended last
_MOST_ROWS = 20  # functions, and tenants
_MOST_FAILURES = 50
_MOST_MODELS = 200  # replicas
_FACTS = ("state", "bytes", "declared", "measured", "pinned", "load_seconds", "used_at")  # of a replica

_ENDS = ("succeeded", "failed", "cancelled", "rejected")
SERIES = ("time", "queued", "running", "succeeded", "failed", "rejected", "wait_p50", "wait_p99", "run_p50", "run_p99")
Point = list["float | None"]


class Shown(Protocol):
    """What a dashboard shows: a Director, or that of a server process."""

    @property
    def name(self) -> str | None:
        """Its name."""

    @property
    def state(self) -> DirectorState:
        """What it does with new jobs."""

    @property
    def healthy(self) -> bool:
        """Whether some slot can compute."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """What it runs on."""

    def stats(self) -> Stats:
        """A snapshot."""

    def add_hook(self, hook: Recorder) -> None:
        """Have the recorder get what happens. Raises `RuntimeError` if it can't any more."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a Director at one time."""

    now: float
    late: float  # seconds by which the event loop was late
    director: Shown
    stats: Stats
    recorder: Recorder
    glance: CurrentJobs
    meter: Meter


def identity(director: Shown, stats: Stats) -> dict[str, Any]:
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
        "recent": RECENT,
        "devices": devices,
    }


def view(seen: Snapshot) -> dict[str, Any]:
    """The numbers and lists of a snapshot, without what `identity` says and without history."""
    now, stats, recorder = seen.now, seen.stats, seen.recorder
    seconds, span = recorder.tally.minute(now)
    recent = recorder.tally.recent(now)
    clock = time.time()
    devices = list(_devices(seen))
    return {
        "at": round(now, 4),
        "time": round(clock, 3),
        "state": seen.director.state.value,
        "healthy": seen.director.healthy,
        "open_for": round(now - recorder.opened_at, 3),
        "loop_late": round(seen.late, 4),
        "counts": {
            "queued": stats.queued,
            "running": stats.running,
            "succeeded": stats.succeeded,
            "failed": stats.failed,
            "cancelled": stats.cancelled,
            "rejected": stats.rejected,
        },
        "per_second": {kind: round(getattr(recent, kind), 2) for kind in _ENDS},
        "waited": _percentiles(recent.waited),
        "ran": _percentiles(recent.ran),
        "point": _point(clock, stats.queued, stats.running, recent),
        "last_minute": _ends(seconds),
        "batches": _batches(seconds),
        "functions": _rows((second.functions for second in seconds), span),
        "tenants": _rows((second.tenants for second in seconds), span),
        "colours": recorder.colours,
        "why_waiting": _why(seen.director, stats, devices),
        "waiting": seen.glance.waiting(stats.queued, now),
        "devices": devices,
        "models": list(islice(_models(seen), _MOST_MODELS)),
        "meter_error": seen.meter.error,
        "running": _running(seen),
        "ended": _ended(recorder),
        "failures": [failure.summary() for failure in recorder.failures.latest(_MOST_FAILURES)],
        "calls": {str(slot): _call(jobs) for slot, jobs in seen.glance.calls().items()},
    }


def points(seconds: Iterable[Second], offset: float) -> list[Point]:
    """The columns of `SERIES` for each second; `offset` turns the Director's clock into the time of day."""
    return [_point(second.at + 1 + offset, second.queued, second.running, second.recent) for second in seconds]


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


def _point(at: float, queued: int, running: int, recent: Recent) -> Point:
    waited, ran = (each or (None, None) for each in (recent.waited, recent.ran))
    rates = (round(getattr(recent, kind), 2) for kind in ("succeeded", "failed", "rejected"))
    return [round(at, 3), queued, running, *rates, *map(_short, (*waited, *ran))]


def _ends(seconds: list[Second]) -> dict[str, int]:
    counts = {kind: sum(second.ends[kind] for second in seconds) for kind in ("succeeded", "failed", "cancelled")}
    return counts | {"rejected": sum(second.rejected for second in seconds)}


def _percentiles(found: Sequence[float] | None) -> dict[str, float] | None:
    return None if found is None else {"p50": round(found[0], 7), "p99": round(found[1], 7)}


def _rows(groups: Iterable[Groups], span: float) -> list[dict[str, Any]]:
    """The functions or tenants with the most jobs, and the rest together."""
    return [_row(name, group, span) for name, group in largest(groups, _MOST_ROWS).items()]


def _row(name: str, group: Group, span: float) -> dict[str, Any]:
    return {
        "name": name,
        **group.ends,
        "per_second": round(group.ends["succeeded"] / span, 2),
        "waited": _percentiles(quantiles([group.waits], 0.5, 0.99)),
        "ran": _percentiles(quantiles([group.runs], 0.5, 0.99)),
    }


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


def _why(director: Shown, stats: Stats, devices: list[dict[str, Any]]) -> str | None:
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
    if working and all(each.abandoned == each.slots for each, _ in working):
        full = "every slot is held by a call whose job has ended"
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
            "abandoned": each.abandoned,
            "share": _share(seen, slots, calls),
            "jobs": each.jobs,
            "busy_seconds": round(each.busy_seconds, 3),
            "models": {shown(model): seen.recorder.load_seconds.get((model, device.label)) for model in each.models},
            "health": each.health.value,
            "reason": each.reason,
            "memory": _memory(each.memory),
            "used_memory": reading and reading.used_memory,
            "load": reading and reading.load,
            "temperature": reading and reading.temperature,
            "power": reading and reading.power,
            "error": reading and reading.error,
        }


def _memory(memory: MemoryStats) -> dict[str, Any]:
    return {
        "budget": memory.budget,
        "headroom": memory.headroom,
        "reserved": memory.reserved,
        "free": memory.free,
        "by": memory.by_kind,
        "asleep": memory.asleep,
    }


def _models(seen: Snapshot) -> Iterator[dict[str, Any]]:
    """The replicas, by device: those that memory is reserved for, the last used first; then the others."""
    for each in seen.stats.devices:
        label, others = each.device.label, list(each.models)
        for replica in sorted(each.memory.models, key=lambda replica: replica.used_at, reverse=True):
            if replica.model in others:
                others.remove(replica.model)
            known = {name: getattr(replica, name) for name in _FACTS}
            yield {"model": shown(replica.model), "device": label, **known}
        for model in others:
            known = dict.fromkeys(_FACTS) | {"state": "resident"}
            yield {"model": shown(model), "device": label, **known}


def _share(seen: Snapshot, slots: range, calls: Calls) -> float:
    """How busy some slots were in the last seconds, from 0 to 1."""
    since = max(seen.recorder.opened, seen.now - RECENT)
    span = (seen.now - since) * len(slots)
    if span <= 0 or not seen.recorder.tracks:
        return 0.0
    past = sum(seen.recorder.tracks[slot].busy(since, seen.now) for slot in slots)
    begun = (calls[slot][0][5] for slot in slots if slot in calls)
    present = sum(seen.now - max(since, begin) for begin in begun if begin is not None)
    return round(min(1.0, (past + present) / span), 4)


def _running(seen: Snapshot) -> list[dict[str, Any]]:
    """The calls that run, the longest first, each as one of its jobs."""
    jobs, slots = seen.recorder.jobs, seen.recorder.slots
    calls = sorted(seen.glance.calls().values(), key=lambda call: call[0][5] or 0.0)[:_MOST_RUNNING]
    return [
        open_document(raw, slots, jobs.failed_tries(raw[0]), jobs.progress(raw[0]), len(call))
        for call in calls
        for raw in call[:1]
    ]


def _ended(recorder: Recorder) -> list[dict[str, Any]]:
    """The calls that ended last, each as the latest of its jobs that ended alike; and jobs that never ran."""
    calls: dict[tuple[Any, ...], list[Ended]] = {}
    for ended in recorder.jobs.latest(_MOST_LOOKED_AT):
        alone = ended.job if ended.started is None else None
        calls.setdefault((ended.slot, ended.started, ended.state, alone), []).append(ended)
    return [document(call[0], recorder.slots, len(call)) for call in islice(calls.values(), _MOST_ENDED)]


def _call(jobs: list[Any]) -> list[Any]:
    """A running call as it is sent: its start, the number of its jobs, one of them and its function."""
    first = jobs[0]
    return [round(first[5], 4), len(jobs), first[0], shown(first[1])]


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 7)
