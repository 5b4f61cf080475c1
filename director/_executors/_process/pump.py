"""What runs the generator of a stream in a child."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from director._core.stream_call import close
from director._executors._process.flow import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import GeneratorType

    from director._executors._process.flow import Credits


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
