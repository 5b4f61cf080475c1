"""`director.otel`: the spans that come out of the SDK."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import outcome, until
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from director import Director, Model
from director.otel import Spans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.gates import Gate


class Tracing:
    """An SDK that keeps its spans in memory, and the hook that feeds it."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self.exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("application")
        self.hook = Spans(self.provider)

    def spans(self, *names: str) -> list[ReadableSpan]:
        """Those of these names, in the order in which they ended."""
        return [span for span in self.exporter.get_finished_spans() if span.name in names]


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    tracing = Tracing()
    yield tracing
    tracing.provider.shutdown()


def number(span: Any) -> int:
    return span.get_span_context().span_id if hasattr(span, "get_span_context") else span.context.span_id  # type: ignore[no-any-return]


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


async def test_queue_and_run_are_children_of_the_submitter_and_the_function_s_own_of_run(tracing: Tracing) -> None:
    def infer(_device: Any) -> None:
        with tracing.tracer.start_as_current_span("own"):
            pass

    async with Director("simulated:1", hooks=[tracing.hook]) as director:
        with tracing.tracer.start_as_current_span("request") as request:
            await director.run(infer, priority=2)
            assert trace.get_current_span() is request
    queue, own, run = tracing.spans("queue infer", "own", "run infer")
    assert [span.name for span in (queue, own, run)] == ["queue infer", "own", "run infer"]
    assert parent(queue) == parent(run) == number(request)
    assert parent(own) == number(run)
    assert queue.end_time == run.start_time
    assert queue.start_time is not None
    assert queue.end_time is not None
    assert queue.start_time <= queue.end_time
    assert dict(run.attributes or {}) == {
        "director.job.id": 1,
        "director.job.name": "infer",
        "director.job.priority": 2,
        "director.job.attempt": 1,
        "director.device": "simulated:0",
        "director.device.uuid": "SIM-0",
        "director.batch.size": 1,
    }
    assert run.instrumentation_scope is not None
    assert run.instrumentation_scope.name == "director"


async def test_a_load_in_advance_has_no_priority_for_the_user_gave_none(tracing: Tracing) -> None:
    model = Model(lambda device: device, name="m")
    async with Director("simulated:1", hooks=[tracing.hook]) as director:
        await director.load(model)
    queue, run = tracing.spans("queue loading m", "run loading m")
    for span in (queue, run):
        assert (span.attributes or {})["director.job.id"] == 1
        assert "director.job.priority" not in (span.attributes or {})


async def test_each_job_has_its_own_submitter_s_trace(tracing: Tracing) -> None:
    async def request(director: Director, name: str) -> int:
        with tracing.tracer.start_as_current_span(name) as span:
            await asyncio.gather(*(director.run(lambda _: None, name=f"{name} job") for _ in range(5)))
            return span.get_span_context().trace_id

    async with Director("simulated:2", hooks=[tracing.hook]) as director:
        traces = await asyncio.gather(*(request(director, f"request {n}") for n in range(10)))
    for n, number_of_trace in enumerate(traces):
        spans = tracing.spans(f"queue request {n} job", f"run request {n} job")
        assert len(spans) == 10
        assert {span.context.trace_id for span in spans if span.context} == {number_of_trace}


async def test_a_job_without_a_submitter_s_span_is_a_root(tracing: Tracing) -> None:
    async with Director("simulated:1", hooks=[tracing.hook]) as director:
        await director.run(lambda _: None, name="it")
    assert [parent(span) for span in tracing.spans("queue it", "run it")] == [None, None]


async def test_what_a_job_raises_is_in_its_run_span(tracing: Tracing) -> None:
    def fail(_device: Any) -> None:
        raise ZeroDivisionError("no")

    async with Director("simulated:1", hooks=[tracing.hook]) as director:
        await outcome(director.run(fail))
    [queue] = tracing.spans("queue fail")
    [run] = tracing.spans("run fail")
    assert queue.status.status_code is trace.StatusCode.UNSET
    assert run.status.status_code is trace.StatusCode.ERROR
    [event] = run.events
    assert (event.attributes or {})["exception.type"] == "ZeroDivisionError"


async def test_jobs_that_never_ran_have_waited(tracing: Tracing, gate: Gate) -> None:
    async with Director("simulated:1", hooks=[tracing.hook]) as director:
        director.submit(gate, name="held")
        await gate.begun()
        with tracing.tracer.start_as_current_span("request") as request:
            cancelled = director.submit(gate, name="cancelled")
            late = director.submit(gate, name="late", deadline=0.01)
        cancelled.cancel()
        await outcome(late)
        gate.open()
    [first], [second] = tracing.spans("queue cancelled"), tracing.spans("queue late")
    assert tracing.spans("run cancelled", "run late") == []
    assert parent(first) == parent(second) == number(request)
    assert (first.attributes or {})["director.job.state"] == "cancelled"
    assert first.status.status_code is trace.StatusCode.UNSET
    assert second.status.status_code is trace.StatusCode.ERROR


async def test_a_call_that_outlives_its_job_has_its_whole_span(tracing: Tracing, gate: Gate) -> None:
    async with Director("simulated:1", hooks=[tracing.hook]) as director:
        job = director.submit(gate, name="left")
        await gate.begun()
        job.cancel()
        assert tracing.spans("run left") == []
        gate.open()
        await until(lambda: tracing.spans("run left"))
    assert len(tracing.spans("queue left")) == 1


async def test_a_batch_has_one_run_span_linked_to_all_submitters(tracing: Tracing, gate: Gate) -> None:
    async with Director("simulated:1", hooks=[tracing.hook]) as director:
        director.submit(gate, name="held")
        await gate.begun()
        many = director.function(lambda _, items: items, max_batch_size=3, name="many")
        requests, jobs = [], []
        for n in range(3):
            with tracing.tracer.start_as_current_span(f"request {n}") as request:
                requests.append(number(request))
                jobs.append(many.submit(n))
        gate.open()
        await asyncio.gather(*jobs)
    [run] = tracing.spans("run many")
    assert parent(run) == requests[0]
    assert [link.context.span_id for link in run.links] == requests[1:]
    assert (run.attributes or {})["director.batch.size"] == 3
    assert [parent(span) for span in tracing.spans("queue many")] == requests


async def test_submitted_from_another_thread(tracing: Tracing) -> None:
    async with Director("simulated:1", hooks=[tracing.hook]) as director:
        executor = director.as_executor(name="it")

        def work() -> int:
            with tracing.tracer.start_as_current_span("request") as request:
                executor.submit(lambda: None).result()
                return number(request)

        request = await asyncio.to_thread(work)
    assert [parent(span) for span in tracing.spans("queue it", "run it")] == [request] * 2


async def test_nothing_is_kept_of_jobs_that_are_over(tracing: Tracing, gate: Gate) -> None:
    async with Director("simulated:2", hooks=[tracing.hook]) as director:
        jobs = [director.submit(lambda _: None) for _ in range(50)]
        for job in jobs[::3]:
            job.cancel()
        await asyncio.wait(jobs)
    assert (tracing.hook._submitters, tracing.hook._called) == ({}, set())


async def test_without_an_sdk_it_does_nothing() -> None:
    async with Director("simulated:1", hooks=[Spans()]) as director:
        assert await director.run(lambda _: 42) == 42


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "director.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"pip install 'gpu-director\[otel\]'"):
        import director.otel  # noqa: F401
