"""What is called in the chaos. Each call first notes in a file that it has begun. Light, for children import it.

The first argument is the device, or the replica of a model.
"""

from __future__ import annotations

import logging
import os
import signal
import struct
import time
from typing import TYPE_CHECKING, Any, NoReturn

import director
from benchmarks.chaos.values import Value, check_argument, make

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER = struct.Struct("<q")
LOGGER = "director_chaos"
_LONGEST = 30.0  # seconds until a call that is never told gives up
_STOPPED = 0.1  # seconds for which a process stops itself
_logger = logging.getLogger(LOGGER)


def note(path: str, number: int) -> None:
    """A call for the job `number` has begun. Written in one piece, whoever else writes; without a path, nowhere."""
    if not path:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, NUMBER.pack(number))
    finally:
        os.close(descriptor)


def quick(_resource: Any, path: str, number: int) -> Value:
    """Nothing else."""
    note(path, number)
    return make(number, 0)


def nap(_resource: Any, path: str, number: int, seconds: float) -> Value:
    """Occupy the device, with the GIL free."""
    note(path, number)
    time.sleep(seconds)
    return make(number, 0)


def compute(_resource: Any, path: str, number: int, seconds: float) -> Value:
    """Occupy the device in pure Python."""
    note(path, number)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(range(50))
    return make(number, 0)


def carry(_resource: Any, path: str, number: int, value: Value) -> Value:
    """Its argument there and back."""
    note(path, number)
    check_argument(value, number)
    return value


def tell(_resource: Any, path: str, number: int, reports: int) -> Value:
    """Report and log meanwhile."""
    note(path, number)
    for each in range(reports):
        director.report(make(number, each))
        _logger.warning("job %d: report %d", number, each)
    return make(number, 0)


def tell_badly(_resource: Any, path: str, number: int) -> Value:
    """Report what can't be unpickled, and go on."""
    note(path, number)
    director.report(_Unreadable())
    return make(number, 0)


class _Unreadable:
    """Raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return int, ("this is no number",)


def fail(_resource: Any, path: str, number: int) -> NoReturn:
    """Raise what can be told apart."""
    note(path, number)
    raise KeyError(make(number, 0))


def die(_resource: Any, path: str, number: int) -> NoReturn:
    """End the own process as the system does when memory runs out."""
    note(path, number)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it can't be reached")


def stop(_resource: Any, path: str, number: int) -> Value:
    """Stop the own process for a moment."""
    note(path, number)
    import subprocess  # here: few calls need it

    command = f"sleep {_STOPPED}; kill -CONT {os.getpid()}"
    with subprocess.Popen(["/bin/sh", "-c", command]):
        os.kill(os.getpid(), signal.SIGSTOP)
    return make(number, 0)


def obey(_resource: Any, path: str, number: int) -> NoReturn:
    """Go on until told that nobody waits."""
    note(path, number)
    _wait(polite=True)


def ignore(_resource: Any, path: str, number: int) -> NoReturn:
    """Go on whatever one is told: only a signal ends it."""
    note(path, number)
    _wait(polite=False)


def count(_resource: Any, path: str, number: int, values: int) -> Iterator[Value]:
    """A stream."""
    note(path, number)
    for each in range(values):
        yield make(number, each)


def together(_resource: Any, items: list[tuple[str, int, Value]]) -> list[Value]:
    """One call for several jobs."""
    for path, number, value in items:
        note(path, number)
        check_argument(value, number)
    return [make(number, 0) for _, number, _ in items]


def load(device: director.Device) -> str:
    """A model, which takes its time."""
    time.sleep(0.005)
    return device.label


def meet(_resource: Any, path: str, number: int, guests: int) -> Value:
    """Return when as many as `guests` are in such a call at once."""
    note(path, number)
    until = time.monotonic() + _LONGEST
    while os.path.getsize(path) < guests * NUMBER.size:  # noqa: PTH202 - light
        if time.monotonic() > until:
            raise TimeoutError(f"{os.path.getsize(path) // NUMBER.size} of {guests} came")  # noqa: PTH202 - light
        time.sleep(0.002)
    return make(number, 0)


def _wait(polite: bool) -> NoReturn:
    until = time.monotonic() + _LONGEST
    while time.monotonic() < until:
        if polite:
            director.check_cancelled()
        time.sleep(0.001)
    raise TimeoutError("nobody has ended this call")
