"""What callers have received: every value is to be their own, none is to be missing, none is to come twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.chaos.values import Value, describe, is_whole

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_NAMED = 5  # wrong values that are told one by one


class Received:
    """Counts values. On the event loop only.

    Args:
        wrong: Takes what is wrong, in words.
    """

    def __init__(self, wrong: Callable[[str], None]) -> None:
        self.right = 0
        self.foreign = 0
        self.lost = 0
        self.doubled = 0
        self._wrong = wrong
        self._told = 0

    def take(self, value: Any, owner: int, due: int) -> int:
        """The job `owner` has handed out `value` where its value number `due` was to come.

        Returns:
            The number of the value that is due now.
        """
        following = due
        if not isinstance(value, Value):
            self.lost, following = self.lost + 1, due + 1
        elif value.owner != owner or not is_whole(value):
            self.foreign += 1
        elif value.number < due:
            self.doubled += 1
        elif value.number > due:
            self.lost, following = self.lost + value.number - due, value.number + 1
        else:
            self.right += 1
            return due + 1
        self._tell(f"job {owner} received {describe(value)} in the place of value {due}")
        return following

    def missing(self, owner: int, values: int, what: str) -> None:
        """So many values of the job `owner` have not come, and won't."""
        self.lost += values
        self._tell(f"job {owner}: {values} values have not come, {what}")

    def argument(self, error: Exception) -> None:
        """A call has found that its argument was another's."""
        self.foreign += 1
        self._tell(str(error))

    def counts(self) -> dict[str, int]:
        """All of them, in words."""
        return {"right": self.right, "foreign": self.foreign, "lost": self.lost, "doubled": self.doubled}

    def _tell(self, fault: str) -> None:
        self._told += 1
        if self._told <= MOST_NAMED:
            self._wrong(fault)
