"""Runs the generator of a stream in a child, with flow control: at most `WINDOW` units are under way.

Without it a quick generator of large values would fill the memory behind a slow reader.
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
    generator: GeneratorType[Any, Any, Any], page: SharedPage, number: int, wake: int, send: Callable[[Any], int]
) -> None:
    """Run a generator to its end.

    Args:
        generator: A new one.
        page: Has the units taken, and the notice when the reader has left.
        number: The number of the call.
        wake: An eventfd to which the parent writes when values were taken.
        send: Sends a value; returns its segments, each of which is one unit more.

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
            count += 1 + send(value)
            del value
    except BaseException:
        close(generator)
        raise
