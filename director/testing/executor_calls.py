"""The functions that `check_executor` has called. They can be imported by name, for executors that send them."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from director import WorkerDied, check_cancelled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director import Device

_LOOK = 0.002  # seconds between two looks at the gate


def note(folder: str, what: str) -> None:
    """Leave a file behind, for the process that checks."""
    os.close(tempfile.mkstemp("", f"{what}.", folder)[0])


def noted(folder: str, what: str) -> int:
    """How many there are."""
    return len(list(Path(folder).glob(f"{what}.*")))


def echo(device: Device, *args: Any, **kwargs: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Tell what it was called with."""
    return device.uuid, args, kwargs


def plain(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same without a resource."""
    return args, kwargs


def fail(_resource: Any, *args: Any) -> None:
    """Raise `ValueError`."""
    raise ValueError(*args)


def double(_resource: Any, items: list[int]) -> list[Any]:
    """A function of batches: items below 0 fail alone, 0 fails the whole batch."""
    if 0 in items:
        raise ValueError("the batch")
    return [ValueError("the item") if item < 0 else 2 * item for item in items]


def load(folder: str, device: Device) -> str:
    """A loader."""
    note(folder, "loaded")
    return f"replica on {device.uuid}"


def unload(folder: str, _replica: str) -> None:
    """What ends its replica."""
    note(folder, "unloaded")


def load_in_vain(folder: str, _device: Device) -> None:
    """A loader that raises."""
    note(folder, "tried")
    raise ValueError("the loader")


def count(_resource: Any, end: int | None, fails: bool = False) -> Iterator[int]:
    """A generator: 0, 1, ... below `end`, `None` for endless."""
    number = 0
    while number != end:
        yield number
        number += 1
    if fails:
        raise ValueError("the generator")


def hold(_resource: Any, folder: str, gate: str) -> str:
    """Run until the gate is open, or `check_cancelled` raises."""
    note(folder, f"{gate}-begun")
    while not noted(folder, f"{gate}-open"):
        check_cancelled()
        time.sleep(_LOOK)
    return gate


def die(device: Device, origin: int, folder: str = "") -> str:
    """End the worker: its process if it is not `origin`, else as if it were lost. With a folder only the first time."""
    if folder and noted(folder, "died"):
        return device.uuid
    if folder:
        note(folder, "died")
    if os.getpid() != origin:
        os._exit(7)
    raise WorkerDied(None, device)
