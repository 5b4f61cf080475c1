"""One recorded story: header, charts, tables, `director top`, timeline, stats and Prometheus have the same numbers."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import outcome, rested
from prometheus_client import CollectorRegistry

from director import Director, QueueFull
from director.cli._top.report import report
from director.dashboard import Dashboard
from director.dashboard._view import SERIES
from director.prometheus import DirectorCollector, Durations
from director.timeline import Timeline
from director.timeline._figures import figures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from harness.gates import Gate

    from director.testing import TestClock

STATES = ("succeeded", "failed", "cancelled")


class Seen:
    """What each observer says of the story."""

    def __init__(self, clock: TestClock) -> None:
        self.durations, self.timeline = Durations(), Timeline(memory=False)
        self.director = Director(
            "simulated:1", name="vision", clock=clock, max_queue=9, hooks=[self.durations, self.timeline]
        )
        self.dashboard = Dashboard(self.director)
        self.registry = CollectorRegistry()
        DirectorCollector(self.director, self.durations, registry=self.registry)

    async def look(self) -> None:
        frames = self.dashboard._source.frames()
        self.whole = json.loads((await anext(frames))[1])
        await frames.aclose()
        self.now = await self.dashboard.snapshot()
        self.stats = self.director.stats()

    def metric(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(name, {"director": "vision", **labels})
        assert value is not None
        return value


@pytest.fixture
async def seen(clock: TestClock, gate: Gate) -> AsyncIterator[Seen]:
    """Ten seconds: a `wait` of 1 s, three `detect` of 2 s, four `embed` of 1 s in one call, a `fail` of 1 s, and 1 s.

    One job was cancelled before it ran, and one refused.
    """

    def wait(device: object) -> None:
        gate(device)
        clock.advance(1)

    def detect(_: object) -> None:
        clock.advance(2)

    def embed(_: object, items: list[int]) -> list[int]:
        clock.advance(1)
        return items

    def fail(_: object) -> None:
        clock.advance(1)
        raise ValueError("no good")

    seen = Seen(clock)
    async with seen.director as director:
        batched = director.function(embed, max_batch_size=4, tenant="bob")
        held = director.submit(wait)
        await gate.begun()
        jobs: list[Any] = [director.submit(detect, tenant="alice") for _ in range(3)]
        jobs += [batched.submit(number) for number in range(4)]
        jobs.append(director.submit(fail))
        jobs.append(director.submit(detect, name="never"))
        with pytest.raises(QueueFull):
            director.submit(detect)
        jobs[-1].cancel()
        gate.open()
        await asyncio.gather(*map(outcome, [held, *jobs]))
        await rested(director)
        clock.advance(1)
        await seen.look()
        yield seen


async def test_the_counts(seen: Seen) -> None:
    truth = {"succeeded": 8, "failed": 1, "cancelled": 1}
    assert {state: getattr(seen.stats, state) for state in STATES} == truth
    assert {state: seen.now["counts"][state] for state in STATES} == truth
    assert {state: seen.now["last_minute"][state] for state in STATES} == truth
    assert Counter(record.state for record in seen.timeline.story().jobs) == truth
    assert {state: seen.metric("director_jobs_total", outcome=state) for state in STATES} == truth
    assert seen.now["counts"]["rejected"] == seen.now["last_minute"]["rejected"] == seen.stats.rejected == 1
    assert seen.metric("director_jobs_total", outcome="rejected") == seen.timeline.story().rejected == 1
    for state in STATES:
        assert sum(row[state] for row in seen.now["functions"]) == truth[state]


async def test_the_header_and_the_end_of_the_charts(seen: Seen) -> None:
    """The last point is the present, and has the numbers of the header; the point before has those of its second."""
    now = seen.now
    point = dict(zip(SERIES, now["point"], strict=True))
    assert point["time"] == now["time"]
    assert (point["queued"], point["running"]) == (now["counts"]["queued"], now["counts"]["running"]) == (0, 0)
    for kind in ("succeeded", "failed", "rejected"):
        assert point[kind] == now["per_second"][kind]
    for name, percentiles in (("wait", now["waited"]), ("run", now["ran"])):
        assert {"p50": point[f"{name}_p50"], "p99": point[f"{name}_p99"]} == percentiles
    assert seen.whole["series"] == list(SERIES)
    assert seen.whole["points"][-1][1:] == now["point"][1:]
    assert now["per_second"]["succeeded"] == 0.8
    assert now["per_second"]["failed"] == 0.1


async def test_the_percentiles(seen: Seen) -> None:
    told = figures(seen.timeline.story())
    assert told.waits is not None
    assert told.runs is not None
    for now, timeline in ((seen.now["waited"], told.waits), (seen.now["ran"], told.runs)):
        assert now["p50"] == pytest.approx(timeline.p50, rel=0.05)
        assert now["p99"] == pytest.approx(timeline.p99, rel=0.05)
    assert seen.metric("director_job_run_seconds_count") == told.runs.count == 9
    assert seen.metric("director_job_run_seconds_sum") == pytest.approx(told.runs.mean * told.runs.count)


async def test_functions_and_tenants(seen: Seen) -> None:
    rows = {row["name"]: row for row in seen.now["functions"]}
    assert list(rows) == ["embed", "detect", "fail", "never", "wait"], "those with the most jobs first"
    assert [rows["detect"][key] for key in STATES] == [3, 0, 0]
    assert rows["detect"]["ran"]["p50"] == pytest.approx(2, rel=0.05)
    assert rows["fail"]["failed"] == rows["never"]["cancelled"] == 1
    assert rows["never"]["waited"] is rows["never"]["ran"] is None
    assert {row["name"]: row["succeeded"] for row in seen.now["tenants"]} == {"bob": 4, "alice": 3}
    assert set(seen.now["colours"]) == set(rows)


async def test_a_call_is_one_row(seen: Seen) -> None:
    rows = [(row["name"], row["jobs"], row["state"]) for row in seen.now["ended"]]
    assert Counter(rows)["embed", 4, "succeeded"] == 1
    assert sum(row["jobs"] for row in seen.now["ended"]) == 10
    assert sum(row["jobs"] for row in seen.now["ended"] if row["device"]) == sum(
        each.jobs for each in seen.stats.devices
    )


async def test_director_top(seen: Seen) -> None:
    lines = list(report(seen.now))
    assert lines[1] == (
        "0 waiting, 0 running, 0 of 1 slot busy; "
        f"last 10 s: 0.8/s, wait p50 {shown(seen, 'waited', 'p50')}, p99 {shown(seen, 'waited', 'p99')}, "
        f"run p50 {shown(seen, 'ran', 'p50')}, p99 {shown(seen, 'ran', 'p99')}; "
        "last minute: 1.5 jobs per call, 1 failed, 1 cancelled, 1 refused; "
        "since the start: 1 failed, 1 cancelled, 1 refused"
    )
    text = "\n".join(lines)
    assert re.search(r"^  embed +0\.4/s +0 failed +wait p50 ", text, re.M)
    assert re.search(r"^  alice +0\.3/s +0 failed +wait p50 ", text, re.M)


def shown(seen: Seen, what: str, share: str) -> str:
    from director import _format

    return _format.duration(seen.now[what][share])
