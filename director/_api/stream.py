"""`stream`: a job that runs a generator function, and the async iterator that reads its values."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from director._jobs.calls import StreamCall

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from director._jobs.job import Job
    from director._jobs.stream_channel import StreamChannel

T = TypeVar("T")

_IN_A_ROW = 32  # values that a reader gets before other tasks run


class Stream(Generic[T]):
    """The values of a generator that runs as a job, as they are made: an async iterator. `Director.stream` makes it.

    The job is queued already. After its last value the iterator is at its end, also for every further `anext`; what the
    generator raised, or ended the job, is raised once, after the values that came before it. One task reads at a time.

    Leaving ``async with stream:``, `aclose`, cancelling a task that waits for a value, and dropping the last reference
    (on any thread) cancel the job: a generator that waits for its slot never runs, one that runs is closed on its own
    thread at the `yield` where it is or comes to next. None of them waits for that.
    """

    __slots__ = ("__weakref__", "_arrived", "_call", "_channel", "_in_a_row", "_is_over", "_is_reading", "job")

    job: Job[None]
    """The job that runs the generator: its state, device and times. Cancelling it ends the stream."""

    def __init__(
        self,
        fn: Callable[..., Any],
        make_channel: Callable[[Callable[[], None]], StreamChannel[T]],
        open_job: Callable[[StreamCall[T]], Job[None]],
        call: Callable[..., object],
    ) -> None:
        # What the job refers to must not refer to the stream, or the stream would never be dropped while the job runs.
        self._arrived = arrived = asyncio.Event()
        self._channel = channel = make_channel(arrived.set)
        self._call = call
        self._is_reading = False  # a task is in `__anext__`
        self._is_over = False  # no more values come
        self._in_a_row = 0  # values that were returned without a wait
        self.job = job = open_job(StreamCall(fn, channel))

        def note_end(job: asyncio.Future[None]) -> None:
            if not job.cancelled():
                job.exception()  # marks it as retrieved, even if the reader has left
            channel.close_writer()
            arrived.set()

        job.add_done_callback(note_end)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next value, as soon as there is one.

        Raises:
            StopAsyncIteration: The generator has returned, or the stream was closed.
            BaseException: What the generator raised, or ended its job, once; `SlowReader`, `JobTimeout` among them.
            RuntimeError: Another task waits for a value.

        Cancellation: cancels the job.
        """
        if self._is_reading:
            raise RuntimeError(
                f"{self!r} is read by another task already: only one `anext` at a time can wait for a value"
            )
        self._is_reading = True
        try:
            while not self._is_over:
                if self._in_a_row >= _IN_A_ROW:
                    self._in_a_row = 0
                    await asyncio.sleep(0)  # other tasks need the loop too, one of which may cancel this reader
                elif self._channel.has_value:
                    self._in_a_row += 1
                    return self._channel.take()  # without a variable, which would keep it alive
                elif self.job.done():
                    self._is_over = True
                    try:
                        self.job.result()
                    except StopAsyncIteration as error:  # which would pass for the end of the values
                        raise RuntimeError("the generator raised StopAsyncIteration") from error
                elif self._channel.expect():
                    self._in_a_row = 0
                    await self._arrived.wait()
                    self._arrived.clear()
            raise StopAsyncIteration
        except GeneratorExit:  # of a task that is dropped while it waits: at any time, on any thread
            self._drop()
            raise
        except asyncio.CancelledError:
            self._close()
            raise
        finally:
            self._is_reading = False
            del self  # the traceback of what is raised leads to this frame, and the job holds what is raised

    async def aclose(self) -> None:
        """Cancel the job, unless it has ended, and drop the values that wait; does not wait for the generator.

        A task that waits for a value finds the end of the stream.

        Raises:
            RuntimeError: Called outside of the event loop of the Director.
        """
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if not self.job.done():
            self.job.cancel()
        self._is_over = True
        self._channel.close_reader()
        self._arrived.set()

    def _drop(self) -> None:
        """From any thread, also within a decision of the scheduler."""
        self._is_over = True
        self._channel.close_reader()  # at once: the thread must not wait for a loop that may be busy or closed
        if not self.job.done():
            self._call(self.job.cancel)

    def __del__(self) -> None:
        if hasattr(self, "job"):  # else it was refused
            self._drop()

    def __repr__(self) -> str:
        return f"<Stream of {self.job!r}>"


def _default(value: T) -> T:
    """A value equal to this one that is told by its identity from one that a caller gives."""
    kind = type(value)
    return type(kind.__name__, (kind,), {})(value)  # type: ignore[no-any-return]


BUFFER, SLOW_READER_TIMEOUT = _default(16), _default(10.0)
ON_SLOW_READER: Literal["wait", "cancel"] = _default("wait")


def given_settings(buffer: Any, on_slow_reader: Any, slow_reader_timeout: Any) -> dict[str, Any]:
    """Those of the arguments of `Director.stream` that are not its defaults: a `Function` may have bound others."""
    settings = (
        ("buffer", buffer, BUFFER),
        ("on_slow_reader", on_slow_reader, ON_SLOW_READER),
        ("slow_reader_timeout", slow_reader_timeout, SLOW_READER_TIMEOUT),
    )
    return {name: value for name, value, default in settings if value is not default}
