"""Users' exceptions on their way to a caller: without the frames of this package, and fit for a future."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from director._user_objects import is_a, plain, set_cause, set_traceback, traceback_of

if TYPE_CHECKING:
    from types import FrameType


def strip(error: BaseException) -> None:
    """Take our own frames off the head of a traceback, and empty them: they hold the job, which will hold the error."""
    traceback = traceback_of(error)
    while traceback is not None and _is_ours(traceback.tb_frame):
        with suppress(RuntimeError):  # the frame that is still running can't be emptied
            traceback.tb_frame.clear()
        traceback = traceback.tb_next
    set_traceback(error, traceback)


def bearable(error: BaseException) -> BaseException:
    """The error, or what a future takes for it: it would take a `StopIteration` for a generator's own end."""
    if not is_a(error, StopIteration):
        return error
    stopped = RuntimeError("the job raised StopIteration")
    set_cause(stopped, error)
    return stopped


def _is_ours(frame: FrameType) -> bool:
    return (plain(dict.get(frame.f_globals, "__name__")) or "").startswith("director._")
