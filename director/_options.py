"""What may be said about a job, checked once: `JobOptions` is what a user types, `Options` what the core reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director._device import Device
    from director._models import Model


LaneKey: TypeAlias = "tuple[frozenset[int] | None, Model[Any] | None] | None"


class JobOptions(TypedDict, total=False):
    """Keyword options of `submit`, `run`, `map`, `function`, `lease` and `as_executor`."""

    model: Model[Any] | None
    priority: int
    deadline: float | None
    timeout: float | None
    devices: Iterable[Device | int | str] | Device | int | str | None
    name: str | None


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
    """

    model: Model[Any] | None = None
    priority: int = 0
    deadline: float | None = None
    timeout: float | None = None
    allowed: frozenset[int] | None = None
    name: str | None = None
    lane: LaneKey = field(init=False)
    """Jobs with equal keys can be served by the same slots; `None` is the plain lane that any slot serves."""
    timed: bool = field(init=False)
    """It has a deadline or a timeout."""

    def __post_init__(self) -> None:
        plain = self.allowed is None and self.model is None
        object.__setattr__(self, "lane", None if plain else (self.allowed, self.model))
        object.__setattr__(self, "timed", self.deadline is not None or self.timeout is not None)
