"""Calls that try to break what goes between a child and its parent. A child imports them: no test framework here."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import director

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director import Device


def say(_device: Device, whose: Any, size: int = 0) -> Any:
    """Something that says whose it is, of any size."""
    return whose, b"." * size


def give_back(_device: Device, whose: Any, value: Any) -> Any:
    return whose, value


def speak(_device: Device, whose: Any, count: int, size: int = 0) -> Iterator[Any]:
    for n in range(count):
        yield whose, n, b"." * size


class Raiser:
    """Can be sent, and raises when it is received."""

    def __init__(self, kind: type[BaseException], size: int = 0) -> None:
        self.kind = kind
        self.load = b"x" * size

    def __reduce__(self) -> Any:
        return _raise, (self.kind, self.load)


def _raise(kind: type[BaseException], _load: bytes) -> None:
    raise kind("it raises when it is received")


class Unsendable:
    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        raise self.kind("it raises when it is sent")


class Endless:
    def __reduce__(self) -> Any:
        return Endless, (Endless(),)


def return_raiser(_device: Device, kind: type[BaseException], size: int) -> Any:
    return Raiser(kind, size)


def return_unsendable(_device: Device, kind: type[BaseException]) -> Any:
    return Unsendable(kind)


def return_endless(_device: Device) -> Any:
    return Endless()


def yield_raiser(_device: Device, kind: type[BaseException], size: int) -> Iterator[Any]:
    yield "first"
    yield Raiser(kind, size)
    yield "third"


def report_raisers(_device: Device, whose: Any, size: int) -> Any:
    for kind in (ValueError, SystemExit, KeyboardInterrupt):
        director.report(Raiser(kind, size))
    return whose


class Reporter:
    """Reports, logs and forks while it is pickled."""

    def __init__(self, whose: Any, forks: bool) -> None:
        self.whose = whose
        self.forks = forks

    def __reduce__(self) -> Any:
        director.report(("while pickled", self.whose))
        logging.getLogger("hostile").warning("pickled")
        if self.forks:
            os.fork()
        return tuple, ([self.whose],)


def return_reporter(_device: Device, whose: Any, forks: bool = False) -> Any:
    return Reporter(whose, forks)


def fork_and_return(_device: Device, path: str, how: str) -> Any:
    pid = os.fork() if how != "in C" else ctypes.PyDLL(None).fork()
    if pid == 0 and how == "raise":
        raise ValueError("of the copy")
    if pid == 0 and how == "exit":
        raise SystemExit(3)
    with Path(path).open("a") as file:
        file.write(f"{pid == 0} ")
    return pid


def fork_and_yield(_device: Device, count: int) -> Iterator[Any]:
    for n in range(count):
        os.fork()
        yield n


def await_copy(_device: Device, pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def start_talking(_device: Device, seconds: float) -> None:
    """Threads that outlive the call, and log."""

    def talk() -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            director.report("of an old call")
            logging.getLogger("hostile").warning("x" * 40_000)
            time.sleep(0.001)

    for _ in range(2):
        threading.Thread(target=talk, daemon=True).start()


def write_garbage(_device: Device, whose: Any) -> Any:
    """Into every socket that there is."""
    for path in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):
            if str(path.readlink()).startswith("socket:"):
                os.write(int(path.name), b"garbage" * 20)
    return whose


def leave_sleeping(_device: Device, path: str) -> None:
    """Start a program that stays, as a daemon of a driver would."""
    os.system(f"sleep 30 >/dev/null 2>&1 & echo $! > {path}")


def limit_descriptors(_device: Device, limit: int) -> int:
    """Set how many descriptors this process may have, so that with 0 none can be received; returns what it was."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    return before


class Slow:
    """An argument that takes its time, or raises, when it is pickled."""

    def __init__(self, seconds: float, kind: type[BaseException] | None = None) -> None:
        self.seconds = seconds
        self.kind = kind

    def __reduce__(self) -> Any:
        time.sleep(self.seconds)
        if self.kind is not None:
            raise self.kind("it raises when it is sent")
        return Slow, (0.0,)
