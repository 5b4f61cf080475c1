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
_PLAIN = _SCALARS | {bytes}
_ALIGNED = 64  # bytes; suits vector instructions


class Payload(NamedTuple):
    """One pickled object: the pickle, and views of the large buffers of the object that are out of band."""

    stream: bytes
    buffers: list[memoryview]

    def pieces(self) -> Iterator[tuple[int, bytes | memoryview]]:
        """All parts with their offsets in a segment: a table of sizes, the stream, the buffers."""
        pieces: list[bytes | memoryview] = [self.stream, *self.buffers]
        sizes = [len(part) << 1 | (isinstance(part, memoryview) and part.readonly) for part in pieces]
        table = pack(f"<{len(pieces) + 1}Q", len(pieces), *sizes)
        yield 0, table
        offset = len(table)
        for part in pieces:
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
    elif ("numpy" in modules or ("torch" in modules and tensors.are_possible())) and not _is_plain(value):
        stream = tensors.dumps(pickle.Pickler, value, PROTOCOL, is_small)
    else:
        try:
            stream = dumps(value, PROTOCOL, buffer_callback=is_small)
        except TypeError as error:
            if "memoryview" not in str(error):
                raise
            buffers.clear()
            stream = tensors.dumps(pickle.Pickler, value, PROTOCOL, is_small)
    return Payload(stream, buffers)


def _is_plain(value: Any) -> bool:
    """Whether there is no array or tensor in it, at a glance."""
    kind = type(value)
    return (kind is tuple or kind is list) and all(type(each) in _PLAIN for each in value)


def unwrap(memory: memoryview) -> Any:
    """The object in a segment; it may keep using the memory."""
    stream, *buffers = parts(memory)
    with stream:
        return pickle.loads(stream, buffers=buffers)  # noqa: S301 - written by our own child or parent


def parts(memory: memoryview) -> list[memoryview]:
    """The stream and the buffers in a segment, as views of it."""
    (count,) = unpack_from("<Q", memory)
    sizes = unpack_from(f"<{count}Q", memory, 8)
    offset = 8 * (count + 1)
    found = []
    for size in sizes:
        offset = _round_up(offset)
        part = memory[offset : offset + (size >> 1)]
        found.append(part.toreadonly() if size & 1 else part)
        offset += size >> 1
    return found


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
