"""Exceptions from a child to its parent: as themselves where that can be done, always with the child's traceback."""

from __future__ import annotations

import os
import pickle
import traceback
from contextlib import suppress
from typing import Any, NamedTuple

from director._core.frames import strip
from director._executors._process.program import Unguarded
from director._executors._process.references import describe, pack
from director.errors import JobError


class Fault(NamedTuple):
    """An exception as it travels.

    Args:
        stream: Its pickle; empty if it can't be pickled.
        buffers: What is large in it.
        text: Its type and text.
        reason: Why it can't be sent, if so.
        traceback: Of the child.
        process: The child's id.
    """

    stream: bytes
    buffers: list[bytes]
    text: str
    reason: str
    traceback: str
    process: int


def fault_of(error: BaseException) -> Fault:
    """In the child: what to send of an exception. Whether it comes back as itself is tried here and now."""
    if isinstance(error, Unguarded):
        return Fault(pickle.dumps(RuntimeError(str(error))), [], "", "", "", os.getpid())
    strip(error)
    stream, buffers, reason = b"", [], ""
    try:
        parcel = pack(error, lambda: "the exception")
        stream, buffers = parcel.stream, [bytes(buffer) for buffer in parcel.buffers]
        _load(stream, buffers)
    except Exception as refusal:  # noqa: BLE001 - whatever its class raises
        stream, buffers, reason = b"", [], describe(refusal)
    story = "".join(traceback.format_exception(error))
    return Fault(stream, buffers, describe(error), reason, story, os.getpid())


def error_of(content: Any, label: str) -> BaseException:
    """In the parent: the exception again, or a `JobError` that says what it was, with a note of where it was raised."""
    fault = Fault(*content)
    error = _rebuild(fault)
    if not fault.traceback:
        return error
    with suppress(Exception):  # a class may refuse attributes; the error itself matters more
        error.add_note(f"\nIn the process of {label} (pid {fault.process}):\n\n{fault.traceback.rstrip()}")
    return error


def _rebuild(fault: Fault) -> BaseException:
    reason = fault.reason
    if fault.stream:
        try:
            return _load(fault.stream, fault.buffers)
        except Exception as refusal:  # noqa: BLE001 - the same; here other modules can be imported than there
            reason = describe(refusal)
    return JobError(f"{fault.text} (the exception itself could not be sent from its process: {reason})")


def _load(stream: bytes, buffers: list[bytes]) -> BaseException:
    error = pickle.loads(stream, buffers=buffers)  # noqa: S301 - written by ourselves
    if not isinstance(error, BaseException):
        raise TypeError(f"it comes back as {type(error).__qualname__}")
    return error
