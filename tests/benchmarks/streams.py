"""Generators on threads, read on the event loop: how soon a value comes, what it costs, and how many are made."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from director.cli._bench.lost import PERIOD, Burden, block, carry, nothing
from director.cli._bench.sheet import Effort, Sheet, turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

Generate: TypeAlias = "Callable[..., Iterator[Any]]"
Read: TypeAlias = "Callable[[Generate], AsyncGenerator[Any, None]]"

STREAMS = 4
SECONDS = 0.001  # that a device works for a value
BUFFER = 16  # of those that have one; a Director's own default
END = object()


# ---- contenders: each takes a generator function that ignores its arguments, and is read to the end


@asynccontextmanager
async def _coroutine(slots: int) -> AsyncIterator[Read]:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(slots) as pool:

        async def read(generate: Generate) -> AsyncGenerator[Any, None]:
            def put(value: object) -> None:
                asyncio.run_coroutine_threadsafe(queue.put(value), loop).result()

            queue: asyncio.Queue[Any] = asyncio.Queue(BUFFER)
            pump = loop.run_in_executor(pool, _pump, generate, put)
            while (value := await queue.get()) is not END:
                yield value
            await pump

        yield read


@asynccontextmanager
async def _call_soon(slots: int) -> AsyncIterator[Read]:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(slots) as pool:

        async def read(generate: Generate) -> AsyncGenerator[Any, None]:
            def put(value: object) -> None:
                loop.call_soon_threadsafe(queue.put_nowait, value)

            queue: asyncio.Queue[Any] = asyncio.Queue()
            pump = loop.run_in_executor(pool, _pump, generate, put)
            while (value := await queue.get()) is not END:
                yield value
            await pump

        yield read


def _pump(generate: Generate, put: Callable[[object], object]) -> None:
    for value in generate():
        put(value)
    put(END)


@asynccontextmanager
async def _anyio(slots: int) -> AsyncIterator[Read]:
    from anyio import CapacityLimiter
    from anyio.to_thread import run_sync

    limiter = CapacityLimiter(slots)

    async def read(generate: Generate) -> AsyncGenerator[Any, None]:
        values = generate()
        while (value := await run_sync(next, values, END, limiter=limiter)) is not END:
            yield value

    yield read


@asynccontextmanager
async def _director(slots: int, buffer: int) -> AsyncIterator[Read]:
    from director import Director

    async with Director(f"cpu:{slots}") as director:
        yield lambda generate: director.stream(generate, buffer=buffer)


@dataclass(frozen=True)
class Streamer:
    """A way to stream, by the name that tables print, and how to open it for a number of slots."""

    name: str
    open: Callable[[int], AbstractAsyncContextManager[Read]]


COROUTINE = Streamer("run_coroutine_threadsafe(queue.put)", _coroutine)
CALL_SOON = Streamer("call_soon_threadsafe, no bound", _call_soon)
ANYIO = Streamer("anyio.to_thread, next by next", _anyio)
DIRECTOR = Streamer("director", partial(_director, buffer=BUFFER))
ROOMY = Streamer("director, buffer of 64", partial(_director, buffer=64))

EVERYBODY = (COROUTINE, CALL_SOON, ANYIO, DIRECTOR, ROOMY)
QUICK_ONES = (COROUTINE, CALL_SOON, DIRECTOR, ROOMY)
BURDENS = {"idle loop": nothing, "loop blocked": block}


# ---- generators


def count(*_device: object, values: int) -> Iterator[int]:
    """As many values as asked for, and no work."""
    yield from range(values)


class Ticker:
    """A generator function that works for each value and writes down when it had made it."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.over = False  # set once, by the measuring task

    def __call__(self, *_device: object) -> Iterator[int]:
        """Make values until it is over."""
        while not self.over:
            time.sleep(SECONDS)  # stands for a kernel: the device is busy, the GIL is free
            self.made.append(time.perf_counter_ns())
            yield len(self.made)


# ---- measures


async def drain(values: AsyncGenerator[Any, None]) -> None:
    """Read to the end."""
    async for _ in values:
        pass


async def first_value(read: Read, burden: Burden, window: float) -> float:
    """Mean seconds from the call to the first value, one stream after the other beside a loop that carries `burden`."""
    await drain(read(partial(count, values=1)))
    seconds: list[float] = []
    carrying = asyncio.ensure_future(carry(burden, window))
    while not carrying.done():
        await asyncio.sleep(0)
        began = time.perf_counter()
        values = read(partial(count, values=1))
        await anext(values)
        seconds.append(time.perf_counter() - began)
        await drain(values)
    await carrying
    return sum(seconds) / len(seconds)


async def each_value(read: Read, values: int) -> float:
    """Seconds for each value of streams that do no work."""
    await asyncio.gather(*(drain(read(partial(count, values=100))) for _ in range(STREAMS)))
    began = time.perf_counter()
    await asyncio.gather(*(drain(read(partial(count, values=values))) for _ in range(STREAMS)))
    return (time.perf_counter() - began) / (STREAMS * values)


async def rate(read: Read, burden: Burden, window: float) -> float:
    """Values that each stream makes in a second, beside a loop that carries `burden`."""
    tickers = [Ticker() for _ in range(STREAMS)]
    reading = asyncio.gather(*(drain(read(ticker)) for ticker in tickers))
    await asyncio.sleep(5 * SECONDS)
    opened = time.perf_counter_ns()
    await carry(burden, window)
    closed = time.perf_counter_ns()
    for ticker in tickers:
        ticker.over = True
    await reading
    made = sum(opened < moment <= closed for ticker in tickers for moment in ticker.made)
    return made / STREAMS / (closed - opened) * 1e9


def measure(effort: Effort) -> Sheet:
    """All contenders, each figure in a loop of its own."""
    sheet = Sheet()
    window = PERIOD * effort.pick(8, 4)
    values = effort.pick(2_000, 500)
    for streamer in turns(effort.pick(EVERYBODY, QUICK_ONES), rounds=effort.pick(5, 3)):
        for name, burden in BURDENS.items():
            sheet.add(streamer.name, f"first value: {name}", "µs", 1e6 * _run(streamer, first_value, burden, window))
        sheet.add(streamer.name, "without work: each value", "µs", 1e6 * _run(streamer, each_value, values))
        for name, burden in BURDENS.items():
            sheet.add(streamer.name, f"values of 1 ms: {name}", "/s", _run(streamer, rate, burden, window))
    return sheet


def _run(streamer: Streamer, measured: Callable[..., Any], *args: Any) -> float:
    async def run() -> float:
        async with streamer.open(STREAMS) as read:
            found: float = await measured(read, *args)
            return found

    return asyncio.run(run())
