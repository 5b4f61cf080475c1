"""A lease: a job that holds its slot until it is released."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from director._jobs.calls import LocalCall
from director._system.threads import Flag

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._jobs.job import Job
R = TypeVar("R", covariant=True)


class Lease(Generic[R]):
    """``async with director.lease() as device:``; see `Director.lease`. Used once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        call: Callable[..., object],
        open_job: Callable[[Callable[[Any], None]], Job[None]],
    ) -> None:
        self._call = call
        self._open_job = open_job
        self._granted: asyncio.Future[R] = loop.create_future()
        self._give_back: Callable[[], None] | None = None  # to a server process
        self._returned = Flag()  # a forgotten holder is collected on any thread, maybe the one that waits
        self._is_used = False

    async def __aenter__(self) -> R:
        if self._granted.done() or self._is_used:
            raise RuntimeError("a lease is used once; director.lease() makes another")
        self._is_used = True
        job = self._open_job(_Holding(self))
        job.add_done_callback(self._ended)
        try:
            return await self._granted
        except asyncio.CancelledError:
            job.cancel()
            self.release()
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        self.release()

    def hold(self, resource: Any) -> None:
        """On the slot's thread: hand the resource over and keep the slot."""
        self._call(self._grant, resource)
        self._returned.wait()

    def begin(self, device: Device, give_back: Callable[[], None]) -> None:
        """On the event loop: a server process keeps the slot until `give_back` is called."""
        self._give_back = give_back
        if self._returned.is_set():
            give_back()
        self._grant(device)

    def release(self) -> None:
        """From any thread: give the slot back."""
        self._returned.set()
        if self._give_back is not None:
            self._give_back()

    def _grant(self, resource: Any) -> None:
        if not self._granted.done():
            self._granted.set_result(resource)

    def _ended(self, job: asyncio.Future[None]) -> None:
        """The job has ended: the lease was released, or never got a slot."""
        if self._granted.done():
            return
        if job.cancelled():
            self._granted.cancel()
        elif (error := job.exception()) is not None:
            self._granted.set_exception(error)


class _Holding(LocalCall):
    """The function of a lease's job. It runs here, also where the slot makes its calls elsewhere."""

    __name__ = "lease"

    def __init__(self, lease: Lease[Any]) -> None:
        self._lease = lease

    def __call__(self, resource: Any) -> None:
        self._lease.hold(resource)

    def run_locally(self, device: Device, _make: Callable[[Callable[[], Any]], Any]) -> None:
        """On the thread of a slot that makes its calls in another process."""
        self._lease.hold(device)

    def begin(self, device: Device, release: Callable[[], None]) -> None:
        """A server process keeps the slot."""
        self._lease.begin(device, release)

    def release(self) -> None:
        """The holder can't come back."""
        self._lease.release()
