"""What goes between a slot's thread and its actor; docs/explanation/wire.md describes it. Pure.

Ray sees tuples of plain values, buffers and its own references. What is the user's travels packed (`payload`), so that
it is pickled and unpickled by `director`, within the call that it belongs to.
"""

from __future__ import annotations

import pickle
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from director._device import Device

Payload: TypeAlias = "tuple[bytes, list[Any], list[Any]]"
"""A packed value: its pickle, the buffers beside it, and Ray's references in it."""


class AnswerKind(IntEnum):
    """What became of a call."""

    RETURNED = 1
    RAISED = 2
    NOT_LOADED = 3
    WITHDRAWN = 4  # it has not begun and never will
    UNSENDABLE = 5  # what it returned can't be sent; the payload says why
    NOT_READ = 6  # its arguments could not be read, so the function was not called


class NoteKind(IntEnum):
    """What an actor tells beside its answers."""

    LOGGED = 1
    REPORTED = 2
    YIELDED = 3
    DROPPED = 4  # the payload is how many notes were


WITHDRAW = 3
"""A request beside the values of `Notice`: forget a call unless it has begun."""


class FirstUse(NamedTuple):
    """What an actor must have once.

    Args:
        device: As its jobs know it.
        function: Pickled; empty if it is known.
        recipe: How to load the model, pickled; empty if there is none, or it is known.
    """

    device: Device
    function: bytes
    recipe: bytes


class CallHeader(NamedTuple):
    """One call, but for its arguments.

    Args:
        number: Counts the calls of a slot.
        function, model: Their numbers.
        name: The job's.
        facts: What the job may ask about itself: id, priority, attempts, seconds waited.
        style: A `CallStyle`, as of a call to a child.
        introduction: If the actor may need one.
        awaited: Positions of the arguments that are references of Ray's: the function gets their values.
    """

    number: int
    function: int
    model: int
    name: str
    facts: tuple[int, int, int, float]
    style: int
    introduction: FirstUse | None
    awaited: tuple[int, ...]


class Note(NamedTuple):
    """One thing that an actor tells beside its answers.

    Args:
        number: Of its call; 0 for a log record.
        kind: A `NoteKind`.
        place: Of the values of a stream, or of the reports of an actor: counted from 0.
        payload: The content.
    """

    number: int
    kind: int
    place: int
    payload: Payload


class Answer(NamedTuple):
    """What became of a call.

    Args:
        number: Of the call.
        kind: An `AnswerKind`.
        began, ended: Seconds of the actor's clock.
        loaded: The models that were loaded for the call: their numbers, and the seconds that each took.
        values: How many values the stream has given.
        told: How many notes the actor has told before it, other than those in it.
        payload: The result (of a batch what `items.apart` makes of it) or a `RemoteError`; `None` for neither.
        notes: What was not told yet.
    """

    number: int
    kind: int
    began: float = 0.0
    ended: float = 0.0
    loaded: tuple[tuple[int, float], ...] = ()
    values: int = 0
    told: int = 0
    payload: Payload | None = None
    notes: tuple[Note, ...] = ()


class Hardware(NamedTuple):
    """What an actor computes on: the same for all actors of a device.

    Args:
        accelerators: The numbers of those that Ray has given it, on its node, in order.
        devices: The GPUs that it sees, in CUDA's order.
    """

    accelerators: tuple[str, ...]
    devices: tuple[Device, ...]


def encode_answer(answer: Answer) -> bytes | tuple[Any, ...]:
    """What an actor returns for a call: bytes, which Ray carries at half the cost, unless there are buffers in it."""
    notes = tuple(map(tuple, answer.notes))
    fields = (*answer[:-1], notes)
    payloads = [answer.payload, *(note.payload for note in answer.notes)]
    return fields if any(each is not None and (each[1] or each[2]) for each in payloads) else pickle.dumps(fields)


def decode_answer(content: bytes | tuple[Any, ...]) -> Answer:
    """The answer again."""
    answer = Answer(*_fields(content))
    return answer._replace(notes=tuple(Note(*note) for note in answer.notes))


def encode_notes(notes: list[Note]) -> bytes | tuple[Any, ...]:
    """What an actor returns when it is asked for notes."""
    fields = tuple(map(tuple, notes))
    return fields if any(note.payload[1] or note.payload[2] for note in notes) else pickle.dumps(fields)


def decode_notes(content: bytes | tuple[Any, ...]) -> list[Note]:
    """The notes again."""
    return [Note(*note) for note in _fields(content)]


def _fields(content: bytes | tuple[Any, ...]) -> tuple[Any, ...]:
    return pickle.loads(content) if type(content) is bytes else content  # type: ignore[return-value]  # noqa: S301
