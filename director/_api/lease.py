"""A lease: a job that holds its slot until it is released."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from director._jobs.calls import LocalCall
from director._threads import Flag

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._jobs.job import Job


class Lease:
    """``async with director.lease() as device:``; see `Director.lease`. Used once.

    Args:
        loop: The Director's.
        call: Has the loop call a function, from any thread.
        open_job: Queues a job.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        call: Callable[..., object],
        open_job: Callable[[Callable[[Any], None]], Job[None]],
    ) -> None:
        self._call = call
        self._open_job = open_job
        self._granted: asyncio.Future[Any] = loop.create_future()
        self._returned = Flag()  # a forgotten holder is collected on any thread, maybe the one that waits
        self._is_used = False

    async def __aenter__(self) -> Any:
        if self._granted.done() or self._is_used:
            raise RuntimeError("a lease is used once; director.lease() makes another")
        self._is_used = True
        job = self._open_job(_Holding(self._hold, self._returned.set))
        job.add_done_callback(self._ended)
        try:
            return await self._granted
        except asyncio.CancelledError:
            job.cancel()
            self._returned.set()
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        self._returned.set()

    def _hold(self, resource: Any) -> None:
        """On the slot's thread: hand the resource over and keep the slot."""
        self._call(self._grant, resource)
        self._returned.wait()

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

    def __init__(self, hold: Callable[[Any], None], release: Callable[[], None]) -> None:
        self._hold = hold
        self._release = release

    def __call__(self, resource: Any) -> None:
        self._hold(resource)

    def run_locally(self, device: Device, _make: Callable[[Callable[[], Any]], Any]) -> None:
        """On the thread of a slot that makes its calls in another process."""
        self._hold(device)

    def release(self) -> None:
        """The holder can't come back."""
        self._release()
