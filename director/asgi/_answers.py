"""Errors that leave an ASGI application, answered."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from director._known_texts import known_line
from director._user_objects import log_error
from director.asgi._exchange import Answer
from director.asgi._problem import CANCELLED, problem_of
from director.errors import DirectorError

if TYPE_CHECKING:
    from director.asgi._problem import Problem
    from director.asgi._types import App, Receive, Scope, Send

_LONGEST = 1_000  # characters of an error in the log

logger = logging.getLogger("director")


class Problems:
    """ASGI middleware: answers a `DirectorError` of the application with problem JSON; see `problem_of`.

    Of several, as a task group raises them, it answers the first, if there are no others among them. A job that was
    cancelled, by the close or by hand, is answered with 503. Once an answer has begun, errors pass.

    Args:
        app: The application. One that answers every error by itself, as Litestar does, needs `problem_of` there.
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
            await told(error, scope).send(send)
        except ExceptionGroup as errors:
            first = first_of(errors)
            if first is None or answer.has_begun:
                raise
            await told(first, scope).send(send)
        except asyncio.CancelledError:
            if answer.has_begun or is_being_cancelled():
                raise
            await CANCELLED.send(send)


def first_of(errors: ExceptionGroup[Exception]) -> DirectorError | None:
    """The first error of a group that has none but ours."""
    ours, others = errors.split(DirectorError)
    first: Exception | None = ours
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    return first if others is None and isinstance(first, DirectorError) else None


def told(error: DirectorError, scope: Scope) -> Problem:
    """The answer to `error`, of which the log has the rest; a fault of the service's own has the same `id` in both."""
    problem = problem_of(error)
    if problem.status != 500:
        logger.info("%s for %r: %s", problem.status, scope["path"], known_line(error, _LONGEST))
        return problem
    number = secrets.token_hex(8)
    log_error(logger, error, "a job of %s failed, id %s", repr(scope["path"]), number)
    return replace(problem, facts={**problem.facts, "id": number})


def is_being_cancelled() -> bool:
    """Somebody wants this task to end; otherwise a `CancelledError` in it comes from a job that was cancelled."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
