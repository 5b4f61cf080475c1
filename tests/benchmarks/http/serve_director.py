"""The model behind FastAPI and a Director, as the how-to pages do it.

`python -m benchmarks.http.serve_director PORT WORKERS SWITCH_INTERVAL`
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import uvicorn
from benchmarks.http import model
from fastapi import FastAPI
from pydantic import BaseModel

from director import Director
from director.asgi import owned
from director.fastapi import install, lifespan

if TYPE_CHECKING:
    from director import Device

PORT, WORKERS = map(int, sys.argv[1:3])

sys.setswitchinterval(float(sys.argv[3]))
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


@app.post("/predict")
async def answer(item: Item) -> Doubled:
    return Doubled(y=await owned(predict.submit(item.x)))


uvicorn.run(app, port=PORT, log_level="warning", access_log=False)
