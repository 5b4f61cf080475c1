"""Pickles objects with large buffers out of band (pickle protocol 5).

NumPy arrays pass their memory to pickle as buffers, CPU tensors do by `tensors`. Imports neither numpy nor torch.
"""

from __future__ import annotations

import pickle
from contextlib import suppress
from functools import partial
from pickle import dumps
from struct import pack, unpack_from
from sys import modules
from typing import TYPE_CHECKING, Any, NamedTuple

from director._ipc import tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE = 1 << 20  # bytes from which a buffer goes out of band: below, a copy costs less than a mapping
PROTOCOL = 5
_SCALARS = frozenset({int, float, bool, str, type(None)})
_ALIGNED = 64  # bytes; suits vector instructions


class Payload(NamedTuple):
    """One pickled object: the pickle, and views of the large buffers of the object that are out of band."""

    stream: bytes
    buffers: list[memoryview]

    def pieces(self) -> Iterator[tuple[int, bytes | memoryview]]:
        """All parts with their offsets in a segment: a table of sizes, the stream, the buffers."""
        parts: list[bytes | memoryview] = [self.stream, *self.buffers]
        sizes = [len(part) << 1 | (isinstance(part, memoryview) and part.readonly) for part in parts]
        table = pack(f"<{len(parts) + 1}Q", len(parts), *sizes)
        yield 0, table
        offset = len(table)
        for part in parts:
            offset = _round_up(offset)
            yield offset, part
            offset += len(part)


def wrap(value: Any, by_value: bool = False) -> Payload:
    """`value` as a payload.

    Args:
        value: Anything.
        by_value: Send classes and functions by value, with cloudpickle.

    Raises:
        BaseException: It can't be pickled; its class may raise anything.
    """
    if type(value) in _SCALARS:
        return Payload(dumps(value, PROTOCOL), [])
    buffers: list[memoryview] = []
    is_small = partial(_is_small, buffers)
    if by_value:
        import cloudpickle

        stream = tensors.dumps(cloudpickle.Pickler, value, PROTOCOL, is_small)
    elif "torch" in modules and tensors.are_possible():
        stream = tensors.dumps(pickle.Pickler, value, PROTOCOL, is_small)
    else:
        stream = dumps(value, PROTOCOL, buffer_callback=is_small)
    return Payload(stream, buffers)


def unwrap(memory: memoryview) -> Any:
    """The object in a segment; it may keep using the memory."""
    (count,) = unpack_from("<Q", memory)
    sizes = unpack_from(f"<{count}Q", memory, 8)
    offset = 8 * (count + 1)
    parts = []
    for size in sizes:
        offset = _round_up(offset)
        part = memory[offset : offset + (size >> 1)]
        parts.append(part.toreadonly() if size & 1 else part)
        offset += size >> 1
    with parts[0] as stream:
        return pickle.loads(stream, buffers=parts[1:])  # noqa: S301 - written by our own child or parent


def can_send_by_value() -> bool:
    """Whether cloudpickle is installed."""
    with suppress(ImportError):
        import cloudpickle  # noqa: F401

        return True
    return False


def _is_small(buffers: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    """Whether pickle puts a buffer into the stream; else it is added to `buffers`."""
    try:
        raw = buffer.raw()
    except BufferError:  # not contiguous
        return True
    if len(raw) < LARGE:
        return True
    buffers.append(raw)
    return False


def _round_up(offset: int) -> int:
    return -(-offset // _ALIGNED) * _ALIGNED
