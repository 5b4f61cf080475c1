"""`map`: a sliding window of jobs over the items."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from director._untrusted.numbers import shown, whole
from director.errors import DirectorClosed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from director._jobs.job import Job

Item = TypeVar("Item")
T = TypeVar("T")

_FEEDING = 0.001  # seconds of taking items before other tasks run: an iterator may be slow
_IN_A_ROW = 32  # results that a consumer gets before other tasks run


def map_jobs(
    open_job: Callable[[Item], Job[T]],
    items: Iterable[Item] | AsyncIterable[Item],
    window: int,
    ordered: bool,
    return_exceptions: bool,
    time: Callable[[], float],
) -> AsyncGenerator[T, None]:
    """Yield the result of a job for each item; see `Director.map`.

    Raises:
        ValueError: `window` is below 1.
        TypeError: `window` is no int, or `items` can't be iterated.
    """
    size = whole("window", window, 1)
    if not (hasattr(items, "__aiter__") or hasattr(items, "__iter__") or hasattr(items, "__getitem__")):
        raise TypeError(f"items must be iterable, sync or async, not {shown(items)}")
    return _results(lambda: _Window(open_job, _each(items), size, ordered, time), return_exceptions)


class _Window:
    """Jobs whose items were taken and whose results were not yet yielded."""

    def __init__(
        self,
        open_job: Callable[[Item], Job[T]],
        items: AsyncGenerator[Item, None],
        size: int,
        ordered: bool,
        time: Callable[[], float],
    ) -> None:
        self._open_job: Callable[[Any], Job[Any]] = open_job
        self._items = items
        self._ordered = ordered
        self._time = time
        self._room = asyncio.Semaphore(size)
        self._changed = asyncio.Event()
        self._jobs: dict[asyncio.Future[Any], None] = {}  # in the order of their items
        self._done: deque[asyncio.Future[Any]] = deque()  # in order of completion
        self._in_a_row = 0  # results since other tasks ran
        self._is_closed = False
        self.feeder = asyncio.get_running_loop().create_task(self._feed(), name="director:map")
        self.feeder.add_done_callback(self._note_change)

    async def has_next(self) -> bool:
        """Wait until the next job has ended; False after the last."""
        self._in_a_row += 1
        if self._in_a_row > _IN_A_ROW:
            self._in_a_row = 0
            await asyncio.sleep(0)  # the feeder needs the loop too, and so does a task that cancels this one
        while not self._is_ready():
            if self.feeder.done() and not self._jobs:
                return False
            self._changed.clear()
            await self._changed.wait()
            self._in_a_row = 0
        return True

    def next_result(self, return_exceptions: bool) -> Any:
        """The result of the next job, which has ended."""
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
            del job  # breaks the cycle of job, exception, traceback and this frame

    async def close(self) -> None:
        """Take no more items and cancel what is left."""
        self._is_closed = True
        self.feeder.cancel()
        for job in self._jobs:
            job.cancel()
        await asyncio.wait([self.feeder])
        await self._items.aclose()
        del self.feeder, self._items  # breaks the cycle with the feeder: the source is freed at once

    def _is_ready(self) -> bool:
        if not self._ordered:
            return bool(self._done)
        first = next(iter(self._jobs), None)
        return first is not None and first.done()

    async def _feed(self) -> None:
        turned = self._time()
        while True:
            await self._room.acquire()  # before the item: an endless source is never read beyond the window
            try:
                item = await anext(self._items)
            except StopAsyncIteration:
                return
            if self._is_closed:
                return  # the source has swallowed our cancellation
            job = self._open(item)
            self._jobs[job] = None
            job.add_done_callback(self._note_done)
            del item, job  # not kept alive while waiting
            if self._time() - turned >= _FEEDING:
                await asyncio.sleep(0)
                turned = self._time()

    def _open(self, item: Any) -> asyncio.Future[Any]:
        """The job of an item; if it is refused, a failed future."""
        try:
            return self._open_job(item)
        except DirectorClosed:
            raise  # all later items would fail too
        except Exception as error:  # noqa: BLE001 - the outcome of the item
            return _failed(error)

    def _note_done(self, job: asyncio.Future[Any]) -> None:
        if not job.cancelled():
            job.exception()  # marks it as retrieved, even if the consumer has left
        if not self._ordered:
            self._done.append(job)
        self._changed.set()

    def _note_change(self, _: object) -> None:
        self._changed.set()


async def _results(open_window: Callable[[], _Window], return_exceptions: bool) -> AsyncGenerator[Any, None]:
    window = open_window()  # at the first step: a generator that is never stepped takes no items
    try:
        while await window.has_next():
            yield window.next_result(return_exceptions)  # without a variable, which would keep it alive
        await window.feeder  # raises what `items` raised, after everything taken before has been yielded
    finally:
        await window.close()


def _failed(error: Exception) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


async def _each(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncGenerator[Item, None]:
    # No variables here: they would keep an item alive until the next one.
    if isinstance(items, AsyncIterable):
        later = aiter(items)
        with suppress(StopAsyncIteration):
            while True:
                yield await anext(later)
    else:
        now = iter(items)
        with suppress(StopIteration):
            while True:
                yield next(now)
