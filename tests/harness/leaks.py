"""What a test, or a page of the documentation, leaves behind: threads of a Director, tasks of a loop."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback

PREFIX = "director"  # what the names of all the package's threads begin with
GRACE = 2.0  # seconds that a thread or task which is already on its way out may need


def threads_left(before: set[threading.Thread]) -> str:
    """Say which of the package's threads were started since `before` and don't end; empty if there are none."""
    began = time.monotonic()
    new = [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith(PREFIX)]
    for thread in new:
        thread.join(max(0.0, began + GRACE - time.monotonic()))
    frames = sys._current_frames()
    left = [(thread.name, frames.get(thread.ident or 0)) for thread in new if thread.is_alive()]
    return "\n".join(f"thread {name} is left behind, at\n{_stack(frame)}" for name, frame in left)


async def tasks_left() -> str:
    """Say which tasks of the running loop don't end, this one aside; empty if there are none."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if not others:
        return ""
    _, left = await asyncio.wait(others, timeout=GRACE)
    return "\n".join(f"task {task.get_name()} is left behind: {task!r}" for task in left)


def _stack(frame: object) -> str:
    return "".join(traceback.format_stack(frame))  # type: ignore[arg-type]
