"""Errors of jobs as HTTP answers: problem JSON, RFC 9457. The only place that maps errors to status codes.

An answer contains only texts of this module and finite numbers: the message of an error may be of user code, and goes
to the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from director._format import known_line
from director._untrusted.objects import attribute_of, log_error, plain
from director.asgi._types import Answer
from director.errors import (
    AdmissionError,
    DeadlineUnreachable,
    DeviceError,
    DirectorClosed,
    DirectorError,
    JobAborted,
    JobTimeout,
    PlacementError,
    QueueFull,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from director.asgi._types import Send

    pass
    from director.asgi._types import App, Receive, Scope

MEDIA_TYPE = "application/problem+json"

_LONGEST = 3600.0  # seconds; the most that `Retry-After` says
_SOON = 1.0  # seconds of `Retry-After` when nothing better is known


@dataclass(frozen=True, slots=True)
class Problem:
    """One error response as RFC 9457 defines it.

    Args:
        status: The HTTP status.
        detail: What went wrong this time, for people.
        kind: A word for programs, such as ``"queue-full"``.
        retry_after: Seconds after which a retry makes sense; `None` where it does not.
        facts: Further members of the answer.
    """

    status: int
    detail: str
    kind: str
    retry_after: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, Any]:
        """The members of the answer."""
        return {
            **self.facts,
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "kind": self.kind,
        }

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After`` in whole seconds, where there is one. The media type is `director.asgi.MEDIA_TYPE`."""
        if self.retry_after is None:
            return {}
        return {"retry-after": str(max(1, math.ceil(min(self.retry_after, _LONGEST))))}

    async def send(self, send: Send) -> None:
        """Answer with it, as an ASGI application does."""
        body = json.dumps(self.content).encode()
        headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **self.headers}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


_NEVER_RAN, _RAN_OUT = "Time was up before it could begin.", "Time was up before it was done."

_NOTHING_RAN: dict[str, Any] = {"ran": False}

CANCELLED = Problem(503, "The work for this request was cancelled.", "cancelled", _SOON, {"ran": True})
"""For a `CancelledError` of a job.

The job was cancelled, for example by closing the Director, and the request was not.
"""


def problem_of(error: DirectorError) -> Problem:
    """The answer to a request whose job ended with `error`.

    A tenant's own bound is 429; everything else that was not accepted, or did not begin within `start_within`, is 503,
    with ``Retry-After``; any other timeout is 504; a lost device is 503; an error that only the application can have
    caused is 500, without its details. The fact `ran` is false if nothing of the job ran, and true if it did or may
    have.
    """
    match error:
        case QueueFull():
            tenant, waiting = attribute_of(error, "tenant"), attribute_of(error, "waiting")
            status, kind, own = (503, "queue-full", "") if tenant is None else (429, "tenant-quota", " of yours")
            many = "Too many" if _number(waiting) is None else waiting
            detail = f"{many} requests{own} wait already."
            return Problem(status, detail, kind, _retry_after(error), _facts(waiting=waiting) | _NOTHING_RAN)
        case DirectorClosed():
            return Problem(503, "The service is not taking requests now.", "closed", _SOON, _NOTHING_RAN)
        case DeadlineUnreachable():
            facts = _facts(deadline=attribute_of(error, "deadline"), predicted=attribute_of(error, "predicted"))
            return Problem(503, "It would be late.", "deadline-unreachable", _retry_after(error), facts | _NOTHING_RAN)
        case AdmissionError():
            return Problem(503, "The service can't take it now.", "not-admitted", _SOON, _NOTHING_RAN)
        case JobTimeout() if plain(attribute_of(error, "option")) == "start_within":
            return Problem(503, "It could not begin in time.", "not-started", _SOON, _NOTHING_RAN)
        case JobTimeout():
            ran = plain(attribute_of(error, "phase")) == "running"
            return Problem(504, _RAN_OUT if ran else _NEVER_RAN, "timeout", None, {"ran": ran})
        case JobAborted():
            return Problem(503, "The service was shut down while the request ran.", "aborted", None, {"ran": True})
        case DeviceError():
            return Problem(503, "A device that the request needs is not available.", "device", _SOON, {"ran": True})
        case PlacementError():
            return Problem(500, "No device of this service can ever run it.", "placement", None, _NOTHING_RAN)
        case _:
            return Problem(500, "The job failed.", "job-failed", None, {"ran": True})


def _retry_after(error: DirectorError) -> float:
    return _number(attribute_of(error, "retry_after")) or _SOON


def _facts(**found: object) -> dict[str, int | float]:
    return {name: number for name, each in found.items() if (number := _number(each)) is not None}


def _number(found: object) -> int | float | None:
    """A number that JSON can hold; `None` for anything else."""
    if (type(found) is float and math.isfinite(found)) or (type(found) is int and abs(found) < 2**53):
        return found
    return None


_LONGEST_TEXT = 1_000  # characters of an error in the log

logger = logging.getLogger("director")


class ProblemMiddleware:
    """ASGI middleware: answers a `DirectorError` of the application with problem JSON; see `problem_of`.

    An exception group, as of a task group, is answered by its first error, if it contains only errors of Directors. A
    job that was cancelled, also by closing the Director, is answered with 503. Once an answer has begun, errors are
    raised to the server.

    Args:
        app: The application. A framework that handles every error itself, as Litestar does, needs `problem_of` in its
            handlers.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = Answer(send)
        try:
            await self._app(scope, receive, answer.send)
        except DirectorError as error:
            if answer.has_begun:
                raise
            await logged_problem_of(error, scope).send(send)
        except ExceptionGroup as errors:
            first = first_director_error(errors)
            if first is None or answer.has_begun:
                raise
            await logged_problem_of(first, scope).send(send)
        except asyncio.CancelledError:
            if answer.has_begun or is_being_cancelled():
                raise
            await CANCELLED.send(send)


def first_director_error(errors: ExceptionGroup[Exception]) -> DirectorError | None:
    """The first error of a group; `None` if it contains others than `DirectorError`."""
    ours, others = errors.split(DirectorError)
    first: Exception | None = ours
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    return first if others is None and isinstance(first, DirectorError) else None


def logged_problem_of(error: DirectorError, scope: Scope) -> Problem:
    """Log `error` and return the answer to it; for a status of 500 both have the same `id`."""
    problem = problem_of(error)
    if problem.status != 500:
        logger.info("%s for %r: %s", problem.status, scope["path"], known_line(error, _LONGEST_TEXT))
        return problem
    number = secrets.token_hex(8)
    log_error(logger, error, "a job of %s failed, id %s", repr(scope["path"]), number)
    return replace(problem, facts={**problem.facts, "id": number})


def is_being_cancelled() -> bool:
    """Whether the current task is being cancelled.

    If not, a `CancelledError` in it comes from a job that was cancelled.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
