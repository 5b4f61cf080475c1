"""The model behind LitServe: `python -m benchmarks.http.serve_litserve PORT WORKERS BATCH_TIMEOUT FAST_QUEUE`."""

from __future__ import annotations

import sys
from typing import Any

import litserve
from benchmarks.http import model


class Api(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: object) -> None:
        """Nothing to load."""

    def decode_request(self, request: dict[str, float]) -> float:
        return request["x"]

    def batch(self, inputs: list[float]) -> list[float]:
        return inputs

    def predict(self, x: Any) -> Any:
        return model.predict(list(x))

    def unbatch(self, output: list[float]) -> list[float]:
        return output

    def encode_response(self, output: float) -> dict[str, float]:
        return {"y": output}


if __name__ == "__main__":  # its processes import this module again
    port, workers, batch_timeout, fast_queue = sys.argv[1:]
    api = Api(max_batch_size=model.LARGEST, batch_timeout=float(batch_timeout))
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=int(workers), fast_queue=fast_queue == "fast", timeout=60
    )
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning", access_log=False)
