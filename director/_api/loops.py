"""Event loops, threads and processes in which a Director can't be used, and what is said there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NoReturn


def refuse_calls(loop: asyncio.AbstractEventLoop, origin: int) -> None:
    """In a forked process: have an event loop whose thread was not copied refuse what other threads give it.

    `asyncio.run_coroutine_threadsafe` would return a future of which nothing ever comes.
    """

    def refuse(*_args: object, **_options: object) -> NoReturn:
        raise RuntimeError(
            f"the thread of this event loop runs in process {origin}, from which this one was forked: nothing that is "
            "given to it here would ever run. Open a Director in each process, after the fork (gunicorn: in "
            "post_fork, or without --preload)"
        )

    with suppress(AttributeError):  # one that is written in C
        loop.call_soon_threadsafe = refuse  # type: ignore[method-assign]


def refuse_copy(origin: int) -> NoReturn:
    """A Director was called in a copy of the process, forked from `origin`, that has opened it."""
    raise RuntimeError(
        f"this Director was opened in process {origin}, from which this one was forked, and its threads "
        "are not here: start it again in this process, or start processes by spawning them"
    )


def refuse_stranger() -> NoReturn:
    """A Director was called outside of its event loop."""
    raise RuntimeError(
        "this Director belongs to another event loop or thread than the one it was called from; "
        "from a thread use director.as_executor() or asyncio.run_coroutine_threadsafe()"
    )


def check_loop() -> None:
    """Refuse to start on the event loop of another library.

    Raises:
        RuntimeError: What runs this coroutine is not asyncio.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "a Director needs asyncio, and this coroutine is run by another event loop (trio, say): start it under "
            'asyncio (`anyio.run(main, backend="asyncio")`), or use SyncDirector from a thread'
        ) from None
