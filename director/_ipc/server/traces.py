"""The span of OpenTelemetry in which a job was submitted, on its way to the process that makes the call."""

from __future__ import annotations

import logging
import sys
import time
from importlib import import_module
from types import GeneratorType
from typing import TYPE_CHECKING, Any, TypeAlias

from director._untrusted.objects import log_error, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director._jobs.job import ScheduledJob

    Trace: TypeAlias = "tuple[dict[str, str], int, dict[str, int | str]]"
    """The W3C headers, the time of the submission in nanoseconds since the epoch, and attributes of the spans."""

logger = logging.getLogger("director")


def trace_of(job: ScheduledJob[Any], now: float) -> Trace | None:
    """What goes along with a job; `None` if the application uses no OpenTelemetry, or has no span there."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    try:
        headers = _otel().headers_of(job.context)
    except Exception as error:  # noqa: BLE001 - of a span class that is not the SDK's
        log_error(logger, error, "the span in which %s was submitted can't be sent", job)
        return None
    if not headers:
        return None
    submitted = time.time_ns() - round((now - job.submitted_at) * 1e9)
    facts: dict[str, int | str] = {
        "director.job.id": job.id,
        "director.job.name": job.name,
        "director.job.priority": job.priority,
    }
    return headers, submitted, facts


def traced(fn: Callable[..., Any], traces: list[Trace]) -> Callable[..., Any]:
    """`fn`, with the spans of its call, in the process that makes it.

    Args:
        fn: The function, or generator function.
        traces: Those of the jobs that share the call.
    """

    def call(*args: Any) -> Any:
        spans = _enter(traces)
        try:
            value = fn(*args)
            if type(value) is GeneratorType:
                spans, value = None, _values(value, spans)
            return value
        finally:
            _leave(spans)

    call.__name__ = name_of(fn)
    return call


def _values(generator: Any, spans: Any) -> Iterator[Any]:
    try:
        yield from generator
    finally:
        _leave(spans)


def _enter(traces: list[Trace]) -> Any:
    """Begin the spans. What goes wrong with them fails no call."""
    try:
        spans = _otel().spans_of_call(traces)
        spans.__enter__()
    except Exception as error:  # noqa: BLE001 - of an exporter or a sampler
        log_error(logger, error, "a call has no spans")
        return None
    return spans


def _leave(spans: Any) -> None:
    if spans is None:
        return
    try:
        spans.__exit__(*sys.exc_info())
    except Exception as error:  # noqa: BLE001 - the same
        log_error(logger, error, "the spans of a call were not ended")


def _otel() -> Any:
    """By its name: it is above this package, needs an extra, and is imported only where spans are."""
    return import_module("director.otel")
