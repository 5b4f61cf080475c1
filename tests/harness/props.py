"""What the stories of batches are played with: functions of all kinds, what users want, and what they have made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from director._jobs.options import BatchRule, Options

if TYPE_CHECKING:
    from collections.abc import Hashable

    from harness.desk import Desk

KNOWN = 0.25  # seconds of a call with one item, of the functions whose cost is known, and of each item more


def functions() -> list[BatchRule]:
    """New ones of all kinds; what the last three cost is known."""

    def cost(item: Any) -> float:
        raise AssertionError("asked for where an item is submitted, never later")

    return [
        BatchRule("plain", max_size=3),
        BatchRule("held", max_size=4, max_wait=2.0),
        BatchRule("bounded", max_size=4, cost=cost, max_cost=10.0),
        BatchRule("padded", max_size=4, cost=cost, max_cost=12.0, padded=True, max_wait=1.0),
        BatchRule("similar", max_size=2, cost=cost, window=2),
        BatchRule("narrow", max_size=3, cost=cost, max_cost=9.0, window=3, max_wait=1.0),
        BatchRule("patient", max_size=2, max_wait=float("inf")),
        BatchRule("known", max_size=3),
        BatchRule("known and held", max_size=3, max_wait=2.0),
        BatchRule("known and costly", max_size=4, cost=cost, max_cost=10.0, max_wait=1.0),
    ]


class Thing:
    """Something of a user's, who hears when it is let go of."""

    def __init__(self, noise: Noise) -> None:
        self._noise = noise

    def __del__(self) -> None:
        self._noise.note()


class Name(Thing):
    """A tenant or a batch key, equal to others of the same name; its user hears, too, when it is asked anything."""

    def __init__(self, noise: Noise, name: object) -> None:
        super().__init__(noise)
        self.name = name

    def __hash__(self) -> int:
        self._noise.note()
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        self._noise.note()
        return isinstance(other, Name) and self.name == other.name

    def __lt__(self, other: object) -> bool:
        self._noise.note()
        return NotImplemented

    def __bool__(self) -> bool:
        self._noise.note()
        return True


class Noise:
    """Hears when something of the user's is asked or let go of."""

    desk: Desk | None = None

    def __init__(self) -> None:
        self.is_under_lock = False

    def note(self) -> None:
        self.is_under_lock = self.is_under_lock or (self.desk is not None and self.desk.scheduler._is_deciding)

    def function(self) -> Any:
        thing = Thing(self)
        return lambda *_: thing

    def tenant(self, name: str | None) -> Any:
        """A new one of that name: a plain value, or for "b" an object."""
        return Name(self, name) if name == "b" else name


@dataclass(frozen=True)
class Wish:
    """A few calls of one function; `None`: each a job of its own."""

    function: int | None
    key: int
    cost: float
    priority: int
    tenant: str | None
    deadline: float | None
    allowed: frozenset[int] | None
    many: int

    def options(self, batch: BatchRule | None, slots: int, tenant: Any, account: Hashable) -> Options:
        allowed = self.allowed and frozenset(number % slots for number in self.allowed)
        return Options(
            priority=self.priority,
            tenant=tenant,
            account=account,
            deadline=self.deadline,
            allowed=allowed,
            batch_rule=batch,
        )


def wishes() -> st.SearchStrategy[Wish]:
    """Of a Director with up to three functions."""
    return st.builds(
        Wish,
        function=st.none() | st.integers(0, 2) | st.integers(0, 2),
        key=st.integers(0, 1),
        cost=st.sampled_from([1.0, 2.0, 3.0, 5.0, 20.0]),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        tenant=st.sampled_from([None, None, "a", "b"]),
        deadline=st.sampled_from([None, None, None, 0.5, 1.0, 2.0, 4.0]),
        allowed=st.none() | st.none() | st.frozensets(st.integers(0, 5), min_size=1),
        many=st.integers(1, 4),
    )
