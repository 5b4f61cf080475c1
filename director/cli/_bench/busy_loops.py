"""Loads that keep an event loop busy half of the time, in periods of 40 ms."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

BUSY = 0.020  # s of every period
PERIOD = 0.040  # s
ROW = {"label": "cat", "score": 0.98, "box": [1.5, 2.5, 3.5, 4.5]}

Burden: TypeAlias = "Callable[[], None]"


def nothing() -> None:
    """An idle loop."""


def block() -> None:
    """Hold the loop but not the GIL, as blocking I/O or a C library that releases the GIL does."""
    time.sleep(BUSY)


def compute() -> None:
    """Hold the loop in pure Python, which releases the GIL every 5 ms."""
    until = time.perf_counter() + BUSY
    while time.perf_counter() < until:
        sum(range(100))


class JsonEncoder:
    """Hold the loop and the GIL in one C call that never releases it.

    The call can't be stopped after `BUSY`, so its size is adapted to the time of the last one: otherwise it would take
    longer when other threads use the core.
    """

    def __init__(self) -> None:
        self._rows = 1000
        for _ in range(5):
            self()

    def __call__(self) -> None:
        """Encode for about `BUSY`."""
        rows = [ROW] * self._rows
        began = time.perf_counter()
        json.dumps(rows)
        self._rows = max(1, round(self._rows * BUSY / (time.perf_counter() - began)))


def burdens() -> dict[str, Burden]:
    """Every load by the name that tables print."""
    return {"idle loop": nothing, "loop blocked": block, "loop in Python": compute, "loop in JSON": JsonEncoder()}


async def carry(burden: Burden, seconds: float) -> None:
    """Put `burden` on the running loop at the start of every period, for `seconds`."""
    began = time.perf_counter()
    for start in range(round(seconds / PERIOD)):
        burden()
        await asyncio.sleep(max(0.0, began + (start + 1) * PERIOD - time.perf_counter()))
