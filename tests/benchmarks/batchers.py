"""Ways to collect single items into batches for `slots` devices: common libraries, and a Director.

Each is opened with a blocking function of a list of items, and returns a `Submit`: a function from an item to an
awaitable.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from director.cli._bench.contenders import Participant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

Call: TypeAlias = "Callable[[list[float]], list[float]]"
Submit: TypeAlias = "Callable[[float], asyncio.Future[Any]]"

TIMER = 0.005  # s that batchers with a timer wait for a fuller batch, `batched`'s own default
MOST = 16  # items in a batch


@dataclass(frozen=True)
class Batcher(Participant):
    """A way to batch, opened for a number of slots and the function of a list."""

    open: Callable[[int, Call], AbstractAsyncContextManager[Submit]]


@asynccontextmanager
async def _director(slots: int, call: Call, max_wait: float = 0.0) -> AsyncIterator[Submit]:
    from director import Director

    def call_on(_device: object, items: list[float]) -> list[float]:
        return call(items)

    async with Director(f"cpu:{slots}", max_queue=None) as director:
        yield director.function(call_on, max_batch_size=MOST, max_wait=max_wait).submit


class _TimerBatcher:
    """Written by hand, without a library.

    A batch closes when it is full or its first item has waited for `TIMER`, then waits for a thread, and includes items
    that have arrived meanwhile.
    """

    def __init__(self, slots: int, call: Call, pool: concurrent.futures.Executor) -> None:
        self._call = call
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._permits = asyncio.Semaphore(slots)
        self._waiting: asyncio.Queue[tuple[float, asyncio.Future[float]]] = asyncio.Queue()

    def submit(self, item: float) -> asyncio.Future[float]:
        future = self._loop.create_future()
        self._waiting.put_nowait((item, future))
        return future

    async def collect(self) -> None:
        async with asyncio.TaskGroup() as running:
            while True:
                batch = await self._gather()
                await self._permits.acquire()
                while len(batch) < MOST and not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                running.create_task(self._run(batch))

    async def _gather(self) -> list[tuple[float, asyncio.Future[float]]]:
        batch = [await self._waiting.get()]
        try:
            async with asyncio.timeout(TIMER):
                while len(batch) < MOST:
                    batch.append(await self._waiting.get())
        except TimeoutError:
            pass
        return batch

    async def _run(self, batch: list[tuple[float, asyncio.Future[float]]]) -> None:
        try:
            results = await self._loop.run_in_executor(self._pool, self._call, [item for item, _ in batch])
        finally:
            self._permits.release()
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)


@asynccontextmanager
async def _by_hand(slots: int, call: Call) -> AsyncIterator[Submit]:
    with concurrent.futures.ThreadPoolExecutor(slots) as pool:
        batcher = _TimerBatcher(slots, call, pool)
        collecting = asyncio.create_task(batcher.collect())
        try:
            yield batcher.submit
        finally:
            collecting.cancel()
            await asyncio.wait([collecting])


@asynccontextmanager
async def _async_batcher(slots: int, call: Call) -> AsyncIterator[Submit]:
    from async_batcher.batcher import AsyncBatcher

    class Batches(AsyncBatcher[float, float]):  # type: ignore[misc, unused-ignore]  # without types, or not installed
        def process_batch(self, batch: list[float]) -> list[float]:
            return call(batch)

    with concurrent.futures.ThreadPoolExecutor(slots) as pool:
        batcher = Batches(max_batch_size=MOST, max_queue_time=TIMER, concurrency=slots, executor=pool)
        yield lambda item: asyncio.create_task(batcher.process(item))
        await batcher.stop()


@asynccontextmanager
async def _batched(slots: int, call: Call) -> AsyncIterator[Submit]:
    from batched.aio import dynamically

    # A processor runs one batch at a time, so all slots are busy only with one processor per slot, used alternately.
    processors = [dynamically(call, batch_size=MOST, timeout_ms=1000 * TIMER) for _ in range(slots)]
    turns = itertools.cycle(processors)
    yield lambda item: asyncio.create_task(next(turns)(item))
    tasks = [processor._task for processor in processors if processor._task is not None]  # it can't be closed
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


DIRECTOR = Batcher("director", _director)
WAITING = Batcher("director, max_wait 5 ms", partial(_director, max_wait=TIMER))
BY_HAND = Batcher("by hand, 5 ms timer", _by_hand)
ASYNC_BATCHER = Batcher("async-batcher, 5 ms", _async_batcher, needs="async_batcher")
BATCHED = Batcher("batched, 5 ms, one for each slot", _batched, needs="batched")

EVERYBODY = (DIRECTOR, WAITING, BY_HAND, ASYNC_BATCHER, BATCHED)
