"""What is called in the children. In a module of its own, so that a child imports no test framework."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import director

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director import Device

PATIENCE = 20.0  # seconds that a call waits for its test


# ---- plain ones


def echo(_device: Device, value: Any = None) -> Any:
    return value


def add(_device: Device, a: int, b: int, *, c: int = 0) -> int:
    return a + b + c


def bare_sum(*values: int) -> int:
    return sum(values)


def process_id(*_resource: object) -> int:
    return os.getpid()


def whereabouts(device: Device) -> dict[str, Any]:
    job = director.current_job()
    return {
        "process": os.getpid(),
        "device": device,
        "current": director.current_device(),
        "job": (job.id, job.name, job.priority, job.attempts, job.state, job.device, job.done(), job.cancelled()),
        "waited": job.waited,
        "text": repr(job),
    }


def environment(_device: Device, *names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def text_of(device: Device) -> str:
    return str(device)


def double_all(_device: Device, items: list[int]) -> list[int]:
    return [2 * item for item in items]


def half_broken(_device: Device, items: list[int]) -> list[int | Exception]:
    return [item if item % 2 else ValueError(f"{item} is even") for item in items]


def all_or_nothing(_device: Device, items: list[int]) -> list[int]:
    if min(items) < 0:
        raise ValueError("a negative one")
    return items


async def coroutine(_device: Device) -> None:
    pass


def returns_coroutine(device: Device) -> Any:
    return coroutine(device)


def returns_generator(_device: Device) -> Any:
    return (number for number in range(3))


def are_open(_device: Device, *descriptors: int) -> bool:
    for descriptor in descriptors:
        os.fstat(descriptor)
    return True


def print_it(_device: Device, text: str) -> None:
    print(text)


def modules(_device: Device, *names: str) -> list[str]:
    return [name for name in names if name in sys.modules]


def thread_name(_device: Device) -> str:
    return threading.current_thread().name


def in_thread(_device: Device) -> str:
    """What a thread that the job starts may ask: it is elsewhere."""
    said: list[str] = []

    def ask() -> None:
        director.check_cancelled()
        director.report("from a thread")
        try:
            director.current_job()
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return said[0]


class Adder:
    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, device: Device, value: int) -> int:
        return self.add(device, value)

    def add(self, _device: Device, value: int) -> int:
        return self.number + value


def decorated(fn: Any) -> Any:
    @functools.wraps(fn)
    def inside(*args: Any) -> Any:
        return "wrapped", fn(*args)

    return inside


@decorated
def wrapped(_device: Device, value: int) -> int:
    return value


# ---- that tell and wait


def held(_device: Device, path: str, value: Any = None) -> Any:
    """Say that it has begun, and return when `path` is there."""
    director.report("begun")
    _await(path)
    return value


def note(_device: Device, path: str, text: str) -> int:
    """Leave word that it ran."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")
    return os.getpid()


