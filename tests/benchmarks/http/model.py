"""The model that every server serves: it takes time, as a GPU does, and the GIL is free meanwhile."""

from __future__ import annotations

import time

CALL, ITEM = 0.005, 0.0002  # seconds
LARGEST = 16


def predict(items: list[float]) -> list[float]:
    """Double each of a batch."""
    time.sleep(seconds(len(items)))
    return [2 * item for item in items]


def seconds(size: int) -> float:
    """How long a batch takes."""
    return CALL + ITEM * size


def peak(workers: int) -> float:
    """Items a second that so many copies of it can do, in full batches without a pause."""
    return workers * LARGEST / seconds(LARGEST)
