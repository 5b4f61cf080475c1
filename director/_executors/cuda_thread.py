"""What torch with CUDA needs of the thread that runs a slot's jobs. torch is used if the application has imported it.

The current device is per thread and starts at 0 (a raw kernel launch would run on the wrong GPU), so it is set once
for each thread. A function that returns a CUDA tensor has only queued its work: time, memory and errors belong to the
right job only if the thread waits for its stream before it reports. The wait is an event with ``blocking=True``, which
sleeps instead of spinning on a core, and on the slot's own stream, so that it doesn't wait for other slots of the
device. Source: PyTorch's notes on CUDA semantics.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

A = TypeVar("A")
T = TypeVar("T")


class CudaThread:
    """Binds the calling thread to a CUDA device and waits for its stream.

    Args:
        ordinal: CUDA ordinal of the device.
        own_stream: Several slots share the device: each gets a stream of its own, so that they can overlap.
    """

    __slots__ = ("_event", "_ordinal", "_own_stream", "_torch")

    def __init__(self, ordinal: int, own_stream: bool) -> None:
        self._ordinal = ordinal
        self._own_stream = own_stream
        self._torch: Any = None
        self._event: Any = None

    def run(self, call: Callable[[A], T], what: A) -> T:
        """Make the call with the device set, and return when the device has finished it."""
        if self._torch is None:
            self._bind()
        try:
            value = call(what)
        except BaseException:
            self._quiet()
            raise
        self.wait()
        return value

    def wait(self) -> None:
        """Return when the device has finished what this thread has given it."""
        if self._torch is not None:
            self._event.record()
            self._event.synchronize()
        elif self._bind():  # the call was the first to import torch; its work went to the default stream
            sys.modules["torch"].cuda.synchronize(self._ordinal)

    def _bind(self) -> bool:
        """Bind the thread as soon as torch is there; True if it has just been bound."""
        torch: Any = sys.modules.get("torch")
        if torch is None or getattr(getattr(torch, "__spec__", None), "_initializing", False):
            return False
        if not torch.cuda.is_available():
            return False
        torch.cuda.set_device(self._ordinal)
        if self._own_stream:
            torch.cuda.set_stream(torch.cuda.Stream())
        self._event = torch.cuda.Event(blocking=True)
        self._torch = torch
        return True

    def _quiet(self) -> None:
        """After a failed call: let its queued work end, but keep the call's own error."""
        with suppress(Exception):  # the device reports the same fault again; the first error tells more
            self.wait()
