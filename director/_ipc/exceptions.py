"""Sends exceptions from a child to its parent: the same exception if possible, always with the child's traceback."""

from __future__ import annotations

import os
import pickle
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from director._devices.device_errors import FRAMEWORKS, Fault, fault_of, free_caches
from director._ipc.by_name import describe, pack
from director._ipc.main_module import Unguarded
from director._untrusted.objects import add_note, is_a, module_name, story_of, strip, type_name
from director.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RemoteError", "error_of", "free_caches", "pack_error"]


class RemoteError(NamedTuple):
    """An exception as it travels.

    Args:
        stream: Its pickle; empty if it can't be pickled.
        buffers: Large buffers left out of the pickle.
        package: The top-level package of its class.
        text: Its type and text.
        reason: Why it can't be sent, if so.
        traceback: Of the child.
        process: The child's id.
        fault: The fields of a `Fault`, if it is an error of the device.
    """

    stream: bytes
    buffers: list[bytes]
    package: str
    text: str
    reason: str
    traceback: str
    process: int
    fault: tuple[Any, ...] | None


def _packed(error: BaseException) -> tuple[bytes, list[bytes]]:
    payload = pack(error, lambda: "the exception")
    return payload.stream, [bytes(buffer) for buffer in payload.buffers]


def pack_error(
    error: BaseException, packed: Callable[[BaseException], tuple[bytes, list[bytes]]] = _packed
) -> RemoteError:
    """In the child: an exception as it is sent. It is unpickled here once, to find out whether that works.

    Args:
        error: The exception.
        packed: Pickles it; may raise.
    """
    process = os.getpid()
    if isinstance(error, Unguarded):
        return RemoteError(pickle.dumps(RuntimeError(str(error))), [], "", "", "", "", process, None)
    with suppress(BaseException):
        strip(error)
    stream, reason = b"", ""
    buffers: list[bytes] = []
    try:
        stream, buffers = packed(error)
        _load(stream, buffers)
    except BaseException as refusal:  # noqa: BLE001 - raised by its class
        stream, buffers, reason = b"", [], describe(refusal)
    package = module_name(type(error)).partition(".")[0]
    fault = fault_of(error)
    facts = None if fault is None else (fault.kind, fault.reason, fault.code)
    return RemoteError(stream, buffers, package, describe(error), reason, story_of(error), process, facts)


def error_of(content: Any, label: str) -> tuple[BaseException, Fault | None]:
    """In the parent: the exception, with a note of where it was raised, and the `Fault` of the device, if any.

    One that can't be rebuilt here becomes a `JobError` with its type and text.
    """
    told = RemoteError(*content)
    fault = None if told.fault is None else Fault(*told.fault)
    error = _rebuild(told, fault)
    if told.traceback:
        add_note(error, f"\nIn the process of {label} (pid {told.process}):\n\n{told.traceback.rstrip()}")
    return error, fault


def _rebuild(told: RemoteError, fault: Fault | None) -> BaseException:
    reason = told.reason
    if told.stream:
        if told.package in FRAMEWORKS and told.package not in sys.modules:
            reason = f"{told.package} is not imported here"
        else:
            try:
                return _load(told.stream, told.buffers)
            except BaseException as refusal:  # noqa: BLE001 - the same; its modules may not be importable here
                reason = describe(refusal)
    error = JobError(f"{told.text} (the exception itself could not be sent from its process: {reason})")
    if fault is not None and fault.kind == "memory":  # the cause's text marks it as out of memory: batches are halved
        error.__cause__ = RuntimeError(f"CUDA error: out of memory: {fault.reason}")
    return error


def _load(stream: bytes, buffers: list[bytes]) -> BaseException:
    error = pickle.loads(stream, buffers=buffers)  # noqa: S301 - written by ourselves
    if not is_a(error, BaseException):
        raise TypeError(f"it comes back as {type_name(error)}")
    return error
