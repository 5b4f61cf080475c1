"""A pickled value on its way through processes that never unpickle it: an argument of a call, or its result.

A small one is its pickle, bytes that are sent within a message. A large one is a `Body`.
"""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any, TypeAlias

from director._ipc.by_name import pack
from director._ipc.frames import INLINE
from director._ipc.pickling import PROTOCOL, Payload, parts, wrap
from director._ipc.shared_memory import filled, mapped, read

if TYPE_CHECKING:
    from collections.abc import Callable

ROOM = INLINE // 2  # most bytes that are sent within a message; the rest of it is for the head
Content: TypeAlias = "bytes | Body"
"""A pickled value."""


def content_of(value: Any, what: Callable[[], str], is_stranger: bool = False) -> Content:
    """Pickle a value.

    Args:
        value: Anything.
        what: Its name in errors.
        is_stranger: The other side can't import this process's main module.

    Raises:
        PicklingError: It can't be pickled.
    """
    payload = pack(value, what, is_stranger)
    return Body(payload) if payload.buffers or len(payload.stream) > ROOM else payload.stream


def plain_content(value: Any) -> Content:
    """Pickle a value of the package's own."""
    payload = wrap(value)
    return Body(payload) if payload.buffers or len(payload.stream) > ROOM else payload.stream


def loaded(content: Content) -> Any:
    """Unpickle a value; each call returns a new one.

    Raises:
        OSError: There is no memory or no descriptor left.
        BaseException: It can't be unpickled here.
    """
    return pickle.loads(content) if type(content) is bytes else content.load()  # type: ignore[union-attr]  # noqa: S301 - of this user's processes


def reference_of(content: Content) -> bytes:
    """One pickle, which gives back the value or its `Body`: a key for what is unpickled once."""
    return content if type(content) is bytes else pickle.dumps(content, PROTOCOL)


class Body:
    """A large value, which is copied once, into a segment of shared memory whose descriptor it owns.

    Any thread may use it; not two at once.

    Args:
        payload: The pickle and its large buffers, of a value that is sent; `None` of one that was received.
        descriptor: Of a received segment; -1 for none.
        length: Bytes in that.
    """

    __slots__ = ("_payload", "descriptor", "length")

    def __init__(self, payload: Payload | None, descriptor: int = -1, length: int = 0) -> None:
        self._payload = payload
        self.descriptor = descriptor
        self.length = length

    @property
    def size(self) -> int:
        """Bytes."""
        if self._payload is None:
            return self.length
        return len(self._payload.stream) + sum(map(len, self._payload.buffers))

    def fill(self) -> None:
        """Copy it into a segment, after which changes of the value have no effect.

        Raises:
            OSError: There is no memory or no descriptor left.
        """
        if self._payload is None:
            return
        with filled(self._payload) as (descriptor, length):
            self.descriptor, self.length = os.dup(descriptor), length
        self._payload = None

    def load(self) -> Any:
        """See `loaded`."""
        if self._payload is None:
            return read(os.dup(self.descriptor), self.length)
        return pickle.loads(self._payload.stream, buffers=self._payload.buffers)  # noqa: S301 - of this user's processes

    def __reduce__(self) -> Any:
        payload = self._payload
        if payload is None:
            payload = _payload_of(os.dup(self.descriptor), self.length)
        return _rebuilt, (payload.stream, [pickle.PickleBuffer(buffer) for buffer in payload.buffers])

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _rebuilt(stream: bytes, buffers: list[Any]) -> Body:
    return Body(Payload(stream, [memoryview(buffer) for buffer in buffers]))


def _payload_of(descriptor: int, length: int) -> Payload:
    try:
        stream, *buffers = parts(mapped(descriptor, length))
    finally:
        os.close(descriptor)
    return Payload(bytes(stream), buffers)
