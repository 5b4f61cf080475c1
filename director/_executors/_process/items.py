"""What a batch returned, on its way to the parent: item by item, so that what is wrong with one harms no other."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from director._executors._process.raised import error_of
from director._executors._process.references import describe, pack
from director._user_objects import is_a

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN = frozenset({int, float, bool, complex, str, bytes, type(None)})


def apart(values: Any, story: Callable[[BaseException], Any]) -> Any:
    """In the child: the content of an answer. A list or tuple of other than plain values goes item by item.

    Args:
        values: What the function returned.
        story: Makes of an exception what `error_of` reads.
    """
    kind = type(values)
    if not (kind is list or kind is tuple) or all(type(value) in _PLAIN for value in values):
        return (values,)
    return [_packed(value, story) for value in values]


def joined(content: Any, name: str, label: str) -> Any:
    """In the parent: what the function returned; an exception stands for an item that could not be sent or read.

    Args:
        content: Of the answer.
        name: Of the job.
        label: Of the device.
    """
    return content[0] if type(content) is tuple else [_value(stream, rest, name, label) for stream, rest in content]


def _packed(value: Any, story: Callable[[BaseException], Any]) -> tuple[bytes | None, Any]:
    try:
        if is_a(value, Exception):  # its class may refuse to be rebuilt there
            return None, story(value)
        stream, buffers = pack(value, lambda: "the result")
    except Exception as error:  # noqa: BLE001 - whatever its class raises
        return None, story(error)
    except BaseException as error:  # noqa: BLE001 - the same: as a value it would pass for a result
        return None, story(pickle.PicklingError(f"the result can't be sent to another process: {describe(error)}"))
    return stream, [pickle.PickleBuffer(buffer) for buffer in buffers]


def _value(stream: bytes | None, rest: Any, name: str, label: str) -> Any:
    try:
        return error_of(rest, label)[0] if stream is None else pickle.loads(stream, buffers=rest)  # noqa: S301 - ours
    except BaseException as refusal:  # noqa: BLE001 - whatever its class raises
        return pickle.PicklingError(f"the result of {name} can't be unpickled: {describe(refusal)}")
