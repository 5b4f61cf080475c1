"""`stream`: a job that runs a generator function, and the async iterator that reads its values."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from director._jobs.calls import StreamCall
from director._untrusted.numbers import seconds, shown, whole

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from director._jobs.job import Job
    from director._jobs.stream_channel import StreamChannel

T = TypeVar("T")

_IN_A_ROW = 32  # values that a reader gets before other tasks run


def stream_values(
    fn: Callable[..., Any],
    make_channel: Callable[[Callable[[], None]], StreamChannel[T]],
    open_job: Callable[[StreamCall[T]], Job[None]],
) -> AsyncGenerator[T, None]:
    """Read the values of a generator that runs as a job; see `Director.stream`.

    Args:
        fn: The generator function.
        make_channel: Makes the channel, from what wakes its reader.
        open_job: Queues the job of a call.
    """
    arrived = asyncio.Event()
    channel = make_channel(arrived.set)
    values = _read(lambda: open_job(StreamCall(fn, channel)), channel, arrived)
    # A dropped reader may never be closed, if its loop is busy or closed: the thread must not wait for that.
    weakref.finalize(values, channel.close_reader).atexit = False
    return values


async def _read(
    open_job: Callable[[], Job[None]], channel: StreamChannel[T], arrived: asyncio.Event
) -> AsyncGenerator[T, None]:
    def note_end(job: asyncio.Future[None]) -> None:
        if not job.cancelled():
            job.exception()  # marks it as retrieved, even if the reader has left
        channel.close_writer()
        arrived.set()

    job = open_job()  # at the first step: an iterator that is never used runs nothing
    job.add_done_callback(note_end)
    try:
        in_a_row = 0
        while True:
            if in_a_row == _IN_A_ROW:
                in_a_row = 0
                await asyncio.sleep(0)  # other tasks need the loop too, one of which may cancel this reader
            elif channel.has_value:
                in_a_row += 1
                yield channel.take()  # without a variable, which would keep it alive
            elif job.done():
                break
            elif channel.expect():
                in_a_row = 0
                await arrived.wait()
                arrived.clear()
        job.result()
    finally:
        channel.close_reader()
        job.cancel()
        del job  # the traceback of what is raised leads to this frame, and the job holds what is raised


def check_stream(fn: Any, buffer: Any, on_slow_reader: Any, slow_reader_timeout: Any) -> tuple[int, float]:
    """`buffer` and `slow_reader_timeout` of `Director.stream` as plain numbers.

    Raises:
        TypeError: `fn` is no generator function, or one of the others is of the wrong type.
        ValueError: One is out of range.
    """
    if not _makes_generators(fn):
        raise TypeError(
            f"stream() needs a generator function, one that has `yield` in it and blocks, not {shown(fn)}. A function "
            "that returns an iterator becomes one by `yield from`; for one result there is run()"
        )
    if on_slow_reader not in ("wait", "cancel"):
        raise ValueError(f'on_slow_reader must be "wait" or "cancel", not {shown(on_slow_reader)}')
    return whole("buffer", buffer, 1), seconds("slow_reader_timeout", slow_reader_timeout)


def _makes_generators(fn: Any) -> bool:
    """Whether calling `fn` gives a generator: it is a function, a method, a partial, or an object that is called so."""
    return inspect.isgeneratorfunction(fn) or inspect.isgeneratorfunction(type(fn).__call__)
