"""Spans for OpenTelemetry: how long each job waited, and how long it ran. Needs the extra ``otel``.

Uses the API package only. The application sets up the SDK and its exporters; without one nothing is recorded.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from threading import RLock
from typing import TYPE_CHECKING, Any

from director import __version__, current_device
from director._untrusted.objects import describe, is_a, module_name, story_of, text_of, type_name
from director.events import Event, JobEnded, JobFailed, JobRetried, JobSubmitted

try:
    from opentelemetry import context, trace
    from opentelemetry.trace import Link, Status, StatusCode
except ImportError as error:
    raise ImportError("director.otel needs opentelemetry-api: pip install 'gpu-director[otel]'") from error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextvars import Context

    from opentelemetry.trace import Span, TracerProvider

    from director import Job

__all__ = ["Spans"]


class Spans:
    """A hook that makes two spans for each job, ``queue NAME`` and ``run NAME``: ``Director(hooks=[Spans()])``.

    Both are children of the span in which the job was submitted. While the job runs its ``run`` span is the current
    one, so that spans of your own function are its children. A batch has one ``run`` span, below the submitter of its
    first job and linked to those of the others. A job that never ran has a ``queue`` span only; one that is tried again
    has both for each try, and the parts in which a batch is run again have a ``run`` span each.

    Args:
        tracer_provider: Makes the tracer; `None` takes the global one.
    """

    wants = (JobSubmitted, JobRetried, JobEnded)

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("director", __version__, tracer_provider)
        # Both by number of the job. A worker may be quicker than the event that tells of the submission.
        self._submitters: dict[int, Context | None] = {}
        # For the one below, which the loop and the slots' threads write; a finalizer may cancel a job in the midst.
        self._lock = RLock()
        self._called: set[int] = set()  # jobs whose wait has its span

    def __call__(self, event: Event) -> None:
        """Remember who submitted a job; see to it that each wait of one that is over, or tried again, has its span."""
        if isinstance(event, JobSubmitted):
            self._submitters[event.job] = event.context
        elif isinstance(event, (JobEnded, JobRetried)):
            parent = self._context_of(event.job)
            if isinstance(event, JobEnded):
                self._submitters.pop(event.job, None)
            with self._lock:
                has_span = event.job in self._called
                self._called.discard(event.job)
            if not has_span:
                self._record_wait(event, parent)

    def around_call(self, jobs: Sequence[Job[Any]]) -> AbstractContextManager[None]:
        """Enclose a call in its ``run`` span; the jobs have waited until now."""
        now, first = time.time_ns(), jobs[0]
        for job in jobs:
            if self._claims_wait(job):
                parent = context.get_current() if job is first else self._context_of(job.id)
                began = now - round((job.waited or 0.0) * 1e9)
                span = self._tracer.start_span(f"queue {job.name}", parent, start_time=began, attributes=_of_job(job))
                span.end(now)
        others = [trace.get_current_span(self._context_of(job.id)) for job in jobs[1:]]
        span = self._tracer.start_span(
            f"run {first.name}",
            start_time=now,
            attributes={**_of_job(first), **_of_call(jobs)},
            links=[Link(span.get_span_context()) for span in others if span.get_span_context().is_valid],
        )
        return _RunSpan(span)

    def _claims_wait(self, job: Job[Any]) -> bool:
        """Whether the wait of a job has no span yet, and is given one now.

        A batch may be called again in parts. For a job that is over already the event loop makes the span, at its end.
        """
        with self._lock:
            if job.id in self._called or job.done():
                return False
            self._called.add(job.id)
            return True

    def _context_of(self, job: int) -> context.Context:
        """OpenTelemetry's context in which a job was submitted; an empty one if that is not known."""
        submitter = self._submitters.get(job)
        # A copy, for the call of that very job may be using it just now.
        return context.Context() if submitter is None else submitter.copy().run(context.get_current)

    def _record_wait(self, event: JobEnded | JobRetried, parent: context.Context) -> None:
        """A job is over, or tried again, that was never called."""
        now = time.time_ns()
        waited = event.waited if isinstance(event, JobEnded) else 0.0
        span: Span = self._tracer.start_span(
            f"queue {event.name}",
            parent,
            start_time=now - round(waited * 1e9),
            attributes={"director.job.id": event.job, "director.job.name": event.name},
        )
        if isinstance(event, (JobFailed, JobRetried)):
            _note_error(span, event.error)
        else:
            span.set_attribute("director.job.state", "cancelled")
        span.end(now)


class _RunSpan(AbstractContextManager[None]):
    """A span that is the current one during a call, and knows how that ended.

    Not by `start_as_current_span`: a context manager made of a generator sets the traceback of what the call raises,
    which an exception may refuse.
    """

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._token = context.attach(trace.set_span_in_context(self._span))

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        context.detach(self._token)
        if error is not None and is_a(error, Exception):
            _note_error(self._span, error)
        self._span.end()


def _note_error(span: Span, error: BaseException) -> None:
    """What `Span.record_exception` does, for an exception that may not let itself be shown."""
    if span.is_recording():
        facts = {
            "exception.type": f"{module_name(type(error))}.{type_name(error)}".removeprefix("builtins."),
            "exception.message": text_of(error),
            "exception.stacktrace": story_of(error),
        }
        span.add_event("exception", facts)
        span.set_status(Status(StatusCode.ERROR, describe(error)))


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
