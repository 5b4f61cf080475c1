"""Tasks of ours."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine


def create_task(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task of ours. Of a Director that is forgotten with its loop we warn ourselves, once and not for each task."""
    try:
        task = loop.create_task(work, name=name)
    except BaseException:  # of a task factory
        work.close()
        raise
    with suppress(AttributeError):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # of asyncio's own tasks
    return task
