"""What an application tells the server about a job, a function and a model, as plain values."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple


class Style(IntEnum):
    """How a job's function is called."""

    WITH_RESOURCE = 0
    BATCH = 1
    PLAIN = 2
    STREAM = 3
    LEASE = 4
    LOAD = 5


class JobHead(NamedTuple):
    """The options of jobs.

    Args:
        function, model: Their numbers; -1 for none.
        style: A `Style`.
        name, priority, timeout, tenant, retries, backoff: As for `Director.submit`.
        deadline, start_within: Seconds from now.
        memory: Bytes that the call takes while it runs.
        allowed: Numbers of the slots that may run it; `None` for all.
        waits: Queued though the queue is full.
    """

    function: int
    model: int
    style: int
    name: str | None
    priority: int
    timeout: float | None
    tenant: Any
    retries: int
    backoff: float
    deadline: float | None
    allowed: tuple[int, ...] | None
    waits: bool
    memory: int
    start_within: float | None


class JobParts(NamedTuple):
    """What an application tells about a job beside its arguments. If it is only the number of options, that is all.

    Args:
        options: Their number, or the fields of a `JobHead`.
        batch_key, batch_cost: Of its item.
        stream: Of a stream: `buffer`, `slow_reader_timeout`, and whether the generator waits longer than that.
    """

    options: int | tuple[Any, ...]
    batch_key: Any = None
    batch_cost: float = 0.0
    stream: tuple[int, float, bool] | None = None


class FunctionHead(NamedTuple):
    """A function, whose reference is the body.

    Args:
        name: Its name.
        module: The module that has it; `None` if it is sent by value.
        source: A digest of the source of that; `None` if there is none.
        rule: Its batch options by name; `None` for a function of single calls.
    """

    name: str
    module: str | None
    source: bytes | None
    rule: dict[str, Any] | None


class ModelHead(NamedTuple):
    """A model; the body has its functions.

    Args:
        name, replicas, per_slot, memory, pin, load_alone: As for `Model`.
        is_surrounded: Whether it has an `around`.
        allowed: Numbers of the slots that may load it; `None` for all.
        module, source: As for a function, of its loader.
    """

    name: str
    replicas: int | None
    per_slot: bool
    memory: int | None
    pin: bool
    load_alone: bool | None
    is_surrounded: bool
    allowed: tuple[int, ...] | None
    module: str | None
    source: bytes | None
