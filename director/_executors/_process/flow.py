"""The values of a stream on their way from a child: never more of them than the parent has room for.

The child may have `WINDOW` values under way; each that the reader's bridge has taken is a credit for one more. Without
that a quick generator of large values would fill memory behind a slow reader, however small the frames are.
"""

from __future__ import annotations

import asyncio
import os
import select
from typing import TYPE_CHECKING, Any

from director._core.stream_call import close

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import GeneratorType

WINDOW = 4  # values that are made, and that nobody has taken yet


class Credits:
    """A counter that both sides have: an eventfd, from which each read takes one.

    Args:
        descriptor: Of it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def give(self) -> None:
        """In the parent: one more."""
        os.eventfd_write(self._descriptor, 1)

    def take(self) -> None:
        """In the child: wait for one."""
        os.eventfd_read(self._descriptor)

    def clear(self) -> None:
        """In the child: forget those of a stream that ended early."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while poll.poll(0):
            self.take()


def pump(
    generator: GeneratorType[Any, Any, Any],
    credits: Credits,
    tell: Callable[[Any], None],
    is_unwanted: Callable[[], bool],
) -> None:
    """In the child: run a generator to its end.

    Args:
        generator: A new one.
        credits: For its values.
        tell: Sends a value.
        is_unwanted: Whether nobody reads any more.

    Raises:
        CancelledError: Nobody does.
        BaseException: What the generator raised.
    """
    credits.clear()
    under_way = 0
    try:
        for value in generator:
            if under_way == WINDOW:
                credits.take()
            else:
                under_way += 1
            if is_unwanted():
                raise asyncio.CancelledError
            tell(value)
            del value
    except BaseException:
        close(generator)
        raise
