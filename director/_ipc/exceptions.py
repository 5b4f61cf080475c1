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
from director._untrusted.objects import (
    add_note,
    ancestors,
    full_name,
    is_a,
    members_of,
    message_of,
    module_name,
    origin_of,
    set_cause,
    set_context,
    story_of,
    strip,
    type_name,
)
from director.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RemoteError", "error_of", "free_caches", "pack_error"]


_DEEPEST = 20  # exceptions that lead to each other
_STREAM, _REASON = 0, 4  # fields of a `RemoteError`


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
        kinds: The names of its class and the bases of that.
        before: The exception that it was raised from or during, as one of these; pickle leaves it out.
        is_explicit: It was raised ``from`` that one, or from `None`.
        message, members: Of an exception group; the members as some of these.
        fault: The fields of a `Fault`, if it is an error of the device.
        notes: What was added to it on its way.
    """

    stream: bytes
    buffers: list[bytes]
    package: str
    text: str
    reason: str
    traceback: str
    process: int
    kinds: tuple[str, ...] = ()
    before: tuple[Any, ...] | None = None
    is_explicit: bool = False
    message: str = ""
    members: tuple[tuple[Any, ...], ...] = ()
    fault: tuple[Any, ...] | None = None
    notes: tuple[str, ...] = ()

    def with_story(self, traceback: str, fault: tuple[Any, ...] | None) -> RemoteError:
        """The same with what is sent of the outermost exception alone."""
        return self._replace(traceback=traceback, fault=fault)


def _packed(error: BaseException) -> tuple[bytes, list[bytes]]:
    payload = pack(error, lambda: "the exception")
    return payload.stream, [bytes(buffer) for buffer in payload.buffers]


class _Parts:
    """Is pickled in the place of an exception whose `__init__` can't be called with its `args`, as pickle would."""

    def __init__(self, error: BaseException) -> None:
        kind = type(error)
        if any(type.__getattribute__(kind, name) not in plain for name, plain in _PLAIN_PICKLING.items()):
            raise TypeError("it says itself how it is pickled")
        self._parts = type.__getattribute__(kind, "__reduce__")(error)

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_parts, self._parts


_PLAIN_PICKLING = {
    "__reduce__": (BaseException.__reduce__, OSError.__reduce__, ImportError.__reduce__),
    "__reduce_ex__": (object.__reduce_ex__,),
    "__setstate__": (BaseException.__setstate__,),
}
_HEAP_TYPE = 1 << 9  # of `type.__flags__`: a class that Python code has defined


def _from_parts(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any] | None = None) -> BaseException:
    """An exception as it was, without its own `__init__`: by that of its first base among Python's exceptions."""
    error = kind.__new__(kind, *args)
    builtin = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    builtin.__init__(error, *args)  # type: ignore[misc]
    for name, value in (state or {}).items():
        object.__setattr__(error, name, value)
    return error


def pack_error(
    error: BaseException, packed: Callable[[BaseException], tuple[bytes, list[bytes]]] = _packed
) -> RemoteError:
    """In the child: an exception as it is sent. It is unpickled here once, to find out whether that works."""
    if isinstance(error, Unguarded):
        return RemoteError(pickle.dumps(RuntimeError(str(error))), [], "", "", "", "", os.getpid())
    with suppress(BaseException):
        strip(error)
    fault = fault_of(error)
    facts = None if fault is None else (fault.kind, fault.reason, fault.code)
    return _pack_all(error, packed, []).with_story(story_of(error), facts)


