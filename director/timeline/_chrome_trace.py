"""A story as a Chrome trace: JSON that ui.perfetto.dev and chrome://tracing open.

Perfetto's importer requires: events sorted by time; slices of one thread that nest or follow each other to the
nanosecond; thread numbers that are unique over all processes; each end of a flow right after the slice that it belongs
to, at the same time. A device is shown as a process and a slot as its thread.
"""

from __future__ import annotations

import heapq
import itertools
import json
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from director.timeline._figures import queue_depth

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from director.hooks import JobRecord
    from director.timeline._story import Call, Story

Event: TypeAlias = dict[str, Any]

_LOOP, _SUBMISSIONS = 1, 2  # the process of what belongs to no device, and its thread
_FIRST_DEVICE = 10  # process of the first device
_FIRST_SLOT = 1_000  # thread of the first slot
_FIRST_LOADS = 1_000_000  # thread of the loads on the first device
_MARK = 1_000  # ns; the width of a submission if there is room, so that it can be clicked on


def trace(story: Story) -> dict[str, Any]:
    """The whole trace as one object for `json.dump`."""
    return {"traceEvents": list(events(story)), "displayTimeUnit": "ms", "otherData": _circumstances(story)}


def write(story: Story, lines: Any) -> None:
    """Write the trace to a text file, one event per line, without holding all of it in memory."""
    lines.write('{"displayTimeUnit": "ms", "otherData": ' + json.dumps(_circumstances(story)) + ', "traceEvents": [\n')
    for number, event in enumerate(events(story)):
        lines.write((",\n" if number else "") + json.dumps(event, separators=(",", ":")))
    lines.write("\n]}\n")


def _circumstances(story: Story) -> dict[str, Any]:
    return {
        "director": story.name,
        "began": story.wall,
        "forgotten_jobs": story.forgotten,
        "rejected_jobs": story.rejected,
    }


def events(story: Story) -> Iterator[Event]:
    """The names of the lanes, then everything that happened, sorted by time."""
    scribe = _TraceWriter(story)
    yield from scribe.names()
    # Each part is in order; where times are equal the earlier part comes first, so that flows begin before they end.
    parts = (scribe.loads(), scribe.submissions(), scribe.calls(), scribe.incidents(), scribe.queue(), scribe.memory())
    yield from heapq.merge(*parts, key=itemgetter("ts"))


