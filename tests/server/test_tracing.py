"""A span of the application is the parent of a job's spans in the server, and of those that its function makes."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from harness import served, traced
from opentelemetry.sdk.trace import TracerProvider

from director import Director
from director.otel import Spans
from server.conftest import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from opentelemetry.trace import Span

    from server.conftest import Holder

    Make = Callable[..., Awaitable[Director]]
    Read = Callable[..., Awaitable[list[dict[str, Any]]]]

pytestmark = pytest.mark.programs
TRACER = TracerProvider().get_tracer("application")


@pytest.fixture
def spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Waits for spans of these names that the server or its children have made; in the order of their ends."""
    file = tmp_path / "spans"
    monkeypatch.setenv(traced.FILE, str(file))

    async def read(*names: str) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            return [*map(json.loads, file.read_text().splitlines())] if file.exists() else []

        await until(lambda: {*names} <= {span["name"] for span in found()})
        return found()

    return read


def number(span: Span) -> int:
    """Of a span."""
    return span.get_span_context().span_id


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_the_spans_of_a_call_are_below_that_of_its_submission(make: Make, spans: Read, executor: str) -> None:
    director = await make(executor=executor)

    with TRACER.start_as_current_span("request") as request:
        process = await director.run(traced.infer, priority=2)
    told = await spans("run infer")

    queue, own, run = told
    assert [span["name"] for span in told] == ["queue infer", "own", "run infer"]
    assert {span["process"] for span in told} == {process} != {os.getpid()}
    assert {span["trace"] for span in told} == {request.get_span_context().trace_id}
    assert queue["parent"] == run["parent"] == number(request)
    assert own["parent"] == run["span"]
    assert not run["error"]
    assert run["attributes"] == {
        "director.job.id": 1,
        "director.job.name": "infer",
        "director.job.priority": 2,
        "director.job.attempt": 1,
        "director.device": "simulated:0",
        "director.device.uuid": "SIM-0",
        "director.batch.size": 1,
    }


async def test_the_wait_in_the_server_is_the_queue_span(make: Make, spans: Read, hold: Callable[[], Holder]) -> None:
    director, holder = await make(), hold()
    held = director.submit(served.hold, holder.path)
    await holder.begun()
    with TRACER.start_as_current_span("request"):
        job = director.submit(traced.infer)
    holder.let_go()
    await asyncio.wait_for(asyncio.gather(held, job), PATIENCE)

    [queue, *_] = await spans("run infer")
    assert job.waited is not None
    assert queue["took"] / 1e9 <= job.waited + 0.001  # what is left is the way to the server


async def test_an_error_a_stream_and_a_batch_have_their_spans(
    make: Make, spans: Read, hold: Callable[[], Holder]
) -> None:
    director, holder = await make(), hold()
    together = director.function(traced.batch, max_batch_size=2)

    with TRACER.start_as_current_span("request") as request:
        with pytest.raises(ValueError, match="as it should"):
            await director.run(traced.fail)
        assert [value async for value in director.stream(traced.count, 3)] == [0, 1, 2]
        held = director.submit(served.hold, holder.path)
        await holder.begun()
        first = together.submit(1)
    with TRACER.start_as_current_span("another") as another:
        second = together.submit(2)
    holder.let_go()
    await asyncio.wait_for(asyncio.gather(held, first, second), PATIENCE)

    told = await spans("run fail", "run count", "run batch")
    by_name = {span["name"]: span for span in told}
    assert by_name["run fail"]["error"]
    assert [span["parent"] for span in told if span["name"] == "own"][:3] == [by_name["run count"]["span"]] * 3
    assert (by_name["run batch"]["parent"], by_name["run batch"]["links"]) == (number(request), [number(another)])
    queues = [span["parent"] for span in told if span["name"] == "queue batch"]
    assert queues == [number(request), number(another)]


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_without_a_provider_in_the_server_what_the_function_sends_belongs_to_the_trace(
    make: Make, executor: str
) -> None:
    director = await make(executor=executor)

    with TRACER.start_as_current_span("request") as request:
        told = await director.run(traced.current)

    assert told == (request.get_span_context().trace_id, number(request))


async def test_without_a_span_nothing_is_made_but_what_the_function_makes(make: Make, spans: Read) -> None:
    director = await make()

    await director.run(traced.infer)

    [own] = await spans("own")
    assert own["parent"] is None


def test_the_hook_is_refused_with_what_makes_the_spans() -> None:
    with pytest.raises(ValueError, match="without a hook"):
        Director(server="s", hooks=[Spans()])
