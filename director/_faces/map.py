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
        TypeError: `window` is no int, or `items` can't be iterated.
    """
    if isinstance(window, bool) or not isinstance(window, int):
        raise TypeError(f"window must be an int, not {window!r}")
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    if not (hasattr(items, "__aiter__") or hasattr(items, "__iter__") or hasattr(items, "__getitem__")):
        raise TypeError(f"items must be iterable, sync or async, not {items!r}")
    return _results(lambda: _Window(open_job, _each(items), window, ordered), return_exceptions)


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

    async def has_next(self) -> bool:
        """Wait until the next job is over; False after the last."""
        while not self._is_ready():
            if self.feeder.done() and not self._jobs:
                return False
            self._changed.clear()
            await self._changed.wait()
        return True

    def next_result(self, return_exceptions: bool) -> Any:
        """The result of the job that is over and next."""
        job = next(iter(self._jobs)) if self._ordered else self._done.popleft()
        del self._jobs[job]
        self._room.release()
        try:
            return job.result()
        except (Exception, asyncio.CancelledError) as error:
            if return_exceptions:
                return error
            raise
        finally:
            del job  # what is raised leads to this frame, and the job holds what is raised

    async def close(self) -> None:
        """Take no more items and cancel what is left."""
        self.feeder.cancel()
        for job in self._jobs:
            job.cancel()
        await asyncio.wait([self.feeder])
        del self.feeder, self._items  # the cancelled feeder holds this window: a source must not wait for the collector

    def _is_ready(self) -> bool:
        if not self._ordered:
            return bool(self._done)
        first = next(iter(self._jobs), None)
        return first is not None and first.done()

    async def _feed(self) -> None:
        while True:
            await self._room.acquire()  # before the item: an endless source is never read ahead of the window
            try:
                self._take(await anext(self._items))  # without a name: it would be kept while we wait
            except StopAsyncIteration:
                return

    def _take(self, item: Any) -> None:
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


async def _results(open_window: Callable[[], _Window], return_exceptions: bool) -> AsyncGenerator[Any, None]:
    window = open_window()  # at the first step: a generator that is never stepped takes no items
    try:
        while await window.has_next():
            yield window.next_result(return_exceptions)  # without a name: it is the consumer's alone
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
