"""The Director coroutine: hires workers for what waits. On the event loop only, but for `call`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from director._runtime.loop_channel import LoopChannel
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import Slot

_HIRED_AT_ONCE = 16  # then the loop turns, so that a burst of short jobs does not hire a worker for each


class WorkerStarter:
    """Hires a worker for work that waits and a slot that is free, and never awaits one.

    Args:
        loop: The event loop of the Director.
        loop_channel: Brings calls from other threads to the loop.
        hire: Makes the worker of a slot.
        failed: Told of an error of ours.
    """

    scheduler: Scheduler
    """Decides. Set once, before the first job."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        loop_channel: LoopChannel,
        hire: Callable[[Slot], Awaitable[None]],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._loop = loop
        self._loop_channel = loop_channel
        self._hire = hire
        self._failed = failed
        self._arrived = asyncio.Event()
        self._looks: set[asyncio.Task[None]] = set()

    async def direct(self) -> None:
        """The Director coroutine."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await self._look()

    def notify(self) -> None:
        """From any thread: have it look."""
        self._loop_channel.on_loop(self.notify_here)

    def notify_here(self) -> None:
        """The same on the loop."""
        if not self._arrived.is_set():
            self._arrived.set()
            return
        # It comes, or it never will: a signal handler has raised in the midst of `set`, and its wake-up was lost. So
        # somebody else looks too; to look twice does no harm.
        look = self._loop.create_task(self._look(), name="director:look")
        self._looks.add(look)
        look.add_done_callback(self._looked)

    def _looked(self, look: asyncio.Task[None]) -> None:
        self._looks.discard(look)
        if not look.cancelled() and (error := look.exception()) is not None:
            self._failed(error)

    async def _look(self) -> None:
        while hired := self.scheduler.pick_slots_to_start(_HIRED_AT_ONCE):
            await self._hire_all(iter(hired))
            if len(hired) == _HIRED_AT_ONCE:
                await asyncio.sleep(0)
        wake = self.scheduler.wake_parked()
        if wake is not None:
            wake()

    async def _hire_all(self, slots: Iterator[Slot]) -> None:
        try:
            for slot in slots:
                await self._hire(slot)
        except BaseException:
            for slot in slots:  # those that are left
                self.scheduler.mark_idle(slot)
            raise


def create_task(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task of ours. Of a Director that is forgotten with its loop we warn ourselves, once and not for each task."""
    try:
        task = loop.create_task(work, name=name)
    except BaseException:  # of a task factory
        work.close()
        raise
    with suppress(AttributeError):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # of asyncio's own tasks
    return task
