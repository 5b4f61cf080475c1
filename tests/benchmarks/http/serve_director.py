"""The model behind FastAPI and a Director, as the how-to pages do it where requests are many.

`python -m benchmarks.http.serve_director PORT WORKERS KIND`: a ``route``, which reads and answers JSON as the endpoints
of the other servers do, or an ``endpoint`` of FastAPI, which validates both sides too.
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
from director.asgi import owned
from director.fastapi import install, lifespan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from director import Device

PORT, WORKERS = map(int, sys.argv[1:3])


@asynccontextmanager
async def settled(_app: FastAPI) -> AsyncIterator[None]:
    """What docs/how-to/deploy.md advises, when everything is loaded."""
    gc.collect()
    gc.freeze()
    yield


director = Director(f"simulated:{WORKERS}")
app = FastAPI(lifespan=lifespan(director, settled))
install(app, director)


class Item(BaseModel):
    x: float


class Doubled(BaseModel):
    y: float


@director.function(max_batch_size=model.LARGEST)
def predict(_device: Device, items: list[float]) -> list[float]:
    return model.predict(items)


async def endpoint(item: Item) -> Doubled:
    return Doubled(y=await owned(predict.submit(item.x)))


async def route(request: Request) -> JSONResponse:
    return JSONResponse({"y": await owned(predict.submit((await request.json())["x"]))})


if sys.argv[3] == "endpoint":
    app.post("/predict")(endpoint)
else:
    app.add_route("/predict", route, methods=["POST"])
uvicorn.run(app, port=PORT, log_level="warning", access_log=False)
