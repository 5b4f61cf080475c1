"""Stories made by hand, and by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from director.hooks import JobRecord
from director.testing import simulated_devices
from director.timeline._story import Load, MemorySample, Story, calls_of, in_order

if TYPE_CHECKING:
    from collections.abc import Iterable

DEVICES = simulated_devices(2)


def ran(job: int, slot: int, submitted: float, started: float, ended: float | None, **more: Any) -> JobRecord:
    """A job that ran, or runs if it has not ended."""
    state = "running" if ended is None else "succeeded"
    record = JobRecord(job, "detect", state, slot, submitted, started, ended, ended, None)
    return record._replace(**more)


def never_ran(job: int, submitted: float, ended: float | None, **more: Any) -> JobRecord:
    """A job that was cancelled while it waited, or waits if it has not ended."""
    state = "queued" if ended is None else "cancelled"
    return JobRecord(job, "detect", state, None, submitted, None, ended, ended, None)._replace(**more)


def story(records: Iterable[JobRecord], *, until: float, since: float = 0.0, **more: Any) -> Story:
    """A story of two devices with a slot each, unless `more` says otherwise."""
    jobs, tries = in_order(records)
    facts: dict[str, Any] = {
        "name": None,
        "since": since,
        "until": until,
        "wall": 1_700_000_000.0,
        "slots": tuple(DEVICES),
        "jobs": jobs,
        "tries": tries,
        "calls": calls_of((*jobs, *tries)),
        "loads": (),
        "incidents": (),
        "rejected": 0,
        "forgotten": 0,
        "memory": (),
    }
    return Story(**{**facts, **more})


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Any story that a Director could have: calls of a slot follow each other, jobs are submitted before they start."""
    moments = st.floats(0, 5, allow_nan=False)
    slots = draw(st.lists(st.sampled_from(DEVICES), min_size=1, max_size=3).map(lambda it: sorted(it, key=str)))
    records: list[JobRecord] = []
    until = draw(st.floats(1, 10))
    for slot in range(len(slots)):
        now = 0.0
        for length in draw(st.lists(moments, max_size=6)):
            began = now + draw(st.sampled_from([0.0, 1e-10, 0.001, 0.7]))
            ended = None if draw(st.booleans()) and began + length > until else began + length
            for _ in range(draw(st.integers(1, 3))):  # a batch
                submitted = began - draw(moments)
                failed = ended is not None and draw(st.booleans())
                more = {"state": "failed", "error": "E: x"} if failed else {}
                records.append(ran(len(records) + 1, slot, submitted, began, ended, **more))
            now = began + length
            if ended is not None and draw(st.booleans()):
                again = ran(len(records) + 1, slot, began, now + 1, now + 1)
                records += [again._replace(started=began, ended=ended, state="retried", error="E: z"), again]
                now += 1
            if ended is None:
                break
    for waited in draw(st.lists(moments, max_size=4)):
        submitted = draw(moments)
        ended = submitted + waited if draw(st.booleans()) else None
        records.append(never_ran(len(records) + 1, submitted, ended))
    loads = [
        Load("model", draw(st.sampled_from(slots)), began, began + draw(moments), draw(st.sampled_from([None, "E: y"])))
        for began in draw(st.lists(moments, max_size=3))
    ]
    memory = [MemorySample(at, 10, {slots[0].label: 20}) for at in sorted(draw(st.lists(moments, max_size=3)))]
    return story(
        records,
        until=until,
        since=draw(st.floats(0, 1)),
        slots=tuple(slots),
        loads=tuple(loads),
        memory=tuple(memory),
    )
