"""The model behind FastAPI and a Director, as the how-to pages do it.

`python -m benchmarks.http.serve_director PORT WORKERS KIND`: an ``endpoint`` of FastAPI, or a ``route`` without its
parameters and validation.
"""

from __future__ import annotations

import sys
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
    from director import Device

PORT, WORKERS = map(int, sys.argv[1:3])
director = Director(f"simulated:{WORKERS}")
app = FastAPI(lifespan=lifespan(director))
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
