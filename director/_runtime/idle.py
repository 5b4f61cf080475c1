"""Waiting until a Director has nothing to do any more, or a model is unloaded. On the event loop only."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from director._jobs.model import Model
    from director._runtime.job_queue import JobQueue
    from director._runtime.loop_channel import LoopChannel
    from director._scheduler.memory.residency import Residency
    from director._scheduler.scheduler import Scheduler
    from director._system.clock import Clock


class IdleWaiters:
    """Futures of callers that wait until no job waits, runs or has an undelivered result, and no worker is left.

    A caller says whether it waits for the calls of jobs that have ended, too: they were cancelled or are out of time.
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


class Unloading:
    """Callers that wait until models are unloaded."""

    def __init__(self, loop: asyncio.AbstractEventLoop, scheduler: Scheduler, residency: Residency) -> None:
        self._loop = loop
        self._scheduler = scheduler
        self._residency = residency
        self._waiting: list[tuple[Model[Any], asyncio.Future[None]]] = []
        self._collected: dict[int, Model[Any]] = {}  # what is left of them is being unloaded
        self._is_over = False

    async def unload(self, model: Model[Any]) -> None:
        """Have a model unloaded everywhere, and wait for it. Cancellation: stops waiting, nothing else."""
        if (wake := self._scheduler.unload(model, self._residency.resident(model))) is not None:
            wake()
        entry = model, self._loop.create_future()
        self._waiting.append(entry)
        try:
            self.check()
            await entry[1]
        finally:
            self._waiting.remove(entry)

    def check(self) -> None:
        """A replica has gone: answer the callers that waited for it, and forget its model if that was collected."""
        for model, future in self._waiting:
            if not future.done() and not self._scheduler.memory.is_leaving(model):
                future.set_result(None)
        memory = self._scheduler.memory
        for key in [key for key, model in self._collected.items() if not memory.is_leaving(model)]:
            del self._collected[key]
            self._scheduler.forget(key)
            self._residency.forget(key)

    def collect(self, key: int) -> None:
        """Nothing refers to the model with this key any more: have its replicas unloaded, where a runner can."""
        model = self._residency.kept(key)
        if model is None or self._is_over:
            return
        self._collected[key] = model
        resident = self._residency.resident(model)
        slots = frozenset(slot.number for slot in self._scheduler.slots if slot.can_unload) & resident
        is_there = resident or self._scheduler.memory.holds(key)  # else it is being unloaded for others
        if slots == resident and is_there and (wake := self._scheduler.unload(model, resident)) is not None:
            wake()
        self.check()

    def give_up(self) -> None:
        """The Director has closed, and with it everything is unloaded."""
        self._is_over = True
        for _, future in self._waiting:
            if not future.done():
                future.set_result(None)
