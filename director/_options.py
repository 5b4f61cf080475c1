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


_KNOWN = tuple(JobOptions.__annotations__)


def check(options: dict[str, Any]) -> None:
    """Raise what is wrong with `options`, before anything is queued.

    Raises:
        TypeError: An unknown option, or a value of the wrong type.
        ValueError: A value out of range.
    """
    for name in options:
        if name not in _KNOWN:
            raise TypeError(
                f"unknown option {name!r}; known: {', '.join(_KNOWN)}. "
                "Keyword arguments of the function itself go through functools.partial."
            )
    priority = options.get("priority", 0)
    if not isinstance(priority, int):
        raise TypeError(f"priority must be an int, not {priority!r}")
    _check_seconds("deadline", options.get("deadline"))
    _check_seconds("timeout", options.get("timeout"))


def _check_seconds(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be seconds as a number or None, not {value!r}")
    if not value > 0:  # also refuses NaN
        raise ValueError(f"{name} must be positive seconds, not {value!r}")
