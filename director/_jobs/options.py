"""Options of a job, checked once: `JobOptions` is what a user passes, `Options` what the scheduler reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from director._untrusted.keys import Interner

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from director._device import Device
    from director._jobs.model import Model

LaneKey: TypeAlias = "tuple[frozenset[int] | None, int | None, int] | None"
"""Allowed slots, identity of the model, and bytes of a call."""


class LeaseOptions(TypedDict, total=False):
    """Keyword options of `lease` beside `model`: those of a job but for `deadline` and `timeout`."""

    priority: int
    start_within: float | None
    tenant: Hashable
    devices: Iterable[Device | int | str] | Device | int | str | None
    memory: int | str | None
    retries: int
    retry_on: type[BaseException] | tuple[type[BaseException], ...] | None
    backoff: float
    when_full: Literal["wait", "refuse"] | None
    name: str | None


class JobOptions(TypedDict, total=False):
    """Keyword options of `submit`, `run`, `map`, `stream`, `function`, `lease` and `as_executor`."""

    model: Model[Any] | None
    priority: int
    deadline: float | None
    start_within: float | None
    timeout: float | None
    tenant: Hashable
    devices: Iterable[Device | int | str] | Device | int | str | None
    memory: int | str | None
    retries: int
    retry_on: type[BaseException] | tuple[type[BaseException], ...] | None
    backoff: float
    when_full: Literal["wait", "refuse"] | None
    name: str | None


class BatchOptions(JobOptions, total=False):
    """Keyword options of `function` with `max_batch_size`."""

    max_wait: float
    batch_key: Callable[[Any], Hashable] | None
    batch_cost: Callable[[Any], float] | None
    max_batch_cost: float | None
    batch_padding: bool
    batch_window: int
    isolate_failures: bool


class StreamOptions(JobOptions, total=False):
    """Keyword options of `stream`, and of `function` and `with_options` for its streams."""

    buffer: int
    on_slow_reader: Literal["wait", "cancel"]
    slow_reader_timeout: float


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one job or of a whole function, resolved against one running Director.

    Args:
        model: Its replica is the first argument; `None` passes the `Device`.
        priority: Higher runs sooner.
        deadline: Seconds from submission by which the job must have finished.
        timeout: Seconds of running, from the call of the function: loading its model does not count.
        allowed: Numbers of the slots that may run it; `None` for all.
        name: For logs and events; `None` takes the function's.
        tenant: The tenant to whom it is charged, as the user passed it.
        account: The key of the tenant, which the scheduler compares; `None`: the tenant itself, a plain value.
        batch_rule: How it shares batches; `None`: never.
        retries: Further attempts when its worker or device is lost, or it raises one of `retry_on`.
        retry_on: Exceptions of the function that are retried.
        backoff: Seconds before the second attempt; doubled before each further one.
        when_full: Wait or refuse when the queue is full; `None`: the default of the method.
        memory: Bytes of the device that a call takes while it runs, on top of the replica.
        start_within: Seconds from submission by which the call of its first attempt must have begun.
    """

    model: Model[Any] | None = None
    priority: int = 0
    deadline: float | None = None
    timeout: float | None = None
    allowed: frozenset[int] | None = None
    name: str | None = None
    tenant: Hashable = None
    account: Hashable = None
    batch_rule: BatchRule | None = None
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] = ()
    backoff: float = 0.0
    when_full: Literal["wait", "refuse"] | None = None
    memory: int = 0
    start_within: float | None = None
    lane: LaneKey = field(init=False)
    """Jobs with equal keys can be served by the same slots; `None` is the lane that any slot serves."""
    timed: bool = field(init=False)
    """Whether it has a deadline, a timeout or a limit of its wait."""
    is_plain: bool = field(init=False)
    """Whether any slot may serve it, in order of arrival, in a call of its own."""

    def __post_init__(self) -> None:
        if self.account is None:
            object.__setattr__(self, "account", self.tenant)
        model = None if self.model is None else self.model._key
        anywhere = self.allowed is None and self.model is None and not self.memory
        anytime = self.priority == 0 and self.deadline is None and self.tenant is None
        object.__setattr__(self, "lane", None if anywhere else (self.allowed, model, self.memory))
        object.__setattr__(self, "is_plain", anywhere and anytime and self.batch_rule is None)
        limits = (self.deadline, self.start_within, self.timeout)
        object.__setattr__(self, "timed", limits != (None, None, None))


def waits_for_room(options: Options, unless_said: bool) -> bool:
    """Whether a job is queued when the queue is full."""
    return unless_said if options.when_full is None else options.when_full == "wait"


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class BatchRule:
    """The batch options of `Director.function`.

    Args:
        name: The function's name.
        max_size: Most items in one call.
        max_wait: Seconds, counted from the oldest item, that a batch may wait to become fuller while a slot is free.
        key: Only items with equal keys share a batch; `None` puts all together.
        cost: Cost of one item (tokens, pixels); `None` counts nothing.
        max_cost: Most cost in one call; an item that exceeds it runs alone.
        padded: The cost of a batch is that of its most expensive item times its size, as for padded tensors;
            else the sum.
        window: Of the items of the next `window` full batches take those whose cost is nearest to that of the first
            one, which always goes.
        isolate_failures: A batch that raises is run again item by item.
        interner: Makes plain keys of what `key` returns.
    """

    name: str
    max_size: int = 1
    max_wait: float = 0.0
    key: Callable[[Any], Hashable] | None = None
    cost: Callable[[Any], float] | None = None
    max_cost: float | None = None
    padded: bool = False
    window: int = 1
    isolate_failures: bool = False
    interner: Interner = field(default_factory=Interner)
