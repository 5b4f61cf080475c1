"""Functions that are called in other processes. Few imports, so that they add little to the start of a process.

Every job takes, and ignores, the device that a Director passes.
"""

from __future__ import annotations

import os
import pickle
import time
from typing import Any


def noop(*_device: object) -> None:
    """Do nothing: what remains is the cost of the call."""


def one_millisecond(*_device: object) -> tuple[int, int]:
    """Occupy the device for 1 ms; returns when that began and ended, by the clock that all processes share."""
    return _sleep(0.001)


def twenty_milliseconds(*_device: object) -> tuple[int, int]:
    """The same for 20 ms."""
    return _sleep(0.020)


def _sleep(seconds: float) -> tuple[int, int]:
    began = time.monotonic_ns()
    time.sleep(seconds)
    return began, time.monotonic_ns()


class Array:
    """Memory that is pickled as a NumPy array is; as a job it gives itself back."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def __call__(self, *_device: object) -> Array:
        """Return itself."""
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Its bytes, or from protocol 5 on the memory itself."""
        return Array, (pickle.PickleBuffer(self.memory) if protocol >= 5 else bytes(self.memory),)


def process_id(*_device: object) -> int:
    """The process that it runs in."""
    return os.getpid()


def die(*_device: object) -> None:
    """End the process, as a fault in native code does."""
    os._exit(11)
