"""Functions of jobs that end in every way, and count their calls. A small module, for child processes import it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any


class Calls:
    """What the functions of the storm know of their calls; a child process has its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls = 0
        self.plain = 0
        self.items: set[int] = set()
        self.tried: Counter[int] = Counter()

    def note(self, items: list[int] | None = None) -> None:
        with self._lock:
            self.calls += 1
            self.plain += items is None
            self.items.update(items or ())


calls = Calls()  # of this process


def succeed(_: object) -> int:
    calls.note()
    return 1


def nap(_: object) -> None:
    calls.note()
    time.sleep(0.003)


def fail(_: object) -> None:
    calls.note()
    raise ZeroDivisionError


def fail_at_first(_: object, number: int) -> None:
    calls.note()
    calls.tried[number] += 1
    if calls.tried[number] < 3:
        raise ConnectionError


def stream(_: object) -> Any:
    calls.note()
    yield from range(5)


def together(_: object, items: list[int]) -> list[Any]:
    calls.note(items)
    return [ValueError() if item % 5 == 0 else item for item in items]


def apart(_: object, items: list[int]) -> list[int]:
    calls.note(items)
    if len(items) > 1 or items[0] % 4 == 0:
        raise ValueError
    return items
