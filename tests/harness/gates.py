"""What these tests are made of: jobs that wait to be let go, a hook that remembers, and waiting without sleeping."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from director import Director
    from director.events import Event

E = TypeVar("E", bound="Event")
PATIENCE = 20.0  # real seconds after which something that should come is called missing
MANY = 1_000  # calls


class Gate:
    """The function of jobs that say when they begin, and end when they are let through.

    Returns its first argument, or its resource if there is none.
    """

    __name__ = "gate"

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Semaphore(0)
        self._passes = threading.Semaphore(0)
        self.calls: list[tuple[Any, ...]] = []  # resource and arguments, in the order in which they began
        self.finished = 0

    def __call__(self, resource: Any, *args: Any) -> Any:
        self.calls.append((resource, *args))
        self._loop.call_soon_threadsafe(self._begun.release)
        if not self._passes.acquire(timeout=PATIENCE):
            raise TimeoutError("nobody opened the gate")
        self.finished += 1
        return args[0] if args else resource

    async def begun(self, count: int = 1) -> None:
        """Wait until so many more calls have begun."""
        async with asyncio.timeout(PATIENCE):
            for _ in range(count):
                await self._begun.acquire()

    def let(self, count: int) -> None:
        """Let so many calls end."""
        self._passes.release(count)

    def open(self) -> None:
        """Let every call end, also those to come."""
        self._passes.release(MANY)

    @property
    def items(self) -> list[Any]:
        """The first arguments (None where there were none), in the order in which the calls began."""
        return [call[1] if call[1:] else None for call in self.calls]


class Recorder:
    """A hook that keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def of(self, *kinds: type[E]) -> list[E]:
        """The events of these kinds."""
        return [event for event in self.events if isinstance(event, kinds)]

    def kinds(self) -> list[str]:
        """The names of all events' types, in order."""
        return [type(event).__name__ for event in self.events]

    async def seen(self, kind: type[E], count: int = 1) -> E:
        """Wait for the event of this kind with this number, from 1."""
        async with asyncio.timeout(PATIENCE):
            while len(self.of(kind)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.of(kind)[count - 1]


class ThreadClock(TestClock):
    """A `TestClock` that can stop whoever else than the event loop asks for the time.

    Between two steps of the Director there is no public place to stop a thread, but every step asks the clock.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loop_thread = threading.get_ident()
        self._passes: threading.Semaphore | None = None  # of threads, while they are held
        self.asked = threading.Event()

    def hold(self) -> None:
        """From now on other threads wait for `let` or `release`."""
        self.asked.clear()
        self._passes = threading.Semaphore(0)

    def let(self) -> None:
        """Let one thread pass that waits, or the next that asks."""
        assert self._passes is not None
        self._passes.release()

    def release(self) -> None:
        """Let them on."""
        passes, self._passes = self._passes, None
        if passes is not None:
            passes.release(MANY)

    def time(self) -> float:
        passes = self._passes
        if passes is not None and threading.get_ident() != self._loop_thread:
            self.asked.set()
            passes.acquire(timeout=PATIENCE)
        return super().time()


async def turns(count: int = 20) -> None:
    """Let the event loop turn, so that what is ready to happen happens."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what a thread does on its own: it will come, and within moments."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a thread's own state has no event
            await asyncio.sleep(0.001)


async def rested(director: Director) -> None:
    """Wait until no slot is in a call: a result travels to the loop a moment before its thread looks for more work."""
    await until(lambda: not any(device.busy for device in director.stats().devices))


def keep_workers(director: Director) -> None:
    """Have workers without a job wait for the next one until the Director closes, and not for a tenth of a second."""
    assert director._runtime is not None
    director._runtime.scheduler.linger = 3600.0


async def outcome(awaitable: Any) -> Any:
    """Its result, or the exception it raised."""
    return (await asyncio.gather(awaitable, return_exceptions=True))[0]


async def collected(results: AsyncIterator[Any]) -> tuple[list[Any], BaseException | None]:
    """What it yields, and the error that comes after that."""
    seen: list[Any] = []
    try:
        async for result in results:
            seen.append(result)  # noqa: PERF401 - a comprehension would lose what came before the error
    except BaseException as error:
        return seen, error
    return seen, None
