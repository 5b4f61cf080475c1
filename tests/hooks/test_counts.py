"""In a storm of all fates every counter equals the truth: stats, Prometheus, spans, timeline, dashboard, events.

Threads take the jobs in an order of their own, so a seed says what is submitted and not how it goes; the sums have to
be right however it goes.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from director import Director, Job, QueueFull
from director.dashboard._recorder import Recorder
from director.otel import Spans
from director.prometheus import DirectorCollector, Durations
from director.timeline import Timeline
from hooks import fates

if TYPE_CHECKING:
    from collections.abc import Callable

    from director.events import Event

JOBS = 300
SCRAPED = ("director_jobs_total", "director_job_run_seconds_count", "director_device_jobs_total")
STATES = ("succeeded", "failed", "cancelled")


class Observed:
    """A Director with every recorder there is."""

    def __init__(self, executor: Any) -> None:
        self.events: Counter[str] = Counter()
        self.durations, self.timeline = Durations(), Timeline(memory=False)
        self.board = Recorder(lambda: (0, 0, 0), lambda: None)
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        hooks: list[Any] = [self._count, self.durations, self.timeline, self.board, Spans(provider)]
        slots = 2 if executor == "thread" else 1
        self.director = Director("simulated:2", slots=slots, hooks=hooks, executor=executor, max_queue=40)
        self.collector = DirectorCollector(self.director, self.durations, registry=None)

    def _count(self, event: Event) -> None:
        self.events[type(event).__name__] += 1

    def spans(self) -> Counter[str]:
        return Counter(span.name.split()[0] for span in self._exporter.get_finished_spans())

    def scraped(self) -> dict[str, float]:
        """Jobs by their ends, and the number of durations."""
        found: dict[str, float] = {}
        for family in self.collector.collect():
            for sample in family.samples:
                if sample.name in (
                    "director_jobs_total",
                    "director_job_run_seconds_count",
                    "director_device_jobs_total",
                ):
                    name = sample.labels.get("outcome", sample.name)
                    found[name] = found.get(name, 0) + sample.value
        return found


class Storm:
    """Submits jobs of all fates and knows what became of them."""

    def __init__(self, director: Director, seed: int) -> None:
        self._director = director
        self._random = random.Random(seed)
        self._batch = director.function(fates.together, max_batch_size=4, max_wait=0.001)
        self._apart = director.function(fates.apart, max_batch_size=4, isolate_failures=True)
        self._numbers = iter(range(10**6))
        self.jobs: list[Job[Any]] = []
        self.rejected = 0
        self._fates: list[Callable[[], Job[Any]]] = [
            functools.partial(director.submit, fates.succeed),
            functools.partial(director.submit, fates.fail),
            functools.partial(director.submit, fates.nap, timeout=0.002),
            functools.partial(director.submit, fates.nap, deadline=0.004),
            functools.partial(director.submit, fates.nap, priority=1, tenant="other"),
            lambda: director.submit(fates.fail_at_first, next(self._numbers), retries=3, retry_on=ConnectionError),
            lambda: director.submit(fates.fail_at_first, next(self._numbers), retries=1, retry_on=ConnectionError),
            lambda: director.submit(
                fates.fail_at_first, next(self._numbers), retries=3, retry_on=ConnectionError, backoff=0.002
            ),
            lambda: self._batch.submit(next(self._numbers)),
            lambda: self._apart.submit(next(self._numbers)),
        ]

    async def blow(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            try:
                job = self._random.choice(self._fates)()
            except QueueFull:
                self.rejected += 1
                await asyncio.sleep(0.001)
                continue
            self.jobs.append(job)
            when = self._random.random()
            if when < 0.1:
                job.cancel()
            elif when < 0.4:  # as it waits, runs, comes to its end, or waits for another try
                loop.call_later(self._random.random() * 0.01, job.cancel)
            if self._random.random() < 0.2:
                await asyncio.sleep(self._random.random() * 0.003)

    async def read(self, count: int) -> None:
        """Streams, some of which are left early. They wait for room, so none is refused."""
        for number in range(count):
            values = self._director.stream(fates.stream, when_full="wait")
            async for value in values:
                if number % 2 and value:
                    break
            await values.aclose()


def ends(jobs: list[Job[Any]]) -> dict[str, int]:
    assert all(job.done() for job in jobs)
    found = Counter(
        "cancelled" if job.cancelled() else "succeeded" if job.exception() is None else "failed" for job in jobs
    )
    assert found == Counter(job.state.value for job in jobs)
    return {state: found[state] for state in STATES}


@pytest.mark.parametrize("close_early", [False, True])
@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("seed", range(3))
async def test_all_counters_equal_the_truth(seed: int, executor: Any, close_early: bool) -> None:
    fates.calls = calls = fates.Calls()
    seen = Observed(executor)
    storm = Storm(seen.director, seed)
    async with seen.director:
        await asyncio.gather(*(seen.director.run(fates.nap) for _ in range(4)))  # the children are there
        await asyncio.gather(storm.blow(JOBS if executor == "thread" else JOBS // 3), storm.read(8))
        if close_early:
            await seen.director.close(0.0)
        else:
            await seen.director.drain()
    stats, events = seen.director.stats(), seen.events
    jobs = storm.jobs
    truth = ends(jobs)
    # With the jobs of the streams and the first four, of which nobody holds a handle.
    told = {state: events[f"Job{state.capitalize()}"] for state in STATES}
    streams = {state: told[state] - truth[state] for state in STATES}
    assert sum(streams.values()) == 8 + 4
    accepted = len(jobs) + 8 + 4
    started, retried = events["JobStarted"], events["JobRetried"]

    assert events["JobSubmitted"] == accepted
    assert events["JobRejected"] == storm.rejected == stats.rejected
    assert {state: getattr(stats, state) for state in STATES} == told
    assert stats.queued == stats.running == 0
    assert sum(device.jobs for device in stats.devices) == started

    scraped = seen.scraped()
    assert {state: scraped[state] for state in STATES} == told
    assert scraped["rejected"] == storm.rejected
    assert scraped["director_job_run_seconds_count"] == scraped["director_device_jobs_total"] == started

    spans = seen.spans()
    assert spans["queue"] == accepted + retried

    story = seen.timeline.story()
    assert Counter(record.state for record in story.jobs) == Counter(told)
    assert len(story.tries) == retried
    assert story.rejected == storm.rejected
    assert sum(record.started is not None for record in (*story.jobs, *story.tries)) == started
    assert all(record.ended is not None for record in (*story.jobs, *story.tries))

    seconds = list(seen.board.tally._seconds)
    assert {state: sum(second.ends[state] for second in seconds) for state in STATES} == told
    assert sum(second.rejected for second in seconds) == storm.rejected
    assert sum(sum(second.runs.values()) for second in seconds) == started
    assert sum(size * count for second in seconds for size, count in second.calls.items()) == started

    if executor == "thread":
        assert calls.plain + len(calls.items) == started
        assert spans["run"] == calls.calls
