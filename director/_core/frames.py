"""The frames of this package in a user's traceback: taken off, and emptied."""

from __future__ import annotations

from contextlib import suppress


def strip(error: BaseException) -> None:
    """Take our own frames off the head of a traceback, and empty them: they hold the job, which will hold the error."""
    traceback = error.__traceback__
    while traceback is not None and str(traceback.tb_frame.f_globals.get("__name__")).startswith("director._"):
        with suppress(RuntimeError):  # the frame that is still running can't be emptied
            traceback.tb_frame.clear()
        traceback = traceback.tb_next
    error.__traceback__ = traceback
