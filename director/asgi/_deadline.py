"""Request deadlines: how long a client waits, from a header of its request.

The answer and its deadline are kept in a context variable, so that all code that serves the request can read them.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from director._jobs.requests import RequestJobs, follow, request
from director._untrusted.numbers import MOST_SECONDS, seconds, shown
from director.asgi._problem import Problem, first_director_error, logged_problem_of, problem_of
from director.asgi._types import Answer, header
from director.errors import DirectorError, JobTimeout

if TYPE_CHECKING:
    from director.asgi._types import App, Message, Receive, Scope, Send

_answer: ContextVar[_TimedAnswer | None] = ContextVar("director.asgi.deadline", default=None)


def time_left() -> float | None:
    """Seconds until the deadline of the current request; `None` if it has none, or its answer has begun.

    For the `deadline` of its jobs: ``director.submit(fn, item, deadline=time_left())``.

    Raises:
        JobTimeout: It has passed.
    """
    answer = _answer.get()
    if answer is None or answer.has_begun:
        return None
    left = answer.deadline - time.monotonic()
    if left <= 0:
        raise JobTimeout("queued")
    return left


class RequestDeadline:
    """ASGI middleware: a request that takes longer than its client will wait is cancelled and answered with 504.

    A client sets the limit by ``X-Request-Timeout`` (seconds from the arrival of the request, such as ``0.5``) or
    ``X-Request-Deadline`` (a time: seconds since 1970, or RFC 3339 such as ``2030-01-31T12:00:00Z``; both clocks have
    to agree). If both are given the earlier one counts; a header that can't be parsed is answered with 400. The limit
    ends when the answer begins: a streamed answer may take any time. While a job of the request still waits, as that of
    a stream, no status is sent before the first bytes of the body, so that the limit bounds its wait too. The answer
    says in `ran` whether a job of the request had begun.

    Args:
        app: The application.
        default: Seconds for requests without these headers; `None` for no limit.
        most: The longest limit; longer ones are reduced to it. `None` for no bound.

    Raises:
        TypeError: `default` or `most` is no number.
        ValueError: One is not positive, or more than 1,000,000,000 seconds.
    """

    def __init__(self, app: App, *, default: float | None = None, most: float | None = None) -> None:
        follow()
        self._app = app
        self._default = None if default is None else seconds("default", default, hint="; None for no limit")
        self._most = MOST_SECONDS if most is None else seconds("most", most, hint="; None for no bound")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            within = self._seconds(scope)
        except ValueError as error:
            await Problem(400, str(error), "bad-deadline").send(send)
            return
        if within is None:
            await self._app(scope, receive, send)
        elif within <= 0:
            await problem_of(JobTimeout("queued")).send(send)  # nothing has run
        else:
            await self._serve_within(within, scope, receive, send)

    async def _serve_within(self, within: float, scope: Scope, receive: Receive, send: Send) -> None:
        jobs = RequestJobs()
        answer = _TimedAnswer(send, within, jobs)
        tokens = _answer.set(answer), request.set(jobs)
        try:
            async with answer.limit:
                await self._app(scope, receive, answer.send)
                await answer.flush()
        except TimeoutError as error:
            if answer.has_begun:  # while the application cleaned up
                raise
            if answer.limit.expired():
                await problem_of(JobTimeout("running" if jobs.has_run else "queued")).send(send)
            elif answer.is_held and isinstance(error, DirectorError):
                await logged_problem_of(error, scope).send(send)
            else:  # of the application itself
                raise
        except (DirectorError, ExceptionGroup) as error:
            first = first_director_error(error) if isinstance(error, ExceptionGroup) else error
            if first is None or not answer.is_held:
                raise
            await logged_problem_of(first, scope).send(send)
        finally:
            _answer.reset(tokens[0])
            request.reset(tokens[1])

    def _seconds(self, scope: Scope) -> float | None:
        timeout, moment = header(scope, b"x-request-timeout"), header(scope, b"x-request-deadline")
        wanted = [
            *([_read_seconds("X-Request-Timeout", timeout)] if timeout is not None else []),
            *([_read_moment(moment) - time.time()] if moment is not None else []),
        ]
        within = min(wanted) if wanted else self._default
        return None if within is None else min(within, self._most)


class _TimedAnswer(Answer):
    """An answer whose time limit ends when it begins; its status is held while a job of the request waits."""

    __slots__ = ("_jobs", "_start", "deadline", "limit")

    def __init__(self, send: Send, within: float, jobs: RequestJobs) -> None:
        super().__init__(send)
        self._jobs = jobs
        self.deadline = time.monotonic() + within
        self.limit = asyncio.timeout(within)
        self._start: Message | None = None

    @property
    def is_held(self) -> bool:
        """Whether the application has begun to answer, and nothing was sent yet."""
        return self._start is not None

    async def send(self, message: Message) -> None:
        if self.has_begun or self.limit.expired():
            await super().send(message)
        elif message["type"] == "http.response.start" and self._jobs.is_waiting:
            self._start = message
        elif self._start is None or _has_content(message):
            self.limit.reschedule(None)
            await self.flush()
            await super().send(message)

    async def flush(self) -> None:
        """Send the status, if it is held."""
        start, self._start = self._start, None
        if start is not None:
            await super().send(start)


def _has_content(message: Message) -> bool:
    """Whether it is more than an announcement that the body will come."""
    return message["type"] != "http.response.body" or bool(message.get("body")) or not message.get("more_body", False)


def _read_seconds(name: str, text: str) -> float:
    try:
        number = float(text) if text.isascii() else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} must be seconds as a number, not {shown(text)}")
    return number


def _read_moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return _read_seconds("X-Request-Deadline, if no RFC 3339 timestamp,", text)
