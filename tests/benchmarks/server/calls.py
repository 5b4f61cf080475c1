"""Functions that a server process calls, and their models. Few imports."""

from __future__ import annotations

import os
import time


def server_id(*_device: object) -> int:
    """The process of the server, from a thread in it."""
    return os.getpid()


def parent_id(*_device: object) -> int:
    """The same from a child of it."""
    return os.getppid()


def five_milliseconds(*_device: object) -> tuple[int, int]:
    """Occupy the device for 5 ms; returns when that began and ended, by the clock that all processes share."""
    began = time.monotonic_ns()
    time.sleep(0.005)
    return began, time.monotonic_ns()


def load(_device: object, size: int) -> bytearray:
    """A replica of so many bytes, all of which are written."""
    return bytearray(b"\1") * size
