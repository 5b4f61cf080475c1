"""The service of this folder: a placeholder for a model, with health checks, metrics and a bounded shutdown.

    uvicorn --app-dir docs/examples/deploy server:app --timeout-graceful-shutdown 20

``DIRECTOR_DEVICES=simulated:2`` chooses the devices; without it the GPUs, or the processor where there are none.
"""

from __future__ import annotations

import os

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, make_asgi_app

from director import Device, Director, Model
from director.fastapi import PROBLEMS, install, lifespan
from director.prometheus import Breakdown, DirectorCollector, Durations


def load(device: Device) -> str:
    """What one's own loader does once for each device: read weights, move them to `str(device)`."""
    return str(device)


durations, breakdown, registry = Durations(), Breakdown(), CollectorRegistry()
director = Director(
    os.environ.get("DIRECTOR_DEVICES"), name="service", when_full="refuse", hooks=[durations, breakdown]
)
DirectorCollector(director, durations, breakdown=breakdown, registry=registry)
model = Model(load, name="placeholder")

app = FastAPI(responses=PROBLEMS, lifespan=lifespan(director, load=[model], close_timeout=10, close_grace=2))
install(app, director, models=[model], metrics=make_asgi_app(registry))


@director.function(model=model, max_batch_size=16)
def double(_replica: str, numbers: list[float]) -> list[float]:
    """The computation, of whatever waits by then."""
    return [2 * number for number in numbers]


@app.post("/double")
async def answer(number: float) -> float:
    """Twice the number."""
    return await double(number)
