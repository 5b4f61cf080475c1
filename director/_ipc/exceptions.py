"""Exceptions from a child to its parent: as themselves where that can be done, always with the child's traceback."""

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
        buffers: What is large in it.
        package: Where its class comes from.
        text: Its type and text.
        reason: Why it can't be sent, if so.
        traceback: Of the child.
        process: The child's id.
        fault: What it says of the device: the fields of a `Fault`.
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
    """In the child: what to send of an exception. Whether it comes back as itself is tried here and now.

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
    except BaseException as refusal:  # noqa: BLE001 - whatever its class raises
        stream, buffers, reason = b"", [], describe(refusal)
    package = module_name(type(error)).partition(".")[0]
    fault = fault_of(error)
    facts = None if fault is None else (fault.kind, fault.reason, fault.code)
    return RemoteError(stream, buffers, package, describe(error), reason, story_of(error), process, facts)


def error_of(content: Any, label: str) -> tuple[BaseException, Fault | None]:
    """In the parent: the exception again, with a note of where it was raised, and what it says of the device.

    One that can't be rebuilt here is a `JobError` that says what it was.
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
            reason = f"{told.package} is not imported here, and would be for it"
        else:
            try:
                return _load(told.stream, told.buffers)
            except BaseException as refusal:  # noqa: BLE001 - the same; here other modules can be imported than there
                reason = describe(refusal)
    error = JobError(f"{told.text} (the exception itself could not be sent from its process: {reason})")
    if fault is not None and fault.kind == "memory":  # for who halves batches: recognised by its words
        error.__cause__ = RuntimeError(f"CUDA error: out of memory: {fault.reason}")
    return error


def _load(stream: bytes, buffers: list[bytes]) -> BaseException:
    error = pickle.loads(stream, buffers=buffers)  # noqa: S301 - written by ourselves
    if not is_a(error, BaseException):
        raise TypeError(f"it comes back as {type_name(error)}")
    return error
