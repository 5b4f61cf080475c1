"""Spans for OpenTelemetry: how long each job waited, and how long it ran. Needs the extra ``otel``.

Uses the API package only. The application sets up the SDK and its exporters; without one nothing is recorded.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from threading import RLock
from typing import TYPE_CHECKING, Any

from director import __version__, current_device, current_job
from director._jobs.calls import load_only
from director._jobs.job import fields
from director._untrusted.objects import describe, is_a, module_name, story_of, text_of, type_name
from director.events import Event, JobEnded, JobFailed, JobRetried, JobSubmitted

try:
    from opentelemetry import context, trace
    from opentelemetry.trace import Link, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as _error:
    raise ImportError("director.otel needs opentelemetry-api: pip install 'gpu-director[otel]'") from _error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextvars import Context

    from opentelemetry.trace import Span, TracerProvider

    from director import Job

__all__ = ["Spans"]
_W3C = TraceContextTextMapPropagator()


class Spans:
    """A hook that makes two spans for each job, ``queue NAME`` and ``run NAME``: ``Director(hooks=[Spans()])``.

    Both are children of the span in which the job was submitted. While the job runs its ``run`` span is the current
    one, so that spans of your own function are its children. A batch has one ``run`` span, below the submitter of its
    first job and linked to those of the others. A job that never ran has a ``queue`` span only; one that is retried
    has both for each attempt, and the parts in which a batch is run again have a ``run`` span each.

    Args:
        tracer_provider: Makes the tracer; `None` takes the global one.
    """

    wants: tuple[type[Event], ...] = (JobSubmitted, JobRetried, JobEnded)

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("director", __version__, tracer_provider)
        # By number of the job. A worker may run the job before the event of its submission is handled.
        self._submitters: dict[int, Context | None] = {}
        # Guards `_called`, which the event loop and the slots' threads write. Reentrant, because a finalizer that runs
        # while it is held may cancel a job.
        self._lock = RLock()
        self._called: set[int] = set()  # jobs that have their ``queue`` span

    def __call__(self, event: Event) -> None:
        """Keep the context of a submission.

        Make the ``queue`` span of a job that has ended or is retried, if it has none.
        """
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
        """Whether the caller has to make the ``queue`` span of a job; True only once per attempt.

        A batch may be called again in parts. For a job that has ended already the event loop makes the span.
        """
        with self._lock:
            if job.id in self._called or job.done():
                return False
            self._called.add(job.id)
            return True

    def _context_of(self, job: int) -> context.Context:
        """OpenTelemetry's context in which a job was submitted; an empty one if that is not known."""
        submitter = self._submitters.get(job)
        # A copy, because the call of that job may be running in it now.
        return context.Context() if submitter is None else submitter.copy().run(context.get_current)

    def _record_wait(self, event: JobEnded | JobRetried, parent: context.Context) -> None:
        """Make the ``queue`` span of a job that has ended, or is retried, without a call."""
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


def headers_of(submitter: Context | None) -> dict[str, str]:
    """The W3C headers of the span in which a job was submitted; empty without one."""
    headers: dict[str, str] = {}
    if submitter is not None:
        submitter.copy().run(_W3C.inject, headers)
    return headers


def spans_of_call(traces: Sequence[tuple[dict[str, str], int, dict[str, int | str]]]) -> AbstractContextManager[None]:
    """The spans of a call that a server process makes, below those in which its jobs were submitted elsewhere.

    Args:
        traces: For each job the headers, the time of its submission and its attributes.
    """
    tracer, job = trace.get_tracer("director", __version__), current_job()
    # Not now: the first call of a function has imported its module since the call has begun.
    _, first_submitted, first = traces[0]
    began = min(time.time_ns(), first_submitted + round((job.waited or 0.0) * 1e9))
    parents = []
    for headers, submitted, facts in traces:
        parents.append(parent := _W3C.extract(headers, context.Context()))
        queued = min(submitted, began)
        tracer.start_span(f"queue {facts['director.job.name']}", parent, start_time=queued, attributes=facts).end(began)
    others = [trace.get_current_span(parent) for parent in parents[1:]]
    span = tracer.start_span(
        f"run {first['director.job.name']}",
        parents[0],
        start_time=began,
        attributes={**first, "director.job.attempt": job.attempts, **_of_call(traces)},
        links=[Link(other.get_span_context()) for other in others],
    )
    return _RunSpan(span, parents[0])


class _RunSpan(AbstractContextManager[None]):
    """A span that is the current one during a call, and records how the call ended.

    `start_as_current_span` is not used: a context manager made of a generator sets the traceback of what the call
    raises, which an exception may refuse.
    """

    def __init__(self, span: Span, parent: context.Context | None = None) -> None:
        self._span = span
        self._parent = parent  # `None`: the current context

    def __enter__(self) -> None:
        self._token = context.attach(trace.set_span_in_context(self._span, self._parent))

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        context.detach(self._token)
        if error is not None and is_a(error, Exception):
            _note_error(self._span, error)
        self._span.end()


def _note_error(span: Span, error: BaseException) -> None:
    """What `Span.record_exception` does, also for an exception that can't be formatted."""
    if span.is_recording():
        facts = {
            "exception.type": f"{module_name(type(error))}.{type_name(error)}".removeprefix("builtins."),
            "exception.message": text_of(error),
            "exception.stacktrace": story_of(error),
        }
        span.add_event("exception", facts)
        span.set_status(Status(StatusCode.ERROR, describe(error)))


def _of_job(job: Job[Any]) -> dict[str, int | str]:
    facts: dict[str, int | str] = {
        "director.job.id": job.id,
        "director.job.name": job.name,
        "director.job.attempt": job.attempts,
    }
    if fields(job).fn is not load_only:  # the priority of a load in advance, beyond all others, is no user's
        facts["director.job.priority"] = job.priority
    return facts


def _of_call(jobs: Sequence[object]) -> dict[str, int | str]:
    device = current_device()
    return {"director.device": device.label, "director.device.uuid": device.uuid, "director.batch.size": len(jobs)}
