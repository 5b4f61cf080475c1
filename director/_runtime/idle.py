"""Waiting until an open Director has nothing to do any more. On the event loop only."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from director._runtime.job_queue import JobQueue
    from director._runtime.loop_channel import LoopChannel
    from director._system.clock import Clock


class IdleWaiters:
    """Futures of callers that wait until no job waits, runs or has an undelivered result, and no worker is left.

    A caller says whether it waits for the calls of jobs that have ended, too: they were cancelled or are out of time.

    Args:
        loop: The event loop of the Director.
        scheduler: Knows what waits and runs.
        loop_channel: Holds undelivered results.
    """

    __slots__ = ("_loop", "_loop_channel", "_scheduler", "waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop, scheduler: JobQueue, loop_channel: LoopChannel) -> None:
        self.waiters: dict[asyncio.Future[bool], Callable[[], bool]] = {}
        self._loop = loop
        self._scheduler = scheduler
        self._loop_channel = loop_channel

    async def wait(self, timeout: float | None, clock: Clock, *, for_abandoned: bool) -> bool:
        """Wait; False after `timeout` seconds of `clock`. Cancellation: stops waiting, nothing else.

        Args:
            timeout: `None` for no limit.
            clock: Has the seconds.
            for_abandoned: Wait for the calls of jobs that have ended, too.
        """
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self.waiters[waiter] = self._scheduler.is_idle if for_abandoned else self._scheduler.is_drained
        self.check()
        if timeout is not None and timeout <= 0:
            _answer(waiter, False)
        timer = None if timeout is None else clock.call_later(timeout, partial(_answer, waiter, False))
        try:
            return await waiter
        finally:
            del self.waiters[waiter]
            if timer is not None:
                timer.cancel()

    def check(self) -> None:
        """A job or a worker has ended: answer the waiters for which it was the last."""
        if self.waiters and not self._loop_channel:
            for waiter, is_over in self.waiters.items():
                if is_over():
                    _answer(waiter, True)

    def give_up(self) -> None:
        """The Director has closed: answer the waiters that are left."""
        for waiter in self.waiters:
            _answer(waiter, False)


def _answer(waiter: asyncio.Future[bool], answer: bool) -> None:
    if not waiter.done():
        waiter.set_result(answer)
