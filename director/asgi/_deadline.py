"""How long a client will wait, from a header of its request.

The answer is kept in a context variable with its moment, so that whatever the request calls finds it.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from director.asgi._exchange import Answer
from director.asgi._problem import Problem, problem_of
from director.asgi._types import header
from director.errors import JobTimeout

if TYPE_CHECKING:
    from director.asgi._types import App, Message, Receive, Scope, Send

_answer: ContextVar[_TimedAnswer | None] = ContextVar("director.asgi.deadline", default=None)


def time_left() -> float | None:
    """Seconds until the deadline of the request that is being served; `None` if it has none, or its answer has begun.

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

    A client says so by ``X-Request-Timeout`` (seconds from the arrival of the request, such as ``0.5``) or
    ``X-Request-Deadline`` (a moment: seconds since 1970, or RFC 3339 such as ``2030-01-31T12:00:00Z``; both clocks have
    to agree). Of both the earlier counts; what can't be read is answered with 400. The limit ends when the answer
    begins: a stream may take as long as it likes.

    Args:
        app: The application.
        default: Seconds for requests that say nothing; `None` for no limit.
        most: More seconds than that are cut down to it; `None` for no bound.

    Raises:
        ValueError: `default` or `most` is not positive.
    """

    def __init__(self, app: App, *, default: float | None = None, most: float | None = None) -> None:
        for name, seconds in (("default", default), ("most", most)):
            if seconds is not None and not seconds > 0:
                raise ValueError(f"{name} must be positive seconds or None, not {seconds!r}")
        self._app = app
        self._default = default
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            seconds = self._seconds(scope)
        except ValueError as error:
            await Problem(400, str(error), "bad-deadline").send(send)
            return
        if seconds is None:
            await self._app(scope, receive, send)
        elif seconds <= 0:
            await problem_of(JobTimeout("queued")).send(send)
        else:
            await self._serve_within(seconds, scope, receive, send)

    async def _serve_within(self, seconds: float, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _TimedAnswer(send, seconds)
        token = _answer.set(answer)
        try:
            async with answer.limit:
                await self._app(scope, receive, answer.send)
        except TimeoutError:
            if answer.has_begun or not answer.limit.expired():
                raise  # the application's own; or it has begun to answer while it cleaned up
            await problem_of(JobTimeout("running")).send(send)
        finally:
            _answer.reset(token)

    def _seconds(self, scope: Scope) -> float | None:
        timeout, moment = header(scope, b"x-request-timeout"), header(scope, b"x-request-deadline")
        wanted = [
            *([_read_seconds("X-Request-Timeout", timeout)] if timeout is not None else []),
            *([_read_moment(moment) - time.time()] if moment is not None else []),
        ]
        if not wanted and self._default is None:
            return None
        seconds = min(wanted) if wanted else self._default
        assert seconds is not None
        return seconds if self._most is None else min(seconds, self._most)


class _TimedAnswer(Answer):
    """An answer that lifts its limit when it begins."""

    __slots__ = ("deadline", "limit")

    def __init__(self, send: Send, seconds: float) -> None:
        super().__init__(send)
        self.deadline = time.monotonic() + seconds
        self.limit = asyncio.timeout(seconds)

    async def send(self, message: Message) -> None:
        if not self.has_begun and not self.limit.expired():
            self.limit.reschedule(None)
        await super().send(message)


def _read_seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"{name} must be seconds as a number, not {text!r}")
    return seconds


def _read_moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _read_seconds("X-Request-Deadline, if no RFC 3339 timestamp,", text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
