"""Calls that runners treat specially (streams, leases, futures executors), and the context of a call.

A runner with another process runs `StreamCall.func` there, and puts the values into `channel` on the slot's thread.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from abc import abstractmethod
from contextvars import Context, ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from director._untrusted.objects import log_error, name_of
from director.errors import JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import GeneratorType

    from director._device import Device
    from director._jobs.job import ScheduledJob
    from director._jobs.stream_channel import StreamChannel

T = TypeVar("T")
logger = logging.getLogger("director")

_CLOSINGS = 100  # times that a generator which yields in `close` is closed again


class StreamCall(Generic[T]):
    """The call of a stream's job: runs the generator to its end, and puts its values into a channel.

    Args:
        func: A generator function of a resource and arguments.
        channel: Takes the values.
    """

    __slots__ = ("channel", "func", "settle")

    def __init__(self, func: Callable[..., GeneratorType[T, Any, Any]], channel: StreamChannel[T]) -> None:
        self.func = func
        self.channel = channel
        self.settle: Callable[[], None] | None = None
        """Called before a value is put; a runner may set it, to wait until the device has computed the value."""

    @property
    def __name__(self) -> str:
        return name_of(self.func)

    def __call__(self, resource: Any, *args: Any) -> None:
        """Put every value into the channel; if that raises, close the generator, on its own thread."""
        put = self.channel.put if self.settle is None else self._settle_and_put
        generator = self.func(resource, *args)
        try:
            for _ in map(put, generator):  # without a variable, which would keep a value while the next one is computed
                pass
        except BaseException:
            close(generator)
            raise

    def _settle_and_put(self, value: T) -> None:
        assert self.settle is not None
        self.settle()
        self.channel.put(value)


def close(generator: GeneratorType[Any, Any, Any]) -> None:
    """Close a generator; log what it raises, or that it yields, because the outcome of its job is known already."""
    for attempt in range(_CLOSINGS):
        try:
            generator.close()
        except (asyncio.CancelledError, JobTimeout):
            pass  # raised by `check_cancelled` in its `finally`
        except Exception as error:  # noqa: BLE001 - its outcome is known
            if generator.gi_frame is None:  # it has ended, by raising
                log_error(logger, error, "the stream %s raised while it was closed", generator.__qualname__)
            elif not attempt:
                logger.warning(
                    "the stream %s yields while it is closed, which no reader gets: "
                    "let GeneratorExit through, and yield nothing in `finally`",
                    generator.__qualname__,
                )
        if generator.gi_frame is None:
            return


class LocalCall:
    """The call of a lease or of a futures executor, which runs on the slot's thread in any case."""

    @abstractmethod
    def run_locally(self, device: Device, make: Callable[[Callable[[], Any]], Any]) -> Any:
        """Run on the slot's thread, for a runner that makes calls in another process.

        Args:
            device: The slot's device.
            make: Makes a call in that process, without the resource, and returns what it returns.
        """

    def surround(self, wrap: Callable[[Callable[[], Any]], Callable[[], Any]]) -> None:
        """Before it is queued: make the call through `wrap`. Does nothing for what makes no call of a user."""

    # On the event loop, where a server process makes the call and no slot's thread is here:

    def given(self) -> Callable[[], Any] | None:
        """The call for the server to make, without a resource; `None` only to hold the slot."""
        return None

    def begin(self, device: Device, release: Callable[[], None]) -> None:
        """It has begun there. `release`, from any thread, gives the slot back."""

    def settle(self, outcome: Callable[[], Any]) -> Any:
        """The call has ended there: `outcome` returns what it has returned, or raises."""
        return outcome()

    def release(self) -> None:
        """From any thread: the event loop is closed; stop waiting for it on the slot's thread."""


def load_only(_replica: Any) -> None:
    """The call of a load in advance: nothing, for the runner has loaded the model."""


def context_of(job: ScheduledJob[Any]) -> Context:
    """The context in which to call the function of `job`.

    A copy of a context has the same decimal context, which is an object that can be changed. A function that changes
    the precision would change it for its caller and for all other jobs, so the call gets a copy of that too.
    """
    context = job.context
    if context is None:
        return Context()
    if "decimal" in sys.modules and (variable := _decimal_variable()) is not None and variable in context:
        context.run(_separate_decimals)
    return context


@cache
def _decimal_variable() -> ContextVar[Any] | None:
    """The context variable of `decimal`, which has no public name."""
    from decimal import getcontext

    empty = Context()
    empty.run(getcontext)
    return next(iter(empty), None)


def _separate_decimals() -> None:
    from decimal import getcontext, setcontext

    setcontext(getcontext().copy())
