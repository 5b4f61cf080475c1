"""A Director in a FastAPI application: its life, its handle in endpoints, and its errors as answers.

The only room that imports fastapi (extra ``fastapi``); everything that is not FastAPI's own is in `director.asgi`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

try:
    from fastapi import Depends, FastAPI
    from fastapi.requests import HTTPConnection  # noqa: TC002 - FastAPI reads the annotation
    from fastapi.responses import JSONResponse
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"director.fastapi needs {error.name}: pip install 'gpu-director[fastapi]'", name=error.name
    ) from None

from director import Director
from director.asgi import MEDIA_TYPE, CancelOnDisconnect, Health, Problems, RequestDeadline
from director.asgi._answers import told
from director.errors import DirectorError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from fastapi.requests import Request

    from director import Model
    from director.asgi._types import App

    Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]

__all__ = ["PROBLEMS", "DirectorDep", "get_director", "install", "lifespan"]

logger = logging.getLogger("director")

_KEY = "director"  # of the state that a lifespan hands to its requests

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "https://www.rfc-editor.org/rfc/rfc9457.json"}}},
    }
    for status, description in {
        429: "Too many requests of this tenant wait; `Retry-After` says when to come back.",
        503: "Too many requests wait, or the service is going down; `Retry-After` says when to come back.",
        504: "Time was up before there was a result.",
    }.items()
}
"""For `FastAPI(responses=PROBLEMS)`: what every endpoint may answer beside its own, in the OpenAPI document."""


def lifespan(
    director: Director,
    inner: Lifespan | None = None,
    *,
    load: Iterable[Model[Any]] = (),
    wait_for_load: bool = True,
    close_timeout: float | None = 20.0,
) -> Lifespan:
    """A lifespan for ``FastAPI(lifespan=...)`` in which `director` is open.

    Requests find it as ``request.state.director``, or by `DirectorDep`.

    Args:
        director: Started before the first request and closed after the last; may be at the top of a module.
        inner: The application's own lifespan; runs while the Director is open, and its state is kept.
        load: Models to load everywhere.
        wait_for_load: Take requests only when they are loaded, and don't start if that fails. Else they are loaded
            while the server runs already: it answers ``/livez``, and ``/readyz`` says when it is time.
        close_timeout: Seconds that jobs get to end when the server ends; see `Director.close`. The server's own limit
            (``uvicorn --timeout-graceful-shutdown``) comes before it, for requests.
    """
    models = tuple(load)

    @asynccontextmanager
    async def open_director(app: Any) -> AsyncIterator[dict[str, Any]]:
        async with director:
            async with _loading(director, models, wait_for_load):
                if inner is None:
                    yield {_KEY: director}
                else:
                    async with inner(app) as state:
                        yield {**(state or {}), _KEY: director}
            await director.close(close_timeout)

    return open_director


@asynccontextmanager
async def _loading(director: Director, models: tuple[Model[Any], ...], wait: bool) -> AsyncIterator[None]:
    """Load now, or beside what is done inside."""
    if wait:
        for model in models:
            await director.load(model)
        yield
        return
    loading = [asyncio.create_task(_load(director, model), name=f"director:load {model.name}") for model in models]
    try:
        yield
    finally:
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)


async def _load(director: Director, model: Model[Any]) -> None:
    try:
        await director.load(model)
    except Exception:
        logger.exception("loading %s failed; the next job that needs it tries again", model.name)


def get_director(connection: HTTPConnection) -> Director:
    """The Director that `lifespan` has opened; a dependency.

    Raises:
        RuntimeError: There is none.
    """
    found = getattr(connection.state, _KEY, None)
    if not isinstance(found, Director):
        raise RuntimeError("no Director in this application: make it with FastAPI(lifespan=lifespan(director))")
    return found


DirectorDep = Annotated[Director, Depends(get_director)]
"""Type of a parameter of an endpoint: ``async def classify(director: DirectorDep): ...``."""


def install(
    app: FastAPI,
    director: Director,
    *,
    models: Iterable[Model[Any]] = (),
    health: bool = True,
    metrics: bool = False,
    cancel_on_disconnect: bool = True,
    request_deadlines: bool = False,
) -> None:
    """Give an application everything that goes around a Director; before it serves.

    Errors of jobs are answered with problem JSON (RFC 9457): see `director.asgi.problem_of`. An exception handler of
    the application's own for one of them comes first. Middleware that is added afterwards stands outside.

    Args:
        app: The application.
        director: The one that `lifespan` opens.
        models: What has to be loaded before ``/readyz`` says yes.
        health: Answer ``/livez`` and ``/readyz``; see `director.asgi.Health`.
        metrics: Answer ``/metrics`` for Prometheus.
        cancel_on_disconnect: Cancel the work of clients who have left; see `director.asgi.CancelOnDisconnect`.
        request_deadlines: Heed ``X-Request-Timeout`` and ``X-Request-Deadline``; see `director.asgi.RequestDeadline`.

    Raises:
        RuntimeError: `metrics` needs what is not installed.
    """
    app.add_exception_handler(DirectorError, _answer)
    app.add_middleware(Problems)
    if request_deadlines:
        app.add_middleware(RequestDeadline)
    if cancel_on_disconnect:
        app.add_middleware(CancelOnDisconnect)
    if health or metrics:
        paths = {} if health else {"live": None, "ready": None}
        figures = _figures(director) if metrics else None
        app.add_middleware(Health, director=director, models=models, metrics=figures, **paths)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DirectorError)
    problem = told(error, request.scope)
    return JSONResponse(problem.content, problem.status, problem.headers, MEDIA_TYPE)


def _figures(director: Director) -> App:
    raise NotImplementedError
