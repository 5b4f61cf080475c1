"""What a batch returned, on its way from a child or an actor: an item that can't be sent fails alone."""

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
    """One item as a child sends it."""
    stream, buffers = pack(value, lambda: "the result")
    return stream, [pickle.PickleBuffer(buffer) for buffer in buffers]


def _from_parts(parts: Any) -> Any:
    stream, buffers = parts
    return pickle.loads(stream, buffers=buffers)  # noqa: S301 - of our own child


def apart(values: Any, story: Callable[[BaseException], Any], packed: Callable[[Any], Any] = _as_parts) -> Any:
    """On the far side: the content of an answer. A list or tuple of other than plain values goes item by item.

    Args:
        values: What the function returned.
        story: Makes of an exception what `error_of` reads.
        packed: Makes of one item what can be pickled whatever it is; may raise.
    """
    kind = type(values)
    if not (kind is list or kind is tuple) or all(type(value) in _PLAIN for value in values):
        return (values,)
    return [_told(value, story, packed) for value in values]


def joined(content: Any, name: str, label: str, unpacked: Callable[[Any], Any] = _from_parts) -> Any:
    """On the near side: what the function returned; an exception stands for an item that could not be sent or read.

    Args:
        content: Of the answer.
        name: Of the job.
        label: Of the device.
        unpacked: Makes an item of what `packed` has made; may raise.
    """
    if type(content) is tuple:
        return content[0]
    return [_value(is_value, item, name, label, unpacked) for is_value, item in content]


def _told(value: Any, story: Callable[[BaseException], Any], packed: Callable[[Any], Any]) -> tuple[bool, Any]:
    """Whether it goes as a value, and what is sent of it."""
    try:
        if is_a(value, Exception):  # its class may refuse to be rebuilt there
            return False, story(value)
        return True, packed(value)
    except Exception as error:  # noqa: BLE001 - whatever its class raises
        return False, story(error)
    except BaseException as error:  # noqa: BLE001 - the same: as a value it would pass for a result
        return False, story(pickle.PicklingError(f"the result can't be sent to another process: {describe(error)}"))


def _value(is_value: bool, content: Any, name: str, label: str, unpacked: Callable[[Any], Any]) -> Any:
    try:
        return unpacked(content) if is_value else error_of(content, label)[0]
    except BaseException as refusal:  # noqa: BLE001 - whatever its class raises
        return pickle.PicklingError(f"the result of {name} can't be unpickled: {describe(refusal)}")
