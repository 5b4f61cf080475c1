"""The frames that go between a slot's thread and its child. Pure: no descriptors, no state.

Requests are frames of one fixed size, so that one read takes exactly one of them, whoever reads: the child, or the
parent that takes back what the child has not begun. Answers are no longer than what a pipe takes in one piece, so that
a child that is killed while it writes leaves a whole answer or none.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAME = 512  # bytes of a request; a page of a socket's memory holds a whole number of them
LONGEST_ANSWER = 4096  # PIPE_BUF of Linux

_REQUEST = Struct("<BBBxHxxQQ")  # kind, segments let go of, segment, bytes in the frame, bytes in the segment, number
_ANSWER = Struct("<BBBxHxxQQdd")  # the same, and when the call began and ended
ROOM_IN_REQUEST = FRAME - _REQUEST.size
ROOM_IN_ANSWER = LONGEST_ANSWER - _ANSWER.size
NOWHERE = 255  # instead of a segment: everything is in the frame


class Ask(IntEnum):
    """What the parent wants of its child."""

    CALL = 1
    GO = 2  # unload everything and end


class Tell(IntEnum):
    """What a child says."""

    READY = 1
    RETURNED = 2
    RAISED = 3
    LOADED = 4
    NOT_LOADED = 5
    REPORTED = 6
    LOGGED = 7


class Load(NamedTuple):
    """What a frame carries: in itself, or `length` bytes in a `segment` of shared memory, as `segments` numbers it."""

    inline: bytes = b""
    segment: int = NOWHERE
    length: int = 0


class Request(NamedTuple):
    """One frame to the child; `number` counts its requests, `freed` says which segments the parent has let go of."""

    kind: int
    freed: int
    number: int
    load: Load


class Answer(NamedTuple):
    """One frame to the parent, about the request `number`; `began` and `ended` are seconds of the monotonic clock."""

    kind: int
    freed: int
    number: int
    load: Load
    began: float
    ended: float


def request(kind: Ask, freed: int, number: int, load: Load) -> bytes:
    """A request as bytes."""
    inline, segment, length = load
    return (_REQUEST.pack(kind, freed, segment, len(inline), length, number) + inline).ljust(FRAME, b"\0")


def read_request(frame: bytes) -> Request:
    """The request in the bytes of one frame."""
    kind, freed, segment, size, length, number = _REQUEST.unpack_from(frame)
    start = _REQUEST.size
    return Request(kind, freed, number, Load(frame[start : start + size], segment, length))


def answer(kind: Tell, freed: int, number: int, load: Load, began: float, ended: float) -> bytes:
    """An answer as bytes."""
    inline, segment, length = load
    return _ANSWER.pack(kind, freed, segment, len(inline), length, number, began, ended) + inline


def read_answers(stream: bytearray) -> Iterator[Answer]:
    """Take the whole answers from the head of a stream; what is left waits for more."""
    head = _ANSWER.size
    while len(stream) >= head:
        kind, freed, segment, size, length, number, began, ended = _ANSWER.unpack_from(stream)
        if len(stream) < head + size:
            return
        inline = bytes(stream[head : head + size])
        del stream[: head + size]
        yield Answer(kind, freed, number, Load(inline, segment, length), began, ended)
