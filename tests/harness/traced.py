"""Functions that make spans of their own, for a server process. The spans of a process go to a file, one a line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

FILE = "TRACED_SPANS"


class ToFile(SpanExporter):
    """Writes each span to the file that the environment names."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write them."""
        for span in spans:
            own = span.get_span_context()
            assert own is not None
            told = {
                "name": span.name,
                "process": os.getpid(),
                "trace": own.trace_id,
                "span": own.span_id,
                "parent": None if span.parent is None else span.parent.span_id,
                "links": [link.context.span_id for link in span.links],
                "attributes": dict(span.attributes or {}),
                "error": not span.status.is_ok,
                "took": (span.end_time or 0) - (span.start_time or 0),
            }
            with Path(os.environ[FILE]).open("a") as file:
                file.write(json.dumps(told) + "\n")
        return SpanExportResult.SUCCESS


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ToFile()))
if FILE in os.environ:  # in a server or a child of it
    trace.set_tracer_provider(provider)
tracer = trace.get_tracer("served")


def infer(_resource: object) -> int:
    """One span of its own."""
    with tracer.start_as_current_span("own"):
        return os.getpid()


def fail(_resource: object) -> None:
    """Raise."""
    raise ValueError("as it should")


def batch(_resource: object, items: list[Any]) -> list[Any]:
    """One span for all."""
    with tracer.start_as_current_span("own"):
        return items


def count(_resource: object, until: int) -> Iterator[int]:
    """A span for each value."""
    for number in range(until):
        with tracer.start_as_current_span("own"):
            pass
        yield number


def current(_resource: object) -> tuple[int, int]:
    """The trace and the span that are current."""
    here = trace.get_current_span().get_span_context()
    return here.trace_id, here.span_id
