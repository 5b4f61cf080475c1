"""Ways to run blocking jobs on `slots` devices: common solutions, and a Director.

A contender is opened for a number of slots and returns an `OpenContender`: the operations of every experiment.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from director.cli._bench.calls import noop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

Job: TypeAlias = "Callable[..., object]"
P = TypeVar("P", bound="Participant")


@dataclass(frozen=True)
class OpenContender:
    """An opened contender. This base class is for contenders that return awaitable handles.

    Args:
        submit: Submits a job and returns a handle at once.
        call: Submits a job and waits for it: one round trip.
    """

    submit: Callable[[Job], Any]
    call: Callable[[Job], Awaitable[object]]

    async def gather(self, handles: Iterable[Any]) -> None:
        """Wait for all handles at once."""
        await asyncio.gather(*handles)

    async def in_turn(self, handles: Iterable[Any]) -> None:
        """Wait for one handle after the other."""
        for handle in handles:
            await handle

    async def closed(self, callers: int, each: int, job: Job) -> None:
        """Have `callers` coroutines make `each` round trips, one after the other."""
        await asyncio.gather(*(self._caller(each, job) for _ in range(callers)))

    async def _caller(self, each: int, job: Job) -> None:
        for _ in range(each):
            await self.call(job)


class OpenPool(OpenContender):
    """A bare `ThreadPoolExecutor`. These coroutines never await, so this is the lower bound without an event loop."""

    async def gather(self, handles: Iterable[Any]) -> None:
        """Wait for all handles; for this contender the same as `in_turn`."""
        await self.in_turn(handles)

    async def in_turn(self, handles: Iterable[Any]) -> None:
        """Wait for one handle after the other."""
        for handle in handles:
            handle.result()

    async def closed(self, callers: int, each: int, job: Job) -> None:
        """Have `callers` threads make `each` round trips: without an event loop each caller needs a thread."""
        threads = [Thread(target=self._blocking_caller, args=(each, job)) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _blocking_caller(self, each: int, job: Job) -> None:
        for _ in range(each):
            self.submit(job).result()


@asynccontextmanager
async def _pool(slots: int) -> AsyncIterator[OpenContender]:
    with concurrent.futures.ThreadPoolExecutor(slots) as pool:

        async def call(job: Job) -> object:
            return pool.submit(job).result()

        yield OpenPool(pool.submit, call)


@asynccontextmanager
async def _run_in_executor(slots: int) -> AsyncIterator[OpenContender]:
    with concurrent.futures.ThreadPoolExecutor(slots) as pool:
        offload = partial(asyncio.get_running_loop().run_in_executor, pool)
        yield OpenContender(offload, offload)


@asynccontextmanager
async def _to_thread(slots: int) -> AsyncIterator[OpenContender]:
    # The default executor of `to_thread`, which has no slots.
    yield OpenContender(lambda job: asyncio.create_task(asyncio.to_thread(job)), asyncio.to_thread)


@asynccontextmanager
async def _anyio(slots: int) -> AsyncIterator[OpenContender]:
    from anyio import CapacityLimiter
    from anyio.to_thread import run_sync

    call = partial(run_sync, limiter=CapacityLimiter(slots))
    yield OpenContender(lambda job: asyncio.create_task(call(job)), call)


@asynccontextmanager
async def _semaphores(slots: int) -> AsyncIterator[OpenContender]:
    permits = [asyncio.Semaphore() for _ in range(slots)]
    held = [0] * slots

    async def call(job: Job) -> object:
        device = held.index(min(held))  # the least loaded at submission
        held[device] += 1
        try:
            async with permits[device]:
                return await asyncio.to_thread(job)
        finally:
            held[device] -= 1

    yield OpenContender(lambda job: asyncio.create_task(call(job)), call)


@asynccontextmanager
async def _aiojobs(slots: int) -> AsyncIterator[OpenContender]:
    from aiojobs import Scheduler

    scheduler = Scheduler(limit=slots, pending_limit=0)  # 0: no bound on what waits

    async def call(job: Job) -> object:
        return await (await scheduler.spawn(asyncio.to_thread(job))).wait()

    async with scheduler:
        yield OpenContender(lambda job: asyncio.create_task(call(job)), call)


@asynccontextmanager
async def _director(slots: int, **options: Any) -> AsyncIterator[OpenContender]:
    from director import Director

    async with Director(f"cpu:{slots}", max_queue=None, **options) as director:
        yield OpenContender(director.submit, director.run)


@dataclass(frozen=True)
class Participant:
    """A participant of an experiment, by the name that tables print.

    Args:
        name: Unique among those that do the same work.
        open: Opens it for that work.
        needs: The module that must be installed, if any.
    """

    name: str
    open: Callable[..., AbstractAsyncContextManager[Any]]
    needs: str | None = None

    @property
    def installed(self) -> bool:
        """Whether it can take part on this machine."""
        return self.needs is None or find_spec(self.needs) is not None


@dataclass(frozen=True)
class Contender(Participant):
    """A way to run jobs, opened for a number of slots."""

    open: Callable[[int], AbstractAsyncContextManager[OpenContender]]


POOL = Contender("ThreadPoolExecutor, no asyncio", _pool)
RUN_IN_EXECUTOR = Contender("loop.run_in_executor", _run_in_executor)
TO_THREAD = Contender("asyncio.to_thread", _to_thread)
ANYIO = Contender("anyio.to_thread + limiter", _anyio)
SEMAPHORES = Contender("semaphore per device + to_thread", _semaphores)
AIOJOBS = Contender("aiojobs + to_thread", _aiojobs, needs="aiojobs")
DIRECTOR = Contender("director", _director)
HOOKED = Contender("director with a hook", partial(_director, hooks=(noop,)))

EVERYBODY = (POOL, RUN_IN_EXECUTOR, TO_THREAD, ANYIO, SEMAPHORES, AIOJOBS, DIRECTOR, HOOKED)


def present(contenders: Iterable[P]) -> list[P]:
    """Those of `contenders` that are installed."""
    return [contender for contender in contenders if contender.installed]


def absent(contenders: Iterable[P]) -> list[P]:
    """Those of `contenders` that are not installed."""
    return [contender for contender in contenders if not contender.installed]
