"""What is called in the chaos. Each call first notes in a file that it has begun. Light, for children import it.

The first argument is the device, or the replica of a model.
"""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING, Any, NoReturn

import director

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director._bench.calls import Array

NUMBER = struct.Struct("<q")
_LONGEST = 30.0  # seconds until a call that is never told gives up


def note(path: str, number: int) -> None:
    """A call for the job `number` has begun. Written in one piece, whoever else writes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, NUMBER.pack(number))
    finally:
        os.close(descriptor)


def answer_to(number: int) -> int:
    """What the call for a job returns, so that one can't be taken for another's."""
    return 7 * number + 1


def quick(_resource: Any, path: str, number: int) -> int:
    """Nothing else."""
    note(path, number)
    return answer_to(number)


def nap(_resource: Any, path: str, number: int, seconds: float) -> int:
    """Occupy the device, with the GIL free."""
    note(path, number)
    time.sleep(seconds)
    return answer_to(number)


def compute(_resource: Any, path: str, number: int, seconds: float) -> int:
    """Occupy the device in pure Python."""
    note(path, number)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(range(50))
    return answer_to(number)


def carry(_resource: Any, path: str, number: int, array: Array) -> Array:
    """A large array there and back."""
    note(path, number)
    return array


def fail(_resource: Any, path: str, number: int) -> NoReturn:
    """Raise what can be told apart."""
    note(path, number)
    raise KeyError(answer_to(number))


def obey(_resource: Any, path: str, number: int) -> NoReturn:
    """Go on until told that nobody waits."""
    note(path, number)
    _wait(polite=True)


def ignore(_resource: Any, path: str, number: int) -> NoReturn:
    """Go on whatever one is told: only a signal ends it."""
    note(path, number)
    _wait(polite=False)


def count(_resource: Any, path: str, number: int, values: int) -> Iterator[int]:
    """A stream."""
    note(path, number)
    for value in range(values):
        yield answer_to(number) + value


def together(_resource: Any, items: list[tuple[str, int]]) -> list[int]:
    """One call for several jobs."""
    for path, number in items:
        note(path, number)
    return [answer_to(number) for _, number in items]


def load(device: director.Device) -> str:
    """A model, which takes its time."""
    time.sleep(0.005)
    return device.label


def meet(_resource: Any, path: str, number: int, guests: int) -> int:
    """Return when as many as `guests` are in such a call at once."""
    note(path, number)
    until = time.monotonic() + _LONGEST
    while os.path.getsize(path) < guests * NUMBER.size:  # noqa: PTH202 - light
        if time.monotonic() > until:
            raise TimeoutError(f"{os.path.getsize(path) // NUMBER.size} of {guests} came")  # noqa: PTH202 - light
        time.sleep(0.002)
    return answer_to(number)


def _wait(polite: bool) -> NoReturn:
    until = time.monotonic() + _LONGEST
    while time.monotonic() < until:
        if polite:
            director.check_cancelled()
        time.sleep(0.001)
    raise TimeoutError("nobody has ended this call")
