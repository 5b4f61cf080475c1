"""The model behind FastAPI and a Director, as the how-to pages do it where requests are many.

`python -m benchmarks.http.serve_director PORT WORKERS KIND`: an ``endpoint`` of FastAPI, which validates both sides; a
``route``, which reads and answers JSON itself as the endpoints of the other servers do; or the same function ``early``,
before FastAPI's router.
"""

from __future__ import annotations

import gc
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvicorn
from benchmarks.http import model
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from director import Director
from director.fastapi import install, lifespan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Receive, Scope, Send

    from director import Device

PORT, WORKERS = map(int, sys.argv[1:3])


@asynccontextmanager
async def settled(_app: FastAPI) -> AsyncIterator[None]:
    """What docs/how-to/deploy.md advises, when everything is loaded."""
    gc.collect()
    gc.freeze()
    yield


director = Director(f"simulated:{WORKERS}")
app = FastAPI(lifespan=lifespan(director, settled), telemetry={"tracing": False, "metrics": False, "logs": False})


class Item(BaseModel):
    x: float


class Doubled(BaseModel):
    y: float


@director.function(max_batch_size=model.LARGEST)
def predict(_device: Device, items: list[float]) -> list[float]:
    return model.predict(items)


async def endpoint(item: Item) -> Doubled:
    return Doubled(y=await predict.submit(item.x))


async def route(request: Request) -> JSONResponse:
    return JSONResponse({"y": await predict.submit((await request.json())["x"])})


class Early:
    """Answers the one path that is asked most."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/predict" and scope["method"] == "POST":
            response = await route(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


match sys.argv[3]:
    case "endpoint":
        app.post("/predict")(endpoint)
    case "route":
        app.add_route("/predict", route, methods=["POST"])
    case "early":
        app.add_middleware(Early)
install(app, director)  # goes around what was added before
uvicorn.run(app, port=PORT, log_level="warning", access_log=False)
