"""The model behind mosec: `python -m benchmarks.http.serve_mosec --port PORT`, with `WORKERS` in the environment."""

from __future__ import annotations

import os

import mosec
from benchmarks.http import model


class Doubling(mosec.Worker):  # type: ignore[misc]
    def forward(self, data: list[dict[str, float]]) -> list[dict[str, float]]:
        return [{"y": y} for y in model.predict([item["x"] for item in data])]


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(
        Doubling, num=int(os.environ["WORKERS"]), max_batch_size=model.LARGEST, max_wait_time=5, route="/predict"
    )
    server.run()
