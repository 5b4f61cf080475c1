"""Waiting until an open Director has nothing to do. On the event loop only."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from director._clock import Clock
    from director._runtime.loop_channel import LoopChannel
    from director._scheduler.scheduler import Scheduler


class IdleWaiters:
    """Futures of callers that wait until no job waits, runs or has an undelivered result, and no worker is left.

    Args:
        loop: The event loop of the Director.
        scheduler: Knows what waits and runs.
        loop_channel: Holds undelivered results.
    """

    __slots__ = ("_loop", "_loop_channel", "_scheduler", "waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop, scheduler: Scheduler, loop_channel: LoopChannel) -> None:
        self.waiters: list[asyncio.Future[bool]] = []
        self._loop = loop
        self._scheduler = scheduler
        self._loop_channel = loop_channel

    async def wait(self, timeout: float | None, clock: Clock) -> bool:
        """Wait; False after `timeout` seconds of `clock`. Cancellation: stops waiting, nothing else."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self.waiters.append(waiter)
        self.check()
        if timeout is not None and timeout <= 0:
            _answer(waiter, False)
        timer = None if timeout is None else clock.call_later(timeout, partial(_answer, waiter, False))
        try:
            return await waiter
        finally:
            self.waiters.remove(waiter)
            if timer is not None:
                timer.cancel()

    def check(self) -> None:
        """A job or a worker has ended: answer the waiters if it was the last."""
        if self.waiters and self._scheduler.is_idle() and not self._loop_channel:
            for waiter in self.waiters:
                _answer(waiter, True)

    def give_up(self) -> None:
        """The Director has closed: answer the waiters that are left."""
        for waiter in self.waiters:
            _answer(waiter, False)


def _answer(waiter: asyncio.Future[bool], answer: bool) -> None:
    if not waiter.done():
        waiter.set_result(answer)