def nap(_device: Device, seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


def held_talking(_device: Device, path: str) -> None:
    """The same, and say so now and then."""
    began = time.monotonic()
    while not Path(path).exists():
        assert time.monotonic() - began < PATIENCE
        director.report("waiting")
        time.sleep(0.01)


def cooperative(_device: Device) -> None:
    director.report("begun")
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        director.check_cancelled()
        time.sleep(0.001)


def partial(device: Device) -> str:
    """What it has when it is told to end."""
    try:
        cooperative(device)
    except asyncio.CancelledError:
        return "partial"
    return "whole"


def cooperative_batch(device: Device, _items: list[int]) -> None:
    cooperative(device)


def stuck(_device: Device, path: str = "") -> None:
    """In Python code, with a `finally`."""
    try:
        director.report("begun")
        while True:
            time.sleep(0.01)
    finally:
        if path:
            Path(path).write_text("cleaned up")


def stubborn(_device: Device) -> None:
    """Not even SIGTERM ends it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    director.report("begun")
    while True:
        time.sleep(0.01)


def say_progress(_device: Device, steps: int) -> int:
    for step in range(steps):
        director.report({"step": step})
    return steps


def _await(path: str) -> None:
    began = time.monotonic()
    while not Path(path).exists():
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.001)


# ---- that fail


class Picky(Exception):
    """Can be pickled, and not unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.sum = one + two


class Missing(FileNotFoundError):
    def __init__(self, *, url: str) -> None:
        super().__init__(2, "not here", "weights.bin")
        self.url = url


class OwnWay(Picky):
    def __reduce__(self) -> Any:
        return OwnWay, ("1",)


class Holding(Exception):
    """Can't be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Rich(Exception):
    """Has attributes of its own, and survives."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text, code)
        self.code = code


class Textless(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Unloadable:
    """Can be pickled, and refuses to come back."""

    def __reduce__(self) -> Any:
        return _refuse, ("no way back",)


class Unsendable:
    def __reduce__(self) -> Any:
        raise ValueError("I stay here")


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def throw(_device: Device, error: BaseException) -> None:
    raise error


def throw_picky(_device: Device) -> None:
    raise Picky(1, 2)


def throw_missing(_device: Device) -> None:
    raise Missing(url="https://example.org")


def throw_own_way(_device: Device) -> None:
    raise OwnWay(1, 2)


def throw_holding(_device: Device) -> None:
    raise Holding("it has a lock")


def throw_textless(_device: Device) -> None:
    raise Textless


def throw_chained(_device: Device) -> None:
    try:
        _refuse("the first")
    except ValueError as first:
        raise Rich("the second", 7) from first


def throw_local(_device: Device) -> None:
    class Local(Exception):
        pass

    raise Local("nobody else knows it")


def give_lock(_device: Device, size: int = 0) -> Any:
    return threading.Lock(), bytes(size)


def give_unloadable(_device: Device) -> Any:
    return Unloadable()


def leave_by_exit(_device: Device) -> None:
    sys.exit(3)


# ---- that end the process


def die(_device: Device, code: int) -> None:
    os._exit(code)


def die_holding(_device: Device, _array: Any) -> None:
    os._exit(1)


def kill_self(_device: Device, number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(PATIENCE)


def segfault(_device: Device) -> None:
    import faulthandler

    faulthandler.disable()
    ctypes.string_at(0)


def die_first(_device: Device, path: str) -> int:
    """Dies the first time that it is called."""
    if not Path(path).exists():
        Path(path).write_text("")
        os._exit(9)
    return os.getpid()


def close_everything(_device: Device) -> None:
    """What a daemonizing library does."""
    os.closerange(3, 256)
    time.sleep(PATIENCE)


# ---- models


def load(device: Device) -> dict[str, Any]:
    return {"device": device, "process": os.getpid()}


def weigh(replica: dict[str, Any], *_args: object) -> int:
    process: int = replica["process"]
    return process


def fail_to_load(_device: Device) -> None:
    raise Rich("no such weights", 5)


class FlakyLoader:
    """Fails the first time.

    Args:
        path: Where it leaves word.
    """

    __name__ = "flaky"

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, device: Device) -> dict[str, Any]:
        if not Path(self.path).exists():
            Path(self.path).write_text("")
            raise Rich("the first time", 1)
        return load(device)


class Unloader:
    """Leaves word at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, replica: dict[str, Any]) -> None:
        assert replica["process"] == os.getpid()
        Path(self.path).write_text("unloaded")


def fail_to_unload(_replica: object) -> None:
    raise ValueError("it won't go")


def load_for_ever(_device: Device) -> None:
    director.report("begun")
    time.sleep(3600)


class HangingLoader:
    """Hangs until there is a file.

    Args:
        path: Of the file.
    """

    __name__ = "hanging"

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, device: Device) -> dict[str, Any]:
        _await(self.path)
        return load(device)


# ---- memory


def first_and_last(_device: Device, array: Any) -> tuple[Any, Any]:
    return array[0], array[-1]


def ones(_device: Device, size: int) -> Any:
    import numpy as np

    return np.ones(size, np.uint8)


_kept: list[Any] = []


def keep(_device: Device, array: Any) -> None:
    _kept.append(array)


def sums_of_kept(_device: Device) -> list[int]:
    return [int(array.sum()) for array in _kept]


def write_into(_device: Device, array: Any) -> Any:
    array[:] = 7
    return array


def open_files(_device: Device) -> int:
    gc.collect()
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# ---- logs


def log(_device: Device, name: str, level: int, text: str, *args: object) -> None:
    logging.getLogger(name).log(level, text, *args)


def log_error(_device: Device) -> None:
    try:
        _refuse("the reason")
    except ValueError:
        logging.getLogger("there").exception("it failed", extra={"request": 17, "odd": object()})


class LoggingWhenCollected:
    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        logging.getLogger("there").warning("collected")


def log_in_finalizers(_device: Device) -> None:
    """Cycles whose finalizers log whenever the collector runs, wherever that may be."""
    gc.set_threshold(1)
    for number in range(50):
        LoggingWhenCollected()
        logging.getLogger("there").warning("line %d", number)
    gc.set_threshold(700, 10, 10)


# ---- processes of their own


def grandchild(_device: Device) -> int:
    """A process that outlives the call."""
    return subprocess.Popen(["sleep", "60"]).pid


def fork_and_stay(_device: Device) -> int:
    """A copy of the child that goes on when the child is gone; returns its id."""
    process = os.fork()
    if not process:
        time.sleep(PATIENCE)
        os._exit(0)
    return process


def signal_dispositions(_device: Device) -> tuple[str, str]:
    return str(signal.getsignal(signal.SIGINT)), str(signal.getsignal(signal.SIGTERM))


# ---- streams


def count_up(_device: Device, count: int, path: str = "") -> Iterator[int]:
    """Numbers; leaves word how many were made, and that it was closed."""
    made = 0
    try:
        for made in range(1, count + 1):
            yield made - 1
    finally:
        if path:
            Path(path).write_text(str(made))


def count_up_telling(_device: Device, count: int, path: str) -> Iterator[int]:
    """Numbers; the file has one byte for each that was made."""
    with Path(path).open("ab", buffering=0) as made:
        for number in range(count):
            made.write(b".")
            yield number


def arrays(_device: Device, count: int, size: int) -> Iterator[Any]:
    import numpy as np

    for number in range(count):
        yield np.full(size, number, np.uint8)


def sizes_in_turn(_device: Device, count: int, *sizes: int) -> Iterator[bytes]:
    for number in range(count):
        yield bytes([number]) * sizes[number % len(sizes)]


def break_after(_device: Device, count: int) -> Iterator[int]:
    yield from range(count)
    raise Rich("broken", count)


def die_after(_device: Device, count: int) -> Iterator[int]:
    yield from range(count)
    time.sleep(0.05)
    os._exit(1)


def yield_lock(_device: Device) -> Iterator[Any]:
    yield 1
    yield threading.Lock()


def yield_unloadable(_device: Device) -> Iterator[Any]:
    yield 1
    yield Unloadable()


def weights(replica: dict[str, Any], count: int) -> Iterator[int]:
    for _ in range(count):
        yield replica["process"]


# ---- faults of devices


class OutOfMemoryError(RuntimeError):
    """As torch's."""


OutOfMemoryError.__module__ = "torch"  # so that it is one of a framework that the parent has not imported


def out_of_memory(_device: Device, _items: Any = None) -> None:
    raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def memory_for(_device: Device, items: list[int]) -> list[int]:
    """Has memory for two items."""
    if len(items) > 2:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    return items


def sticky(_device: Device) -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


# ---- what a child is


def arguments(_device: Device) -> list[Any]:
    return sys.argv


def start_method(_device: Device) -> str | None:
    import multiprocessing

    return multiprocessing.get_start_method(allow_none=True)


def signals(_device: Device) -> tuple[int, int]:
    """How many signals are blocked, and the exit code of a program."""
    return len(signal.pthread_sigmask(signal.SIG_BLOCK, ())), subprocess.run(["sh", "-c", "exit 3"]).returncode


_pools: list[Any] = []


def start_program(_device: Device) -> int:
    """A program that goes on when the call has returned."""
    return subprocess.Popen(["sleep", "300"]).pid


def start_pool(_device: Device) -> int:
    """A process of a pool that nobody closes."""
    import multiprocessing

    _pools.append(pool := multiprocessing.get_context("fork").Pool(1))
    return pool.apply(os.getpid)