def _pack_all(
    error: BaseException,
    packed: Callable[[BaseException], tuple[bytes, list[bytes]]],
    outer: list[BaseException],
    is_linked_only: bool = False,
) -> RemoteError:
    """An exception, what it was raised from or during, and the members of a group.

    Args:
        error: The exception.
        packed: Pickles it; may raise.
        outer: Those that led to this one; they may form a circle.
        is_linked_only: It is in the pickle of its group, which lacks only the exceptions before it.
    """
    outer = [*outer, error]
    stream, reason = b"", ""
    buffers: list[bytes] = []
    if not is_linked_only:
        try:
            stream, buffers = packed(error)
            _load(stream, buffers)
        except BaseException as refusal:  # noqa: BLE001 - raised by its class
            reason = describe(refusal)
            try:
                stream, buffers = packed(_Parts(error))  # type: ignore[arg-type]
                _load(stream, buffers)
            except BaseException:  # noqa: BLE001 - the same
                stream, buffers = b"", []
    before, is_explicit = origin_of(error)
    is_new = before is not None and len(outer) < _DEEPEST and not any(each is before for each in outer)
    inner = members_of(error) if len(outer) < _DEEPEST else ()
    return RemoteError(
        stream,
        buffers,
        module_name(type(error)).partition(".")[0],
        describe(error),
        reason,
        "",
        os.getpid(),
        tuple(full_name(kind) for kind in ancestors(type(error))[:-1]),
        tuple(_pack_all(before, packed, outer)) if is_new and before is not None else None,
        is_explicit,
        message_of(error),
        tuple(tuple(_pack_all(each, packed, outer, is_linked_only or bool(stream))) for each in inner),
    )


def error_of(content: Any, label: str) -> tuple[BaseException, Fault | None]:
    """In the parent: the exception, with a note of where it was raised, and the `Fault` of the device, if any.

    One that can't be rebuilt here becomes a `JobError` with its type and text; a group becomes a plain one.
    """
    told = RemoteError(*content)
    fault = None if told.fault is None else Fault(*told.fault)
    error = _rebuild(told, fault)
    if told.traceback:
        add_note(error, f"\nIn the process of {label} (pid {told.process}):\n\n{told.traceback.rstrip()}")
    for note in told.notes:
        add_note(error, note)
    return error, fault


def _rebuild(told: RemoteError, fault: Fault | None = None) -> BaseException:
    reason, error = told.reason, None
    if told.stream:
        if told.package in FRAMEWORKS and told.package not in sys.modules:
            reason = f"{told.package} is not imported here"
        else:
            try:
                error = _load(told.stream, told.buffers)
            except BaseException as refusal:  # noqa: BLE001 - the same; its modules may not be importable here
                reason = describe(refusal)
    if error is None and any(member[_STREAM] or member[_REASON] for member in told.members):
        members = [_rebuild(RemoteError(*member)) for member in told.members]
        error = BaseExceptionGroup(told.message, members)  # an `ExceptionGroup`, if all are of `Exception`
        add_note(error, f"The group itself could not be sent from its process: {reason}")
        _link(error, told, and_members=False)
        return error
    if error is None:
        error = JobError(f"{told.text} (the exception itself could not be sent from its process: {reason})")
        error._kinds = told.kinds
        if fault is not None and fault.kind == "memory":  # the cause marks it as out of memory: batches are halved
            error.__cause__ = RuntimeError(f"CUDA error: out of memory: {fault.reason}")
            return error
    _link(error, told)
    return error


def _link(error: BaseException, told: RemoteError, and_members: bool = True) -> None:
    """Set what an exception was raised from or during, and the same for the members of a group."""
    if told.before is not None:
        before = _rebuild(RemoteError(*told.before))
        if told.is_explicit:
            set_cause(error, before)
        else:
            set_context(error, before)
    elif told.is_explicit:
        set_cause(error, None)  # `from None`
    if and_members:
        for member, inner in zip(members_of(error), told.members, strict=False):
            _link(member, RemoteError(*inner))


def _load(stream: bytes, buffers: list[bytes]) -> BaseException:
    error = pickle.loads(stream, buffers=buffers)  # noqa: S301 - written by ourselves
    if not is_a(error, BaseException):
        raise TypeError(f"it comes back as {type_name(error)}")
    return error
