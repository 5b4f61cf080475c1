"""Values of the user's on their way: packed and unpacked by `director` itself, never within Ray.

Ray would unpickle on threads of its own, take an exception that a class raises for a fault of its task, and end the
actor for a `SystemExit`. What is large in a value stays beside its pickle, so that arrays lie in the object store
once and are read there; Ray's references are listed beside it too, so that Ray knows who holds them.
"""

from __future__ import annotations

import io
import pickle
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from director._untrusted.objects import describe

if TYPE_CHECKING:
    from director._executors.ray.messages import Payload

_SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes})
_MOST_PARTS = 200  # of an argument that is looked through
_LONGEST = 1 << 20  # bytes of arguments that are sent ahead: more would lie in the object store for nothing


class _Open(threading.local):
    references: list[Any] = []  # noqa: RUF012 - replaced by each `unpack`, never changed


_open = _Open()


def pack(value: Any) -> Payload:
    """Pickle `value` by Ray's own cloudpickle: what the other side can't import goes by value.

    Raises:
        BaseException: It can't be done; which one, is up to the class of what is in it.
    """
    if type(value) in _SCALARS:
        return pickle.dumps(value, 5), [], []
    file, buffers, references = io.BytesIO(), [], []  # type: ignore[var-annotated]
    _packer()(file, buffers, references).dump(value)
    return file.getvalue(), buffers, references


def pack_named(value: Any, what: str) -> Payload:
    """Pickle `value`, and raise nothing but a `PicklingError` that says `what` it is.

    Raises:
        PicklingError: It can't be done.
    """
    try:
        return pack(value)
    except BaseException as error:
        raise unsendable(what, error) from error


def unpack(payload: Payload) -> Any:
    """The value again.

    Raises:
        BaseException: It can't be made here.
    """
    stream, buffers, references = payload
    before, _open.references = _open.references, references
    try:
        return pickle.loads(stream, buffers=buffers)  # noqa: S301 - of our own driver or actors
    finally:
        _open.references = before


def is_reference(value: Any) -> bool:
    """Whether it is a reference of Ray's."""
    from ray import ObjectRef

    return type(value) is ObjectRef


def runs_no_code(values: tuple[Any, ...]) -> bool:
    """Whether packing these runs no code of the user's: plain values, arrays of numbers, and lists and dicts of them.

    False also for what is large.
    """
    numpy: Any = sys.modules.get("numpy")
    array = None if numpy is None else getattr(numpy, "ndarray", None)
    waiting, parts, size = [*values], 0, 0
    while waiting:
        value, parts = waiting.pop(), parts + 1
        kind = type(value)
        if kind in _SCALARS:
            size += len(value) if kind is str or kind is bytes else 8
        elif kind is tuple or kind is list:
            waiting += value[:_MOST_PARTS]
            parts += max(0, len(value) - _MOST_PARTS)
        elif kind is dict:
            parts += len(value)
            if parts <= _MOST_PARTS:
                waiting += [*value.keys(), *value.values()]
        elif kind is array and array is not None:
            if value.dtype.hasobject:
                return False
            size += value.nbytes
        elif not is_reference(value):
            return False
        if parts > _MOST_PARTS or size > _LONGEST:
            return False
    return True


def unsendable(what: str, reason: BaseException | str) -> pickle.PicklingError:
    """The error of what could not be sent."""
    told = reason if isinstance(reason, str) else describe(reason)
    return pickle.PicklingError(f"{what} can't be sent to another machine: {told}. Send plain values, or arrays")


def _reference(place: int) -> Any:
    return _open.references[place]


@cache
def _packer() -> Any:
    """The class of our pickler; made when Ray is there."""
    from ray import ObjectRef, cloudpickle

    base: Any = cloudpickle.CloudPickler

    class Packer(base):  # type: ignore[misc]
        """Ray's cloudpickle, with buffers and references listed beside the pickle."""

        def __init__(self, file: io.BytesIO, buffers: list[Any], references: list[Any]) -> None:
            super().__init__(file, protocol=5, buffer_callback=buffers.append)
            self._references = references

        def reducer_override(self, value: Any) -> Any:
            if type(value) is ObjectRef:
                self._references.append(value)
                return _reference, (len(self._references) - 1,)
            return super().reducer_override(value)

    return Packer
