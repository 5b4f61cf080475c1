"""A lease of an application: a job that holds its slot until that releases it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._jobs.calls import LocalCall
from director._system.threads import Flag

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device


class ServedLease(LocalCall):
    """The call of a lease. It has begun: the application has the device.

    Args:
        begun: Called on the slot's thread: the application waits for it.
    """

    __name__ = "lease"

    def __init__(self, begun: Callable[[], None]) -> None:
        self._tell = begun
        self.has_begun = False  # else its model has not been loaded
        self._returned = Flag()

    def __call__(self, _resource: Any) -> None:
        self._begin()
        self._returned.wait()

    def run_locally(self, _device: Device, _make: Callable[[Callable[[], Any]], Any]) -> None:
        """On the thread of a slot that makes its calls in another process."""
        self._begin()
        self._returned.wait()

    def _begin(self) -> None:
        self.has_begun = True
        self._tell()

    def release(self) -> None:
        """From any thread: the lease is over."""
        self._returned.set()
