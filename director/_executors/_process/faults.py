"""Exceptions from a child to its parent: as themselves where that can be done, always with the child's traceback."""

from __future__ import annotations

import os
import pickle
import traceback
from contextlib import suppress
from typing import Any, NamedTuple

from director._core.frames import strip
from director._executors._process.references import describe, pack
from director.errors import JobError


class Fault(NamedTuple):
    """An exception as it travels.

    Args:
        error: Itself, or what takes its place.
        text: Its traceback in the child.
        process: Id of the child.
    """

    error: BaseException
    text: str
    process: int


def fault_of(error: BaseException) -> Fault:
    """In the child: what to send of an exception."""
    strip(error)
    text = "".join(traceback.format_exception(error))
    return Fault(_sendable(error), text, os.getpid())


def error_of(fault: Any, label: str) -> BaseException:
    """In the parent: the exception again, with a note that tells where it was raised."""
    error, text, process = fault
    assert isinstance(error, BaseException)
    with suppress(Exception):  # a class may refuse attributes; the error itself matters more
        error.add_note(f"\nIn the process of {label} (pid {process}):\n\n{text.rstrip()}")
    return error


def _sendable(error: BaseException) -> BaseException:
    """`error` if it gets through, tried here and now; else a `JobError` that says what it was."""
    try:
        parcel = pack(error, lambda: "the exception")
        again = pickle.loads(parcel.stream, buffers=parcel.buffers)  # noqa: S301 - written a line above
        if type(again).__qualname__ == type(error).__qualname__:
            return error
        reason = f"it comes back as {type(again).__qualname__}"
    except Exception as refusal:  # noqa: BLE001 - whatever its class raises
        reason = describe(refusal)
    return JobError(f"{describe(error)} (the exception itself could not be sent from its process: {reason})")
