"""The messages between a slot's thread and its actor; docs/explanation/wire.md describes them. Pure.

Ray gets tuples of plain values, buffers and its own references. The user's values are packed by `payload`, so that
`director` pickles and unpickles them, within the call to which they belong.
"""

from __future__ import annotations

import pickle
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from director._device import Device
    from director._devices.footprints import LoadSize

Payload: TypeAlias = "tuple[bytes, list[Any], list[Any]]"
"""A packed value: its pickle, the buffers beside it, and the references of Ray in it."""


class AnswerKind(IntEnum):
    """How a call has ended."""

    RETURNED = 1
    RAISED = 2
    NOT_LOADED = 3
    WITHDRAWN = 4  # it was given back, and never begins
    UNSENDABLE = 5  # its result can't be sent; the payload says why
    NOT_READ = 6  # its arguments could not be read, so the function was not called


class SideMessageKind(IntEnum):
    """Kinds of side messages."""

    LOGGED = 1
    REPORTED = 2
    YIELDED = 3
    DROPPED = 4  # the payload is the number of messages that were dropped


WITHDRAW = 3
"""A request, as the values of `Notice` are: give a call back unless it has begun."""


class FirstUse(NamedTuple):
    """What an actor needs for its first call, and for the first one of a function or model.

    Args:
        device: The device of its jobs.
        function: Pickled; empty if the actor has it.
        spec: The `ModelSpec`, pickled; empty if there is no model, or the actor has it.
    """

    device: Device
    function: bytes
    spec: bytes


class CallHeader(NamedTuple):
    """One call, without its arguments.

    Args:
        number: Counts the calls of a slot.
        function, model: Their numbers.
        name: The job's name.
        facts: The `Facts` of the job, as a plain tuple.
        style: A `CallStyle`.
        first_use: What the actor may not have yet.
        awaited: Positions of the arguments that are references of Ray: the function gets their values.
        tenant: As `packed_tenant` returns it; empty for none.
    """

    number: int
    function: int
    model: int
    name: str
    facts: tuple[Any, ...]
    style: int
    first_use: FirstUse | None
    awaited: tuple[int, ...]
    tenant: bytes


class SideMessage(NamedTuple):
    """A log record, a report or a value of a stream, which an actor sends beside its answers.

    Args:
        number: The number of its call; 0 for a log record.
        kind: A `SideMessageKind`.
        position: Counts the values of a stream from 0, and the reports of an actor from 1.
        payload: The content.
    """

    number: int
    kind: int
    position: int
    payload: Payload


class Answer(NamedTuple):
    """The end of a call.

    Args:
        number: The number of the call.
        kind: An `AnswerKind`.
        began, ended: Seconds of the actor's clock.
        loaded: The models that were loaded for the call: number, seconds of the load, memory taken of the device.
        values: How many values the stream has yielded.
        sent_before: How many side messages the actor has sent before.
        payload: The result (of a batch as `pack_items` returns it) or a `RemoteError`; `None` for neither.
        messages: The side messages that were not sent yet.
    """

    number: int
    kind: int
    began: float = 0.0
    ended: float = 0.0
    loaded: tuple[tuple[int, float, LoadSize | None], ...] = ()
    values: int = 0
    sent_before: int = 0
    payload: Payload | None = None
    messages: tuple[SideMessage, ...] = ()


class Hardware(NamedTuple):
    """The hardware of an actor: the same for all actors of a device.

    Args:
        accelerators: The ids, on its node, of the accelerators that Ray has assigned to it, in order.
        devices: The GPUs that it sees, in the order of CUDA.
    """

    accelerators: tuple[str, ...]
    devices: tuple[Device, ...]


def encode_answer(answer: Answer) -> bytes | tuple[Any, ...]:
    """An answer as Ray gets it: bytes, which cost half as much as a tuple, unless there are buffers or references."""
    fields = (*answer[:-1], tuple(map(tuple, answer.messages)))
    payloads = [answer.payload, *(message.payload for message in answer.messages)]
    return fields if any(each is not None and (each[1] or each[2]) for each in payloads) else pickle.dumps(fields)


def decode_answer(content: bytes | tuple[Any, ...]) -> Answer:
    """The inverse of `encode_answer`."""
    answer = Answer(*_fields(content))
    return answer._replace(messages=tuple(SideMessage(*fields) for fields in answer.messages))


def encode_messages(messages: list[SideMessage]) -> bytes | tuple[Any, ...]:
    """Side messages as Ray gets them."""
    fields = tuple(map(tuple, messages))
    return fields if any(each.payload[1] or each.payload[2] for each in messages) else pickle.dumps(fields)


def decode_messages(content: bytes | tuple[Any, ...]) -> list[SideMessage]:
    """The inverse of `encode_messages`."""
    return [SideMessage(*fields) for fields in _fields(content)]


def _fields(content: bytes | tuple[Any, ...]) -> tuple[Any, ...]:
    return pickle.loads(content) if type(content) is bytes else content  # type: ignore[return-value]  # noqa: S301