class _TraceWriter:
    """Writes events with times in microseconds since the beginning of the story, exact to the nanosecond."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._process = {device: _FIRST_DEVICE + n for n, device in enumerate(story.devices)}

    # ---- lanes

    def names(self) -> Iterator[Event]:
        yield from _name(_LOOP, _SUBMISSIONS, self._story.name or "director", "submissions", order=0)
        for device, process in self._process.items():
            n = process - _FIRST_DEVICE
            yield from _name(process, _FIRST_LOADS + n, f"{device.label} {device.name}", "model loads", order=1 + n)
        for slot, device in enumerate(self._story.slots):
            process = self._process[device]
            yield _meta("thread_name", process, _FIRST_SLOT + slot, {"name": f"slot {slot}"})

    # ---- slices and flows

    def submissions(self) -> Iterator[Event]:
        called = {job.job for call in self._story.calls for job in call.jobs}
        moments = [self._nanoseconds(job.submitted) for job in self._story.jobs]
        for job, began, following in itertools.zip_longest(self._story.jobs, moments, moments[1:], fillvalue=None):
            assert job is not None
            assert began is not None
            width = _MARK if following is None else min(_MARK, following - began)
            yield _slice(_LOOP, _SUBMISSIONS, f"submit {job.name}", began, began + width, {"job": job.job})
            if job.job in called:
                yield _flow("s", _LOOP, _SUBMISSIONS, job, began)

    def calls(self) -> Iterator[Event]:
        story = self._story
        for call in story.calls:
            process, thread = self._process[story.slots[call.slot]], _FIRST_SLOT + call.slot
            began, ended = (self._nanoseconds(at) for at in story.within(call))
            yield _slice(process, thread, _title(call), began, ended, _facts(call))
            for job in call.jobs:
                yield _flow("f", process, thread, job, began)

    def loads(self) -> list[Event]:
        return sorted(self._loads(), key=itemgetter("ts"))

    def _loads(self) -> Iterator[Event]:
        free: dict[int, int] = {}  # by thread: of two loads at once the second is shown after the first
        for load in sorted(self._story.loads, key=lambda load: load.began):
            process = self._process[load.device]
            thread = _FIRST_LOADS + process - _FIRST_DEVICE
            began = max(self._nanoseconds(load.began), free.get(thread, 0))
            ended = free[thread] = max(began, self._nanoseconds(load.ended))
            said = {} if load.error is None else {"error": load.error}
            yield _slice(
                process, thread, f"load {load.model}", began, ended, {"seconds": load.ended - load.began, **said}
            )

    def incidents(self) -> Iterator[Event]:
        for at, device, reason in self._story.incidents:
            name = "in service again" if reason is None else f"out of service: {reason}"
            process = self._process[device]
            when = self._nanoseconds(at) / 1e3
            yield {"ph": "i", "s": "p", "name": name, "cat": "director", "pid": process, "tid": process, "ts": when}

    # ---- counters

    def queue(self) -> Iterator[Event]:
        yield _counter(_LOOP, "queue", 0, {"jobs": 0})
        for at, waiting in queue_depth(self._story):
            yield _counter(_LOOP, "queue", self._nanoseconds(at), {"jobs": waiting})

    def memory(self) -> Iterator[Event]:
        processes = {device.label: process for device, process in self._process.items()}
        for sample in self._story.memory:
            at = self._nanoseconds(sample.at)
            if sample.process is not None:
                yield _counter(_LOOP, "memory", at, {"process": sample.process})
            for label, used in sample.devices.items():
                yield _counter(processes[label], "memory", at, {"used": used})

    def _nanoseconds(self, at: float) -> int:
        return round(max(0.0, at - self._story.since) * 1e9)


def _title(call: Call) -> str:
    first = call.jobs[0]
    return first.name if len(call.jobs) == 1 else f"{first.name} x {len(call.jobs)}"


def _facts(call: Call) -> dict[str, Any]:
    """The details of a slice."""
    first = call.jobs[0]
    facts: dict[str, Any] = {
        "job": first.job if len(call.jobs) == 1 else [job.job for job in call.jobs],
        "waited_ms": round(1e3 * max(call.began - job.submitted for job in call.jobs), 6),
        "state": "running" if call.ended is None else first.state,
    }
    if first.error is not None:
        facts["error"] = first.error
    return facts


def _slice(process: int, thread: int, name: str, began: int, ended: int, facts: dict[str, Any]) -> Event:
    return {
        "ph": "X", "name": name, "cat": "director", "pid": process, "tid": thread,
        "ts": began / 1e3, "dur": (ended - began) / 1e3, "args": facts,
    }  # fmt: skip


def _flow(phase: str, process: int, thread: int, job: JobRecord, at: int) -> Event:
    event = {
        "ph": phase, "name": "waits", "cat": "director", "id": job.job, "pid": process, "tid": thread, "ts": at / 1e3
    }  # fmt: skip
    return {**event, "bp": "e"} if phase == "f" else event


def _counter(process: int, name: str, at: int, values: dict[str, int]) -> Event:
    return {"ph": "C", "name": name, "pid": process, "ts": at / 1e3, "args": values}


def _name(process: int, thread: int, process_name: str, thread_name: str, order: int) -> Iterable[Event]:
    yield _meta("process_name", process, thread, {"name": process_name})
    yield _meta("process_sort_index", process, thread, {"sort_index": order})
    yield _meta("thread_name", process, thread, {"name": thread_name})


def _meta(kind: str, process: int, thread: int, values: dict[str, Any]) -> Event:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": values}
