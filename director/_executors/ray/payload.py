"""Pickles the user's values for Ray, outside of Ray's own pickling.

Ray would unpickle on threads of its own, take an exception of a class in the value for a failure of its task, and end
the actor for a `SystemExit`. Large buffers stay beside the pickle, so that the object store has arrays once and they
are read there. Ray's references are listed beside it too, so that Ray counts them.
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
_MOST_PARTS = 200  # that `runs_no_code` checks
_LONGEST = 1 << 20  # bytes of the arguments of a prefetched call, which may be given back


class _Unpickling(threading.local):
    references: list[Any] = []  # noqa: RUF012 - replaced by each `unpack`, never changed


_unpickling = _Unpickling()


def pack(value: Any) -> Payload:
    """Pickle `value` by Ray's own cloudpickle: what the other side can't import, by value.

    Raises:
        BaseException: It can't be pickled; of any kind, because classes in it may raise.
    """
    if type(value) in _SCALARS:
        return pickle.dumps(value, 5), [], []
    file, buffers, references = io.BytesIO(), [], []  # type: ignore[var-annotated]
    _packer()(file, buffers, references).dump(value)
    return file.getvalue(), buffers, references


def pack_named(value: Any, what: str) -> Payload:
    """Pickle `value`, which errors call `what`.

    Raises:
        PicklingError: It can't be pickled.
    """
    try:
        return pack(value)
    except BaseException as error:
        raise unsendable(what, error) from error


def unpack(payload: Payload) -> Any:
    """Unpickle a value.

    Raises:
        BaseException: It can't be unpickled here.
    """
    stream, buffers, references = payload
    before, _unpickling.references = _unpickling.references, references
    try:
        return pickle.loads(stream, buffers=buffers)  # noqa: S301 - from our own driver or actor
    finally:
        _unpickling.references = before


def is_reference(value: Any) -> bool:
    """Whether it is a reference of Ray."""
    from ray import ObjectRef

    return type(value) is ObjectRef


def runs_no_code(values: tuple[Any, ...]) -> bool:
    """Whether packing these runs no code of the user's: plain values, arrays of numbers, and lists and dicts of them.

    False also for large values.
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
    """The error for a value that can't be sent."""
    text = reason if isinstance(reason, str) else describe(reason)
    return pickle.PicklingError(f"{what} can't be sent to another machine: {text}. Send plain values, or arrays")


def _reference(index: int) -> Any:
    return _unpickling.references[index]


@cache
def _packer() -> Any:
    """The class of our pickler; made once Ray is imported."""
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
