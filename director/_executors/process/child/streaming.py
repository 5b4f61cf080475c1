"""What runs the generator of a stream in a child: never more values are on their way than the parent has room for.

Without that bound a quick generator of large values would fill memory behind a slow reader, however small a message is.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from director._jobs.calls import close

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import GeneratorType

    from director._ipc.shared_page import SharedPage


def run_generator(
    generator: GeneratorType[Any, Any, Any], page: SharedPage, number: int, wake: int, tell: Callable[[Any], int]
) -> None:
    """Run a generator to its end.

    Args:
        generator: A new one.
        page: Says how much was taken, and whether the reader has left.
        number: Of the call.
        wake: An eventfd that the parent writes to when a value was taken.
        tell: Sends a value; returns its segments, each of which counts as a value more.

    Raises:
        CancelledError: The reader has left.
        BaseException: What the generator raised.
    """
    count = 0
    try:
        for value in generator:
            while not (is_unwanted := page.look(number)) and page.is_full(number, count):
                os.eventfd_read(wake)
            if is_unwanted:
                raise asyncio.CancelledError
            count += 1 + tell(value)
            del value
    except BaseException:
        close(generator)
        raise
