"""Functions for actors. Actors import this module; what they say of themselves they write into files or return."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import director

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director import Device


def process_id(_device: Any) -> int:
    return os.getpid()


def where(device: Device) -> tuple[Device, str | None]:
    return director.current_device(), os.environ.get("CUDA_VISIBLE_DEVICES")


def echo(_device: Any, value: Any) -> Any:
    return value


def echo_late(_device: Any, value: Any, seconds: float) -> Any:
    time.sleep(seconds)
    return value


def size(_device: Any, value: Any) -> int:
    return len(value)


def address(_device: Any, array: Any, index: int) -> tuple[int, int]:
    return array.__array_interface__["data"][0], int(array[index])


def zeros(_device: Any, count: int) -> Any:
    import numpy as np

    return np.zeros(count, np.uint8)


def fail(_device: Any, error: BaseException) -> None:
    raise error


def fail_locally(_device: Any) -> None:
    class Unsendable(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("not me")

    raise Unsendable("told all the same")


def unsendable(_device: Any) -> Any:
    import threading

    return threading.Lock()


def die(_device: Any, code: int) -> None:
    os._exit(code)


def die_first(_device: Any, path: str) -> int:
    """Ends its process the first time."""
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return os.getpid()
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def sign(_device: Any, folder: str, number: int, seconds: float) -> int:
    """Leaves a line for each time that it is called."""
    with (Path(folder) / str(number)).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return number


def sleep(_device: Any, seconds: float) -> None:
    time.sleep(seconds)


def stay(_device: Any, path: str) -> None:
    """Says which process it is in, at once as a whole, and does not end."""
    written = Path(path + ".new")
    written.write_text(str(os.getpid()))
    written.rename(path)
    time.sleep(600)


def cooperative(_device: Any, path: str) -> None:
    """Reports each step, and how it was ended."""
    try:
        for step in range(1000):
            director.report(step)
            director.check_cancelled()
            time.sleep(0.01)
    except BaseException as error:
        Path(path).write_text(type(error).__name__)
        raise


def report_all(_device: Any, count: int) -> None:
    for step in range(count):
        director.report(step)


def log(_device: Any, text: str) -> None:
    logging.getLogger("app.inside").warning("%s from an actor", text)


def count_up(_device: Any, count: int) -> Iterator[int]:
    yield from range(count)


def count_and_fail(_device: Any, count: int) -> Iterator[int]:
    yield from range(count)
    raise ValueError("no more")


def count_for_ever(_device: Any, path: str) -> Iterator[int]:
    number = 0
    try:
        while True:
            yield number
            number += 1
    finally:
        Path(path).write_text(str(number))


def double_all(_device: Any, items: list[int]) -> list[int]:
    return [2 * item for item in items]


class Replica:
    """Knows where it was made, and how often it was used."""

    def __init__(self, device: Device) -> None:
        self.process = os.getpid()
        self.label = device.label
        self.calls = 0


def load(device: Device) -> Replica:
    return Replica(device)


def load_in_vain(_device: Device) -> Replica:
    raise FileNotFoundError("no weights")


def use(replica: Replica) -> tuple[int, int]:
    replica.calls += 1
    return replica.process, replica.calls


def gone(_replica: Replica) -> None:
    path = Path(os.environ["DIRECTOR_TEST_UNLOADED"])
    with path.open("a") as file:
        file.write("unloaded\n")


def process_facts(_device: Any) -> Any:
    job = director.current_job()
    return job.name, job.attempts, job.priority, job.tenant


def answer(_replica: Replica, body: bytes) -> str:
    return body.decode()
