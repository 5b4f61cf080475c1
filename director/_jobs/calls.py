"""The call of a stream's job: a generator function, run to its end on the slot's thread, its values put on a channel.

An executor that runs calls elsewhere recognises it, runs `func` there and feeds `channel` from the slot's thread.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from director._untrusted.objects import log_error, name_of
from director.errors import JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import GeneratorType

    from director._device import Device
    from director._jobs.stream_channel import StreamChannel

T = TypeVar("T")
logger = logging.getLogger("director")

_CLOSINGS = 100  # times that a generator which yields instead of ending is told to end


class StreamCall(Generic[T]):
    """What the job of one stream calls.

    Args:
        func: A generator function of a resource and arguments.
        channel: Takes the values.
    """

    __slots__ = ("channel", "func", "settle")

    def __init__(self, func: Callable[..., GeneratorType[T, Any, Any]], channel: StreamChannel[T]) -> None:
        self.func = func
        self.channel = channel
        self.settle: Callable[[], None] | None = None
        """Called before a value is handed over; a runner may set it to wait until the device has made the value."""

    @property
    def __name__(self) -> str:
        return name_of(self.func)

    def __call__(self, resource: Any, *args: Any) -> None:
        """Put every value on the channel; close the generator, here on its own thread, if it takes no more."""
        put = self.channel.put if self.settle is None else self._settle_and_put
        generator = self.func(resource, *args)
        try:
            for _ in map(put, generator):  # gives no value a name: it would be kept while the next one is made
                pass
        except BaseException:
            close(generator)
            raise

    def _settle_and_put(self, value: T) -> None:
        assert self.settle is not None
        self.settle()
        self.channel.put(value)


def close(generator: GeneratorType[Any, Any, Any]) -> None:
    """Close a generator whose outcome is known already; what it raises now is logged, and so is that it goes on."""
    for attempt in range(_CLOSINGS):
        try:
            generator.close()
        except (asyncio.CancelledError, JobTimeout):
            pass  # its `finally` has asked `check_cancelled`
        except Exception as error:  # noqa: BLE001 - its outcome is known
            if generator.gi_frame is None:  # it has ended, by raising
                log_error(logger, error, "the stream %s raised while it was closed", generator.__qualname__)
            elif not attempt:
                logger.warning(
                    "the stream %s yields while it is closed, and nobody reads that: "
                    "let GeneratorExit through, and yield nothing in `finally`",
                    generator.__qualname__,
                )
        if generator.gi_frame is None:
            return


class LocalCall:
    """What a lease and the calls of an executor are made of."""

    @abstractmethod
    def run_locally(self, device: Device, make: Callable[[Callable[[], Any]], Any]) -> Any:
        """Run on the thread of a slot whose calls are made elsewhere.

        Args:
            device: The slot's.
            make: Makes a call there, without the resource, and returns what it returns.
        """

    def release(self) -> None:
        """From any thread: the event loop is gone, and nothing on the slot's thread may wait for it any more."""
