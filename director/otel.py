"""Spans for OpenTelemetry: how long each job waited, and how long it ran. Needs the extra ``otel``.

Uses the API package only. The application sets up the SDK and its exporters; without one nothing is recorded.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from director import __version__, current_device
from director.events import Event, JobEnded, JobFailed, JobSubmitted

try:
    from opentelemetry import context, trace
    from opentelemetry.trace import Link, Status, StatusCode
except ImportError as error:
    raise ImportError("director.otel needs opentelemetry-api: pip install 'gpu-director[otel]'") from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextvars import Context

    from opentelemetry.trace import Span, TracerProvider

    from director import Job

__all__ = ["Spans"]


class Spans:
    """A hook that makes two spans for each job, ``queue NAME`` and ``run NAME``: ``Director(hooks=[Spans()])``.

    Both are children of the span in which the job was submitted. While the job runs its ``run`` span is the current
    one, so that spans of your own function are its children. A batch has one ``run`` span, below the submitter of its
    first job and linked to those of the others. A job that never ran has a ``queue`` span only.

    Args:
        tracer_provider: Makes the tracer; `None` takes the global one.
    """

    wants = (JobSubmitted, JobEnded)

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("director", __version__, tracer_provider)
        # Both by number of the job. A worker may be quicker than the event that tells of the submission.
        self._submitters: dict[int, Context | None] = {}
        self._called: set[int] = set()

    def __call__(self, event: Event) -> None:
        """Remember who submitted a job; close the account of one that is over."""
        if isinstance(event, JobSubmitted):
            self._submitters[event.job] = event.context
        elif isinstance(event, JobEnded):
            parent = self._context_of(event.job)
            self._submitters.pop(event.job, None)
            if event.job in self._called:
                self._called.discard(event.job)
            else:
                self._tell_of_waiting(event, parent)

    @contextmanager
    def attend(self, jobs: Sequence[Job[Any]]) -> Iterator[None]:
        """Enclose a call in its ``run`` span; the jobs have waited until now."""
        now, first = time.time_ns(), jobs[0]
        self._called.update(job.id for job in jobs)
        for job in jobs:
            parent = context.get_current() if job is first else self._context_of(job.id)
            began = now - round((job.waited or 0.0) * 1e9)
            span = self._tracer.start_span(f"queue {job.name}", parent, start_time=began, attributes=_of_job(job))
            span.end(now)
        others = [trace.get_current_span(self._context_of(job.id)) for job in jobs[1:]]
        with self._tracer.start_as_current_span(
            f"run {first.name}",
            start_time=now,
            attributes={**_of_job(first), **_of_call(jobs)},
            links=[Link(span.get_span_context()) for span in others if span.get_span_context().is_valid],
        ):
            yield

    def _context_of(self, job: int) -> context.Context:
        """OpenTelemetry's context in which a job was submitted; an empty one if that is not known."""
        submitter = self._submitters.get(job)
        # A copy, for the call of that very job may be using it just now.
        return context.Context() if submitter is None else submitter.copy().run(context.get_current)

    def _tell_of_waiting(self, event: JobEnded, parent: context.Context) -> None:
        """A job is over that was never called."""
        now = time.time_ns()
        span: Span = self._tracer.start_span(
            f"queue {event.name}",
            parent,
            start_time=now - round(event.waited * 1e9),
            attributes={"director.job.id": event.job, "director.job.name": event.name},
        )
        if isinstance(event, JobFailed):
            span.record_exception(event.error)
            span.set_status(Status(StatusCode.ERROR, str(event.error)))
        else:
            span.set_attribute("director.job.state", "cancelled")
        span.end(now)


def _of_job(job: Job[Any]) -> dict[str, int | str]:
    return {
        "director.job.id": job.id,
        "director.job.name": job.name,
        "director.job.priority": job.priority,
        "director.job.attempt": job.attempts,
    }


def _of_call(jobs: Sequence[Job[Any]]) -> dict[str, int | str]:
    device = current_device()
    return {
        "director.device": device.label,
        "director.device.uuid": device.uuid,
        "director.batch.size": len(jobs),
    }
