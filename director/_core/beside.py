"""Functions of jobs that run on the slot's own thread, also where a slot makes its calls in another process."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device


class Beside:
    """What a lease and the calls of an executor are made of."""

    @abstractmethod
    def run_beside(self, device: Device, make: Callable[[Callable[[], Any]], Any]) -> Any:
        """Run on the thread of a slot whose calls are made elsewhere.

        Args:
            device: The slot's.
            make: Makes a call there, without the resource, and returns what it returns.
        """

    def release(self) -> None:
        """From any thread: the event loop is gone, and nothing on the slot's thread may wait for it any more."""
