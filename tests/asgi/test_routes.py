"""Endpoints that read and answer by themselves, where requests are many: see docs/how-to/deploy.md."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from harness.gates import Gate, until
from starlette.testclient import TestClient

from asgi.wire import served
from director import Director
from director.fastapi import install, lifespan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send


class Early:
    """Middleware that answers one path by itself, as docs/how-to/deploy.md advises for the one that is asked most."""

    def __init__(self, app: ASGIApp, route: Callable[[Request], Awaitable[Response]]) -> None:
        self._app = app
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/route":
            response = await self._route(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


@pytest.mark.parametrize("is_early", [False, True], ids=["add_route", "before the router"])
async def test_a_plain_route_has_all_of_it_too(gate: Gate, is_early: bool) -> None:
    async def route(request: Request) -> JSONResponse:
        return JSONResponse(await request.state.director.submit(gate, (await request.json())["x"]))

    director = Director("simulated:1", max_queue=2)
    app = FastAPI(lifespan=lifespan(director))
    if is_early:
        app.add_middleware(Early, route=route)
    else:
        app.add_route("/route", route, methods=["POST"])
    install(app, director)
    async with served(app) as site:
        director.submit(gate, "busy")
        await gate.begun()
        clients = [await site.ask("POST", "/route", b'{"x": 3}') for _ in range(2)]
        await until(lambda: director.stats().queued == 2)
        refused = await site.post("/route", b'{"x": 4}')
        assert (refused.status, refused.json()["kind"]) == (503, "queue-full")
        await clients[0].leave()
        await until(lambda: director.stats().queued == 1)
        gate.open()
        assert (await clients[1].reply()).json() == 3
    assert gate.items == ["busy", 3]


def test_the_application_of_the_page_answers() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "deploy.md").read_text()
    [code] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Early" in block]
    names: dict[str, Any] = {"__name__": "server"}
    exec(code, names)
    try:
        with TestClient(names["app"]) as client:
            assert client.post("/predict", json={"x": 21}).json() == {"y": 42.0}
            assert client.post("/predict", json={"y": 1}).status_code == 422
            assert client.get("/predict").status_code == 404, "only its own path and method are answered early"
            assert client.get("/readyz").status_code == 200
    finally:
        gc.unfreeze()
