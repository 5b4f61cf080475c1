"""The messages between a slot's thread and its child, as bytes. Pure; docs/explanation/wire.md describes them."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from director._ipc.protocol import Facts

INLINE = 1 << 15  # most bytes of content in a message; longer content goes into a segment

_REQUEST = Struct("<QBBBxiiQQqQd")
_ANSWER = Struct("<QQBBxxQdd")
_NUMBER = Struct("<Q")
LONGEST = INLINE + _REQUEST.size
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1

assert _REQUEST.size >= _ANSWER.size


class WireBroken(Exception):
    """A message breaks the protocol: no later message from the other side can be trusted."""


class RequestKind(IntEnum):
    """What the parent asks of its child."""

    FIRST_CALL = 1  # make a call: the content has the function, model and arguments
    CALL = 2  # call a function that the child knows; the content has its arguments
    EXIT = 3  # unload all models and exit


class AnswerKind(IntEnum):
    """What a child answers."""

    READY = 1
    RETURNED = 2
    RAISED = 3
    LOADED = 4
    NOT_LOADED = 5
    REPORTED = 6
    LOGGED = 7
    YIELDED = 8
    NOT_READ = 9


class Answer(NamedTuple):
    """A message from a child about the call `number`; `began` and `ended` are seconds of the monotonic clock.

    `descriptor` is that of the segment: -1 if there is none, or if it was not received.
    """

    sequence: int
    number: int
    kind: int
    segments: int
    length: int
    began: float
    ended: float
    content: bytes
    descriptor: int


CONTENT = _REQUEST.size  # where the content of a request begins


def request(
    kind: int,
    style: int,
    function: int,
    model: int,
    facts: Facts,
    tenant: bytes = b"",
    length: int = 0,
    content: bytes = b"",
) -> bytes:
    """A request as bytes, with the number 0: see `renumbered`.

    Args:
        kind: A `RequestKind`.
        style: A `CallStyle`.
        function: The function's number, or `UNNUMBERED`.
        model: The model's number, or `UNNUMBERED`.
        facts: Of the job; the priority is clamped to 64 bits.
        tenant: What `packed_tenant` returns.
        length: Bytes in the segment; 0 if there is none.
        content: What is not in a segment.
    """
    number_of_job, priority, attempts, waited = facts
    facts_of_job = number_of_job, min(max(priority, _LEAST), _MOST), attempts, waited
    segments = 1 if length else 0
    head = _REQUEST.pack(0, kind, segments, style, function, model, length or len(content), *facts_of_job)
    return head + content + tenant


def renumbered(number: int, message: bytes) -> bytes:
    """The same request with another number."""
    return _NUMBER.pack(number) + message[_NUMBER.size :]


request_head = _REQUEST.unpack_from
"""Of a request: number, kind, segments, style, function, model, length, and the four `Facts`.

Behind it come `length` bytes of content, unless they are in a segment, and then the tenant.
"""


answer_head = _ANSWER.pack
"""Of an answer, before its content: sequence, number, kind, segments, length, began, ended."""


def read_answer(message: memoryview, descriptors: list[int]) -> Answer:
    """Parse an answer.

    Raises:
        WireBroken: It is malformed.
    """
    if len(message) < _ANSWER.size:
        raise WireBroken(f"an answer of {len(message)} bytes")
    head = _ANSWER.unpack_from(message)
    if len(descriptors) > head[3]:
        raise WireBroken(f"{len(descriptors)} descriptors in a message that says {head[3]}")
    content, descriptor = bytes(message[_ANSWER.size :]), descriptors[0] if descriptors else -1
    sequence, number, kind, segments, length, began, ended = head
    return Answer(sequence, number, kind, segments, length, began, ended, content, descriptor)
