"""`map`: a window of jobs that slides over the items, however many there are."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable

    from director._core.job import Job

Item = TypeVar("Item")
T = TypeVar("T")


def map_jobs(
    open_job: Callable[[Item], Job[T]],
    items: Iterable[Item] | AsyncIterable[Item],
    window: int,
    ordered: bool,
    return_exceptions: bool,
) -> AsyncGenerator[T, None]:
    """Yield the result of a job for each item; see `Director.map`.

    Raises:
        ValueError: `window` is below 1.
        TypeError: `items` can't be iterated.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    if not (hasattr(items, "__aiter__") or hasattr(items, "__iter__") or hasattr(items, "__getitem__")):
        raise TypeError(f"items must be iterable, sync or async, not {items!r}")
    return _results(_Window(open_job, _each(items), window, ordered), return_exceptions)


class _Window:
    """Jobs whose items were taken and whose results were not yet yielded."""

    def __init__(
        self, open_job: Callable[[Item], Job[T]], items: AsyncIterator[Item], size: int, ordered: bool
    ) -> None:
        self._open_job: Callable[[Any], Job[Any]] = open_job
        self._items = items
        self._ordered = ordered
        self._room = asyncio.Semaphore(size)
        self._changed = asyncio.Event()
        self._jobs: dict[Job[Any], None] = {}  # in the order of their items
        self._done: deque[Job[Any]] = deque()  # in the order of their ends
        self.feeder = asyncio.get_running_loop().create_task(self._feed(), name="director:map")
        self.feeder.add_done_callback(self._note_change)

    async def next_done(self) -> Job[Any] | None:
        """The next job to be yielded, when it is over; `None` after the last."""
        while (job := self._ready()) is None:
            if self.feeder.done() and not self._jobs:
                return None
            self._changed.clear()
            await self._changed.wait()
        del self._jobs[job]
        self._room.release()
        return job

    async def close(self) -> None:
        """Take no more items and cancel what is left."""
        self.feeder.cancel()
        for job in self._jobs:
            job.cancel()
        await asyncio.wait([self.feeder])

    def _ready(self) -> Job[Any] | None:
        if not self._ordered:
            return self._done.popleft() if self._done else None
        first = next(iter(self._jobs), None)
        return first if first is not None and first.done() else None

    async def _feed(self) -> None:
        while True:
            await self._room.acquire()  # before the item: an endless source is never read ahead of the window
            try:
                item = await anext(self._items)
            except StopAsyncIteration:
                return
            job = self._open_job(item)
            self._jobs[job] = None
            job.add_done_callback(self._note_done)

    def _note_done(self, job: asyncio.Future[Any]) -> None:
        if not job.cancelled():
            job.exception()  # it counts as seen, also when the consumer has left
        if not self._ordered:
            self._done.append(job)  # type: ignore[arg-type]
        self._changed.set()

    def _note_change(self, _: object) -> None:
        self._changed.set()


async def _results(window: _Window, return_exceptions: bool) -> AsyncGenerator[Any, None]:
    try:
        while (job := await window.next_done()) is not None:
            try:
                result = job.result()
            except (Exception, asyncio.CancelledError) as error:
                if not return_exceptions:
                    raise
                result = error
            del job  # nothing of the item is kept alive while the consumer works on its result
            yield result
        await window.feeder  # raises what `items` raised, after everything taken before has been yielded
    finally:
        await window.close()


async def _each(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
