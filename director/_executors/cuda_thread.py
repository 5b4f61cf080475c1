"""Binds the thread of a slot to its CUDA device, for torch, if the application has imported it.

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
        own_stream: Use a new stream instead of the default one: slots of one device can overlap.
    """

    __slots__ = ("_event", "_ordinal", "_own_stream", "_torch")

    def __init__(self, ordinal: int, own_stream: bool) -> None:
        self._ordinal = ordinal
        self._own_stream = own_stream
        self._torch: Any = None
        self._event: Any = None

    def run(self, call: Callable[[A], T], what: A) -> T:
        """Make the call with the device set, and return when the device has finished its work."""
        if self._torch is None:
            self._bind()
        try:
            value = call(what)
        except BaseException:
            self._wait_after_error()
            raise
        self.wait()
        return value

    def wait(self) -> None:
        """Wait until the device has finished the work that this thread has queued."""
        if self._torch is not None:
            self._event.record()
            self._event.synchronize()
        elif self._bind():  # the call was the first to import torch; its work went to the default stream
            sys.modules["torch"].cuda.synchronize(self._ordinal)

    def _bind(self) -> bool:
        """Bind the thread, once torch has been imported; True if it was bound now."""
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

    def _wait_after_error(self) -> None:
        """After a failed call: wait for its queued work, but keep the call's own error."""
        with suppress(Exception):  # the device reports the same fault again; the first error tells more
            self.wait()
