"""What keeps an event loop busy in half of the time, in periods of 40 ms."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, TypeAlias

from director._bench.jobs import bare_time

if TYPE_CHECKING:
    from collections.abc import Callable

BUSY = 0.020  # s of every period
PERIOD = 0.040  # s

Burden: TypeAlias = "Callable[[], None]"


def nothing() -> None:
    """An idle loop."""


def block() -> None:
    """Hold the loop but not the GIL, as blocking I/O or a C library that gives the GIL up does."""
    time.sleep(BUSY)


def compute() -> None:
    """Hold the loop in pure Python, which offers the GIL every 5 ms."""
    until = time.perf_counter() + BUSY
    while time.perf_counter() < until:
        sum(range(100))


def json_encoder() -> Burden:
    """Hold the loop and the GIL in one C call that never offers it; sized on this machine to last `BUSY`."""
    row = {"label": "cat", "score": 0.98, "box": [1.5, 2.5, 3.5, 4.5]}
    sample = [row] * 1000
    rows = [row] * max(1, round(1000 * BUSY / bare_time(lambda: _encode(sample), 9)))
    return lambda: _encode(rows)


def _encode(rows: list[dict[str, object]]) -> None:
    json.dumps(rows)


def burdens() -> dict[str, Burden]:
    """Every load by the name that tables print."""
    return {"idle loop": nothing, "loop blocked": block, "loop in Python": compute, "loop in JSON": json_encoder()}


async def carry(burden: Burden, seconds: float) -> None:
    """Put `burden` on the running loop at the start of every period, for `seconds`."""
    began = time.perf_counter()
    for start in range(round(seconds / PERIOD)):
        burden()
        await asyncio.sleep(max(0.0, began + (start + 1) * PERIOD - time.perf_counter()))
