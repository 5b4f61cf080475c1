"""Functions for a server process, which imports them from here."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import director

if TYPE_CHECKING:
    from collections.abc import Iterator


def add(_device: object, left: Any, right: Any) -> Any:
    """The sum."""
    return left + right


def process(_resource: object) -> int:
    """Which process makes the call."""
    return os.getpid()


def hold(_device: object, pipe: str) -> int:
    """Say that it has begun, and return when somebody has written to the named pipe."""
    Path(f"{pipe}.begun").touch()
    with Path(pipe).open("rb") as opened:
        opened.read()
    return os.getpid()


def hold_and_fail(device: object, pipe: str, log: str) -> None:
    """The same, and raise; the file has a line for each call."""
    note(device, log, "called")
    hold(device, pipe)
    raise Odd(1, "held")


def wait_cancelled(_device: object, marker: str) -> None:
    """Return when the job is cancelled, and say so."""
    Path(f"{marker}.begun").touch()
    try:
        while True:
            director.check_cancelled()
            time.sleep(0.001)
    finally:
        Path(f"{marker}.ended").touch()


def note(_device: object, log: str, word: str) -> None:
    """Append a word to a file."""
    with Path(log).open("a") as opened:
        opened.write(f"{word}\n")


class Odd(Exception):
    """An error with parts."""

    def __init__(self, first: int, second: str) -> None:
        super().__init__(first, second)
        self.second = second


def fail(_device: object, second: str) -> None:
    """Raise."""
    raise Odd(1, second)


def fail_until(_device: object, log: str, times: int) -> int:
    """Raise the first `times` times."""
    with Path(log).open("a") as opened:
        opened.write("x")
    tries = len(Path(log).read_text())
    if tries <= times:
        raise Odd(tries, "again")
    return tries


def batch(_device: object, items: list[int]) -> list[Any]:
    """Each item with the size of its batch; an error for those below zero."""
    return [Odd(item, "negative") if item < 0 else (item, len(items)) for item in items]


def hold_batch(_device: object, items: list[str]) -> list[int]:
    """How many items share the call; the one that is a path is waited for."""
    for item in items:
        if item.startswith("/"):
            hold(None, item)
    return [len(items)] * len(items)


def load(_device: object) -> dict[str, int]:
    """A replica: which process has it, and a number of its own."""
    return {"process": os.getpid(), "number": time.monotonic_ns()}


def load_another(device: object) -> dict[str, int]:
    """The same, of another model."""
    return load(device)


def load_with(number: int, _device: object) -> dict[str, int]:
    """A replica with this number."""
    return {"process": os.getpid(), "number": number}


def load_noting(log: str, number: int, _device: object) -> dict[str, int]:
    """The same; the file has it."""
    note(None, log, f"load {number}")
    return {"process": os.getpid(), "number": number}


def unload_noting(log: str, loaded: dict[str, int]) -> None:
    """It is unloaded; the file has it."""
    note(None, log, f"unload {loaded['number']}")


class _Cupy:
    def __init__(self, log: str) -> None:
        self._log = log

    def get_default_memory_pool(self) -> _Cupy:
        return self

    def free_all_blocks(self) -> None:
        note(None, self._log, "freed")


def cache_memory(_device: object, log: str) -> None:
    """As if CuPy were imported here, and had cached memory; the file has when it is freed."""
    sys.modules["cupy"] = _Cupy(log)  # type: ignore[assignment]


def note_unload(log: str, loaded: dict[str, int]) -> None:
    """Append the number of a replica to a file."""
    note(None, log, str(loaded["number"]))


def number_of_replica() -> int:
    """The number of the job's replica."""
    return int(director.current_replica()["number"])


def no_load(_device: object) -> None:
    """Never loads."""
    raise Odd(2, "no such file")


_entered: list[str] = []


class Outside:
    """Entered around each call."""

    name = "outside"

    def __enter__(self) -> None:
        _entered.append(self.name)

    def __exit__(self, *_error: object) -> None:
        _entered.remove(self.name)


class Inside(Outside):
    """The same, of a model."""

    name = "inside"


def surroundings(_resource: object) -> list[str]:
    """What has been entered."""
    return [*_entered]


def replica(loaded: dict[str, int]) -> dict[str, int]:
    """The replica."""
    return loaded


def count(_device: object, until: int) -> Iterator[int]:
    """The numbers below."""
    yield from range(until)


def count_and_fail(_device: object, until: int) -> Iterator[int]:
    """The numbers below, and an error."""
    yield from range(until)
    raise Odd(until, "over")


def count_for_ever(_device: object, marker: str) -> Iterator[int]:
    """Numbers, until nobody reads them."""
    number = 0
    try:
        while True:
            yield number
            number += 1
    finally:
        Path(f"{marker}.ended").touch()


def fail_when_closed(_device: object) -> Iterator[int]:
    """Values; when it is closed another one, and then an error."""
    try:
        while True:
            yield 1
    finally:
        try:
            yield 2
        finally:
            raise Odd(2, "closed")


def say(_device: object, text: str) -> None:
    """Log."""
    logging.getLogger("served").warning(text)


def progress(_device: object, pipe: str) -> str | None:
    """Report, and wait."""
    director.report({"done": 3})
    hold(None, pipe)
    return director.current_job().name


class SlowToPickle:
    """Waits for a named pipe while it is pickled."""

    def __init__(self, pipe: str) -> None:
        self.pipe = pipe

    def __reduce__(self) -> Any:
        hold(None, self.pipe)
        return str, ("slow",)


def report_slowly(_device: object, pipe: str) -> None:
    """Report what blocks while it is pickled."""
    director.report(SlowToPickle(pipe))


class Unreadable:
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> Any:
        return fail, (None, "unreadable")


class Leaves:
    """Exits where it is unpickled."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class LeavesHere:
    """Exits where it is pickled."""

    def __reduce__(self) -> Any:
        sys.exit(4)


def leave(_device: object, items: list[Any]) -> list[Any]:
    """Each item; in place of a -1, what exits where it is pickled."""
    return [LeavesHere() if item == -1 else item for item in items]


def report_unreadable(_device: object, number: int) -> int:
    """Report what can't be read."""
    director.report(Unreadable())
    return number


def unpicklable_result(_device: object) -> Any:
    """Return what can't be sent."""
    return threading.Lock()


def unpicklable_error(_device: object) -> None:
    """Raise what can't be sent."""

    class LocalError(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("not this one")

    raise LocalError(threading.Lock())


def fork_and_pause(_device: object) -> int:
    """Fork a process that stays; returns its number."""
    child = os.fork()
    if not child:
        signal.pause()
    return child


def size(_device: object, value: Any) -> int:
    """Its length."""
    return len(value)


def text(_device: object, length: int) -> str:
    """So many letters."""
    return "x" * length


def kill(_device: object) -> None:
    """End this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def device(resource: Any) -> str:
    """The device."""
    assert resource == director.current_device()
    return str(resource.label)
