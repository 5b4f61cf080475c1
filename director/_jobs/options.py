"""What may be said about a job, checked once: `JobOptions` is what a user types, `Options` what the core reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from director._untrusted.keys import Interner

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    pass
    from director._device import Device
    from director._jobs.model import Model

LaneKey: TypeAlias = "tuple[frozenset[int] | None, int | None] | None"  # allowed slots, identity of the model


class JobOptions(TypedDict, total=False):
    """Keyword options of `submit`, `run`, `map`, `stream`, `function`, `lease` and `as_executor`."""

    model: Model[Any] | None
    priority: int
    deadline: float | None
    timeout: float | None
    tenant: Hashable
    devices: Iterable[Device | int | str] | Device | int | str | None
    retries: int
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
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


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one job or of a whole function, resolved against one running Director.

    Args:
        model: Its replica is the first argument; `None` hands over the `Device`.
        priority: Higher runs sooner.
        deadline: Seconds from submission by which the job must have finished.
        timeout: Seconds of running.
        allowed: Numbers of the slots that may run it; `None` for all.
        name: For people; `None` takes the function's.
        tenant: On whose account it runs, as the user has it.
        account: The key of the tenant, which the scheduler compares; `None`: the tenant itself, a plain value.
        batch: How it shares batches; `None`: never.
        retries: How often it is tried again when its worker or device is lost, or it raises one of `retry_on`.
        retry_on: Errors of the function that are worth another try.
        backoff: Seconds before the second try; doubled before each further one.
        when_full: What to do when too many wait; `None`: as the call does it.
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
    lane: LaneKey = field(init=False)
    """Jobs with equal keys can be served by the same slots; `None` is the plain lane that any slot serves."""
    timed: bool = field(init=False)
    """It has a deadline or a timeout."""
    is_plain: bool = field(init=False)
    """Any slot may serve it, in order of arrival, alone."""

    def __post_init__(self) -> None:
        if self.account is None:
            object.__setattr__(self, "account", self.tenant)
        model = None if self.model is None else id(self.model)
        anywhere = self.allowed is None and self.model is None
        anytime = self.priority == 0 and self.deadline is None and self.tenant is None
        object.__setattr__(self, "lane", None if anywhere else (self.allowed, model))
        object.__setattr__(self, "is_plain", anywhere and anytime and self.batch_rule is None)
        object.__setattr__(self, "timed", self.deadline is not None or self.timeout is not None)


def waits_for_room(options: Options, unless_said: bool) -> bool:
    """Whether a job is queued though too many wait.

    Args:
        options: The job's, which count first.
        unless_said: If they say nothing.
    """
    return unless_said if options.when_full is None else options.when_full == "wait"


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class BatchRule:
    """What `Director.function` was told about batches.

    Args:
        name: The function's, for people.
        max_size: Most items in one call.
        max_wait: Seconds, counted from the oldest item, that a batch may wait to become fuller while a slot is free.
        key: Only items with equal keys share a batch; `None` puts all together.
        cost: Cost of one item (tokens, pixels); `None` counts nothing.
        max_cost: Most cost in one call; an item that exceeds it runs alone.
        padded: The cost of a batch is that of its dearest item times its size, as for padded tensors; else the sum.
        window: Look at the next `window` full batches' worth of items and take those whose cost is nearest to the
            first one's, which always goes.
        isolate_failures: A batch that raises is run again item by item.
        interner: Makes keys of our own of what `key` returns.
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
