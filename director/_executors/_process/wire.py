"""The frames that go between a slot's thread and its child. Pure: no descriptors, no state.

Requests are frames of one fixed size, so that one read takes exactly one of them, whoever reads: the child, or the
parent that takes back what the child has not begun. Answers are no longer than what a pipe takes in one piece, so that
a child that is killed while it writes leaves a whole answer or none.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

FRAME = 512  # bytes of a request; a page of a socket's memory holds a whole number of them
LONGEST_ANSWER = 4096  # PIPE_BUF of Linux

_HEAD = Struct("<BBBxHxxiiQQ")
_FACTS = Struct("<QqQd")
_ANSWER = Struct("<BBBxHxxQQdd")
INLINE = _HEAD.size + _FACTS.size  # where the content of a request begins
ROOM_IN_REQUEST = FRAME - INLINE
ROOM_IN_ANSWER = LONGEST_ANSWER - _ANSWER.size
NOWHERE = 255  # instead of a segment: everything is in the frame
UNNUMBERED = -1  # instead of the number of a function or model


class Ask(IntEnum):
    """What the parent wants of its child."""

    MEET = 1  # make a call: everything about it is in the content
    CALL = 2  # make a call of a function that the child has met; the content is its arguments
    GO = 3  # unload everything and end


class Tell(IntEnum):
    """What a child says."""

    READY = 1
    RETURNED = 2
    RAISED = 3
    LOADED = 4
    NOT_LOADED = 5
    REPORTED = 6
    LOGGED = 7
    YIELDED = 8


class How(IntEnum):
    """How a function is called."""

    USUALLY = 0  # with its resource first
    BARELY = 1  # without
    AS_STREAM = 2  # it makes a generator


class Load(NamedTuple):
    """What a frame carries: in itself, or `length` bytes in a `segment` of shared memory, as `segments` numbers it."""

    inline: bytes = b""
    segment: int = NOWHERE
    length: int = 0


EMPTY = Load()


class Facts(NamedTuple):
    """What a child may tell a job about itself."""

    id: int
    priority: int
    attempts: int
    waited: float


NOBODY = Facts(0, 0, 0, 0.0)


class Answer(NamedTuple):
    """One frame to the parent, about the request `number`; `began` and `ended` are seconds of the monotonic clock."""

    kind: int
    freed: int
    number: int
    load: Load
    began: float
    ended: float


def request(kind: Ask, freed: int, number: int, function: int, model: int, facts: Facts, load: Load) -> bytes:
    """A request as bytes.

    Args:
        kind: What is wanted.
        freed: Which segments the parent has let go of, as bits.
        number: Counts the requests.
        function: Its number.
        model: The same.
        facts: Of the job.
        load: The content.
    """
    inline, segment, length = load
    head = _HEAD.pack(kind, freed, segment, len(inline), function, model, length, number)
    return (head + _FACTS.pack(*facts) + inline).ljust(FRAME, b"\0")


head_of = _HEAD.unpack_from
"""Of the bytes of a request: kind, freed, segment, bytes at `INLINE`, function, model, length in the segment, number.

A plain tuple: the child reads one between any two calls.
"""


def facts_of(frame: bytes) -> Facts:
    """Of the bytes of a request: what its job may know."""
    return Facts(*_FACTS.unpack_from(frame, _HEAD.size))


def answer(kind: int, freed: int, number: int, load: Load, began: float, ended: float) -> bytes:
    """An answer as bytes."""
    inline, segment, length = load
    return _ANSWER.pack(kind, freed, segment, len(inline), length, number, began, ended) + inline


answer_head = _ANSWER.pack
"""Of an answer, before its content: kind, freed, segment, bytes after it, length in the segment, number, times."""


def read_answers(stream: bytes) -> list[Answer]:
    """The answers in what one read has brought: always whole ones, for each was written in one piece."""
    answers, end, head = [], 0, _ANSWER.size
    while end < len(stream):
        kind, freed, segment, size, length, number, began, ended = _ANSWER.unpack_from(stream, end)
        start, end = end + head, end + head + size
        load = EMPTY if segment == NOWHERE and not size else Load(stream[start:end], segment, length)
        answers.append(Answer(kind, freed, number, load, began, ended))
    return answers
