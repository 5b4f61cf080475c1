"""A Director in a FastAPI application: lifespan, dependency for endpoints, and errors as responses.

The only module that imports fastapi (extra ``fastapi``); what is not specific to FastAPI is in `director.asgi`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

try:
    from fastapi import APIRouter, Depends, FastAPI, Response, WebSocket
    from fastapi.encoders import jsonable_encoder
    from fastapi.requests import HTTPConnection  # noqa: TC002 - FastAPI reads the annotation
    from fastapi.responses import JSONResponse
    from fastapi.websockets import WebSocketState
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"director.fastapi needs {_error.name}: pip install 'gpu-director[fastapi]'", name=_error.name
    ) from None

from director import Director
from director.asgi import (
    MEDIA_TYPE,
    CancelOnDisconnect,
    HealthEndpoints,
    JobStore,
    Problem,
    ProblemMiddleware,
    RequestDeadline,
    lifespan,
)
from director.asgi._lifespan import with_socket
from director.asgi._problem import logged_problem_of
from director.errors import DirectorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastapi.requests import Request

    from director import Model
    from director.asgi._types import App

__all__ = ["PROBLEMS", "DirectorDep", "JobStore", "get_director", "install", "job_routes", "lifespan"]

_NO_JOB = Problem(404, "There is no such job, or it is not kept any more.", "no-such-job")
_PATH = "/director"  # of the dashboard
_INTERNAL_ERROR, _TRY_AGAIN_LATER = 1011, 1013  # of RFC 6455 and its registry

_SCHEMA = {
    "title": "Problem",
    "type": "object",
    "properties": {
        **{name: {"type": "string"} for name in ("type", "title", "detail", "kind")},
        "status": {"type": "integer"},
        "ran": {"type": "boolean"},
    },
    "required": ["type", "title", "status", "detail", "kind"],
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
    for status, description in {
        429: "Too many requests of this tenant wait; `Retry-After` says when to come back.",
        503: "Too many requests wait, or the service is going down; `Retry-After` says when to come back.",
        504: "Time was up before there was a result.",
    }.items()
}
"""For `FastAPI(responses=PROBLEMS)`.

Responses that every endpoint may return besides its own, in the OpenAPI document.
"""


def get_director(connection: HTTPConnection) -> Director:
    """The Director that `lifespan` has opened; a dependency.

    Raises:
        RuntimeError: There is none.
    """
    found = getattr(connection.state, "director", None)
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
    metrics: App | None = None,
    cancel_on_disconnect: bool = True,
    request_deadlines: bool = False,
    dashboard: bool | str = False,
) -> None:
    """Install exception handlers and middleware for a Director; call it before the application serves.

    Errors of jobs are answered with problem JSON (RFC 9457): see `director.asgi.problem_of`. The application's own
    exception handler for one of them takes precedence. A websocket that was accepted is closed, with 1013 where a retry
    makes sense, else with 1011. Middleware that is added afterwards runs outside of these.

    Args:
        app: The application.
        director: The one that `lifespan` opens.
        models: Models that have to be loaded before ``/readyz`` answers 200.
        health: Answer ``/livez`` and ``/readyz``; see `director.asgi.HealthEndpoints`.
        metrics: An ASGI application that answers ``/metrics``, such as ``prometheus_client.make_asgi_app()``.
        cancel_on_disconnect: Cancel the request when its client has disconnected; see
            `director.asgi.CancelOnDisconnect`.
        request_deadlines: Apply ``X-Request-Timeout`` and ``X-Request-Deadline``; see `director.asgi.RequestDeadline`.
        dashboard: Show the Director on a page below this path, ``/director`` if true, and open a socket for
            `director top` while the application runs; see `director.dashboard.Dashboard`. A reader of the page needs
            the token in the environment variable ``DIRECTOR_TOKEN``; where there is none, only requests that come
            straight from this machine are answered.

    Raises:
        RuntimeError: `dashboard` is given, and the Director is running.
        ValueError: The path of the dashboard does not begin with a slash, or is nothing else.
    """
    if dashboard:
        _show(app, director, _PATH if dashboard is True else dashboard)
    app.add_exception_handler(DirectorError, _answer)  # type: ignore[arg-type]  # called with a request or a websocket
    app.add_middleware(ProblemMiddleware)
    if request_deadlines:
        app.add_middleware(RequestDeadline)
    if cancel_on_disconnect:
        app.add_middleware(CancelOnDisconnect)
    if health or metrics is not None:
        paths = {} if health else {"live": None, "ready": None}
        app.add_middleware(HealthEndpoints, director=director, models=models, metrics=metrics, **paths)


def job_routes(jobs: JobStore, *, tenant: Callable[..., Any] | None = None) -> APIRouter:
    """Routes for the jobs of a store: ``app.include_router(job_routes(jobs), prefix="/jobs")``.

    ``GET /jobs/{id}`` answers `StoredJob.status`, with ``Retry-After`` while the job waits or runs. ``DELETE`` cancels
    it, or forgets it when it has ended. Both answer 404 for a job that isn't kept or belongs to another tenant.

    Args:
        jobs: The store.
        tenant: A dependency that gives the tenant of the request, as jobs are submitted with; `None` for jobs that
            have none.
    """
    router = APIRouter(tags=["jobs"])
    asking = Depends(tenant or _no_tenant)

    @router.get("/{id}")
    async def read_job(id: str, owner: Any = asking) -> JSONResponse:
        stored = jobs.get(id, owner)
        if stored is None:
            return JSONResponse(_NO_JOB.content, _NO_JOB.status, media_type=MEDIA_TYPE)
        headers = {"cache-control": "no-store"} | ({} if stored.job.done() else {"retry-after": "1"})
        return JSONResponse(jsonable_encoder(stored.status()), headers=headers)

    @router.delete("/{id}", status_code=204)
    async def delete_job(id: str, owner: Any = asking) -> Response:
        if jobs.discard(id, owner):
            return Response(status_code=204)
        return JSONResponse(_NO_JOB.content, _NO_JOB.status, media_type=MEDIA_TYPE)

    return router


def _no_tenant() -> None:
    return None


def _show(app: FastAPI, director: Director, path: str) -> None:
    """Mount a dashboard, and have its socket open while the application runs."""
    from director.dashboard import Dashboard

    if not path.startswith("/") or not path.strip("/"):
        raise ValueError(f'the path of the dashboard begins with a slash, such as "/gpu", and is not {path!r}')
    shown = Dashboard(director, token=os.environ.get("DIRECTOR_TOKEN") or None)
    app.mount(path.rstrip("/"), shown, name="director-dashboard")
    app.router.lifespan_context = with_socket(shown, app.router.lifespan_context)  # type: ignore[assignment]


async def _answer(connection: Request | WebSocket, error: Exception) -> JSONResponse | None:
    """Answer a request or a websocket that is not open yet; an open websocket can only be closed."""
    assert isinstance(error, DirectorError)
    problem = logged_problem_of(error, connection.scope)
    if not isinstance(connection, WebSocket) or connection.application_state is WebSocketState.CONNECTING:
        return JSONResponse(problem.content, problem.status, problem.headers, MEDIA_TYPE)
    if connection.application_state is connection.client_state is WebSocketState.CONNECTED:
        await connection.close(_INTERNAL_ERROR if problem.retry_after is None else _TRY_AGAIN_LATER, problem.kind)
    return None
