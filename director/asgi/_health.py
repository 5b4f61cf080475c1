"""Endpoints for operators: liveness, readiness and metrics."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from director import DirectorState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director import DeviceStats, Director, Model
    from director.asgi._types import App, Receive, Scope, Send


class HealthEndpoints:
    """ASGI middleware, or an application of its own: answers ``/livez``, ``/readyz`` and ``/metrics``.

    Add it outside of all other middleware, so that neither authorisation nor limits apply to it.

    - ``/livez`` is 200 while the event loop runs and the Director has not failed: 503 means restart.
    - ``/readyz`` is 200 while the Director is open, some slot can compute, and each of `models` is loaded somewhere;
      else 503 and the reasons: send requests elsewhere. One of them is that every slot is held by a call that goes on
      although its job has ended (it was cancelled, or is out of time): if that stays so, restart. With
      ``Director(server=...)`` another is that the server process does not answer, or is gone and being started again.

    Args:
        app: Gets all other requests; without it they are answered with 404.
        director: The Director to report.
        models: Models that have to be loaded before requests are accepted; `lifespan(director, load=...)` loads them.
        live: Path of the first; `None` for none.
        ready: Path of the second; `None` for none.
        metrics: An ASGI application that answers ``/metrics``, such as ``prometheus_client.make_asgi_app()``.
    """

    def __init__(
        self,
        app: App | None = None,
        *,
        director: Director,
        models: Iterable[Model[Any]] = (),
        live: str | None = "/livez",
        ready: str | None = "/readyz",
        metrics: App | None = None,
    ) -> None:
        self._app = app or _not_found
        self._director = director
        self._models = tuple(models)
        self._pages: dict[str | None, App] = {live: self._live, ready: self._ready}
        if metrics is not None:
            self._pages["/metrics"] = metrics
        self._pages.pop(None, None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        page = self._pages.get(_path(scope)) if scope["type"] == "http" else None
        if page is None:
            await self._app(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD"):
            await page(scope, receive, send)
        else:
            await _send(send, 405, {"error": "only GET and HEAD"}, allow="GET, HEAD")

    def reasons(self) -> list[str]:
        """Why it is not ready; empty if it is."""
        director = self._director
        if director.state is not DirectorState.OPEN:
            return [f"the Director is {director.state.value}"]
        backend, devices = director._runtime, director.stats().devices
        resident = {name for each in devices for name in each.models}
        missing = [f"{model.name} is not loaded" for model in self._models if model.name not in resident]
        if director.healthy:
            return missing
        unreachable = None if backend is None else backend.unreachable
        return [unreachable] if unreachable else [_unable(devices), *missing]

    async def _live(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        state = self._director.state
        await _send(send, 503 if state is DirectorState.FAILED else 200, {"director": state.value})

    async def _ready(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        reasons = self.reasons()
        await _send(send, 503 if reasons else 200, {"ready": not reasons, "because": reasons})


def _unable(devices: tuple[DeviceStats, ...]) -> str:
    """Why no slot can compute."""
    abandoned, slots = sum(each.abandoned for each in devices), sum(each.slots for each in devices)
    if not abandoned:
        return "no device is healthy"
    held = f"{abandoned} of {slots} slots are held by calls whose jobs have ended (cancelled, or out of time)"
    return held if abandoned == slots else f"{held}, and no other device is healthy"


async def _not_found(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await _send(send, 404, {"error": "not found"})


async def _send(send: Send, status: int, content: object, **headers: str) -> None:
    body = json.dumps(content).encode()
    all_headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        **headers,
    }
    raw = [(name.encode(), value.encode()) for name, value in all_headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _path(scope: Scope) -> str:
    """The path below the mount point.

    Most frameworks leave the whole path in the scope, with `root_path` as its prefix.
    """
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")).rstrip("/") or "/"
