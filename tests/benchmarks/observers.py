"""What it costs to watch a Director: the same burst of no-op jobs with nobody watching, and with each kind of watcher.

The goal is about the difference, so each watcher's cost is also told as what it adds to the job that nobody watched in
the same round.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from director.cli._bench.contenders import DIRECTOR, HOOKED, Contender, OpenContender, present
from director.cli._bench.overhead import awaited_in_turn
from director.cli._bench.sheet import Effort, Sheet, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from director.events import Hook

JOB, ADDED = "a job", "added"


class OnlyFailures:
    """A hook that wants the events that never happen here."""

    def __init__(self) -> None:
        from director.events import JobFailed

        self.wants = (JobFailed,)

    def __call__(self, event: object) -> None:
        """Take note of it."""


def _timeline() -> Hook:
    from director.timeline import Timeline

    return Timeline(memory=False)


def _durations() -> Hook:
    from director.prometheus import Durations

    return Durations()


def _guard() -> Hook:
    from director.guard import Guard

    logging.getLogger("director.guard").setLevel(logging.ERROR)  # it finds that these bursts hold the loop up: rightly
    return Guard()


def _spans() -> Hook:
    from director.otel import Spans

    return Spans()


def _watched_by(name: str, make: Callable[[], Hook], needs: str | None = None) -> Contender:
    @asynccontextmanager
    async def open_seat(slots: int) -> AsyncIterator[OpenContender]:
        from director import Director

        async with Director(f"cpu:{slots}", max_queue=None, hooks=[make()]) as director:
            yield OpenContender(director.submit, director.run)

    return Contender(f"director with {name}", open_seat, needs)


@asynccontextmanager
async def _scraped(slots: int) -> AsyncIterator[OpenContender]:
    """With the collector of metrics; a scrape happens every 15 seconds or so, and so not within a burst."""
    from director import Director
    from director.prometheus import DirectorCollector

    async with Director(f"cpu:{slots}", max_queue=None) as director:
        collector = DirectorCollector(director, registry=None)
        yield OpenContender(director.submit, director.run)
        assert list(collector.collect())


@asynccontextmanager
async def _shown(slots: int) -> AsyncIterator[OpenContender]:
    """With a dashboard that nobody looks at."""
    from director import Director
    from director.dashboard import Dashboard

    director = Director(f"cpu:{slots}", max_queue=None)
    Dashboard(director)
    async with director:
        yield OpenContender(director.submit, director.run)


METRICS = Contender("director with metrics", _scraped, needs="prometheus_client")
TIMELINE = _watched_by("a timeline", _timeline)
WATCHED = (
    METRICS,
    _watched_by("a hook for failures", OnlyFailures),
    TIMELINE,
    _watched_by("histograms", _durations, needs="prometheus_client"),
    _watched_by("a guard", _guard),
    Contender("director with a dashboard", _shown),
    HOOKED,
    _watched_by("spans, no SDK", _spans, needs="opentelemetry"),
)


def measure(effort: Effort) -> Sheet:
    """A burst on two slots, awaited in turn."""
    sheet = Sheet()
    contenders = (DIRECTOR, *present(WATCHED))
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in turns(contenders, rounds=effort.pick(9, 5)):
        samples[contender.name].append(asyncio.run(awaited_in_turn(contender, 2, effort.pick(20_000, 4_000))))
    for name, costs in samples.items():
        for cost, bare in zip(costs, samples[DIRECTOR.name], strict=True):
            sheet.add(name, JOB, "µs", cost)
            if name != DIRECTOR.name:
                sheet.add(name, ADDED, "µs", cost - bare)
    return sheet
