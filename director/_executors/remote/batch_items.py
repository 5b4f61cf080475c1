"""Sends the results of a batch from a child or an actor: an item that can't be sent fails alone."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from director._ipc.by_name import describe, pack
from director._ipc.exceptions import error_of
from director._untrusted.objects import is_a

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN = frozenset({int, float, bool, complex, str, bytes, type(None)})


def _as_parts(value: Any) -> Any:
    """One item, pickled as a child sends it."""
    stream, buffers = pack(value, lambda: "the result")
    return stream, [pickle.PickleBuffer(buffer) for buffer in buffers]


def _from_parts(parts: Any) -> Any:
    stream, buffers = parts
    return pickle.loads(stream, buffers=buffers)  # noqa: S301 - of our own child


def pack_items(
    values: Any, pack_error: Callable[[BaseException], Any], packed: Callable[[Any], Any] = _as_parts
) -> Any:
    """In the other process: the content of an answer. A list or tuple is pickled by item, unless all are plain.

    Args:
        values: What the function returned.
        pack_error: Makes of an exception what `error_of` reads.
        packed: Pickles one item; may raise.
    """
    kind = type(values)
    if not (kind is list or kind is tuple) or all(type(value) in _PLAIN for value in values):
        return (values,)
    return [_packed_item(value, pack_error, packed) for value in values]


def unpack_items(content: Any, name: str, label: str, unpacked: Callable[[Any], Any] = _from_parts) -> Any:
    """In the parent: what the function returned, with exceptions for items that could not be sent or read.

    Args:
        content: The content of the answer.
        name: The job's name.
        label: The device's label.
        unpacked: Unpickles what `packed` has made; may raise.
    """
    if type(content) is tuple:
        return content[0]
    return [_value(is_value, item, name, label, unpacked) for is_value, item in content]


def _packed_item(
    value: Any, pack_error: Callable[[BaseException], Any], packed: Callable[[Any], Any]
) -> tuple[bool, Any]:
    """Whether an item is sent as a value, and what is sent."""
    try:
        if is_a(value, Exception):  # its class may not unpickle
            return False, pack_error(value)
        return True, packed(value)
    except Exception as error:  # noqa: BLE001 - raised by its class
        return False, pack_error(error)
    except BaseException as error:  # noqa: BLE001 - the same; sent as it is, it would be no `Exception`
        return False, pack_error(
            pickle.PicklingError(f"the result can't be sent to another process: {describe(error)}")
        )


def _value(is_value: bool, content: Any, name: str, label: str, unpacked: Callable[[Any], Any]) -> Any:
    try:
        return unpacked(content) if is_value else error_of(content, label)[0]
    except BaseException as refusal:  # noqa: BLE001 - whatever its class raises
        return pickle.PicklingError(f"the result of {name} can't be unpickled: {describe(refusal)}")
