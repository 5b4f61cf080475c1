"""The model that every server serves: it takes time, as a GPU does, and the GIL is free meanwhile."""

from __future__ import annotations

import threading
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


def alone(workers: int, seconds: float) -> float:
    """Items a second of threads that do nothing but call it, in full batches: what this machine's sleep makes of it."""
    end = time.perf_counter() + seconds
    done = [0] * workers

    def work(number: int) -> None:
        while time.perf_counter() < end:
            predict([0.0] * LARGEST)
            done[number] += LARGEST

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - end + seconds)
