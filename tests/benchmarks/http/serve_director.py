"""The model behind FastAPI and a Director, as the how-to pages do it where requests are many.

`python -m benchmarks.http.serve_director PORT WORKERS KIND`: an ``endpoint`` of FastAPI, which validates both sides; a
``route``, which reads and answers JSON itself as the endpoints of the other servers do; the same function ``early``,
before FastAPI's router; or that in two processes of uvicorn, whose Director is ``served`` by a third.
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
KIND = sys.argv[3]
PROCESSES = 2 if KIND == "served" else 1


@asynccontextmanager
async def settled(_app: FastAPI) -> AsyncIterator[None]:
    """What docs/how-to/deploy.md advises, when everything is loaded."""
    gc.collect()
    gc.freeze()
    yield


director = (
    Director(f"simulated:{WORKERS}", server=f"benchmark-{PORT}", server_linger=0.0)
    if KIND == "served"
    else Director(f"simulated:{WORKERS}")
)
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


match KIND:
    case "endpoint":
        app.post("/predict")(endpoint)
    case "route":
        app.add_route("/predict", route, methods=["POST"])
    case "early" | "served":
        app.add_middleware(Early)
install(app, director)  # goes around what was added before
if __name__ == "__main__":
    options = {"port": PORT, "log_level": "warning", "access_log": False}
    if PROCESSES == 1:
        uvicorn.run(app, **options)
    else:  # each imports this module, under its own name
        uvicorn.run("benchmarks.http.serve_director:app", workers=PROCESSES, timeout_worker_healthcheck=60, **options)
