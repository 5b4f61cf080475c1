"""Rules for batches with deadlines that were tried and not taken, simulated exactly: greedy devices, one function.

All serve by deadline and fail whom no call could save any more. They differ in where a batch begins when the first item
has so little time left that it would be a small one.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Rule: TypeAlias = Callable[[Sequence[float]], tuple[int, int]]
    """From the seconds that each item has left: how many to pass over, and how many then go."""

FEW = 1e-9  # of an item: what rounding may take from a size


class Profile:
    """What calls cost, and how large they may be."""

    def __init__(self, fixed: float, each: float, most: int) -> None:
        self.fixed = fixed
        self.each = each
        self.most = most

    def seconds(self, size: int) -> float:
        """What a batch of that size takes."""
        return self.fixed + self.each * size

    def size_within(self, seconds: float) -> int:
        """The largest batch that takes no longer."""
        return min(self.most, int((seconds - self.fixed) / self.each + FEW))

    def first_limits(self, left: Sequence[float]) -> tuple[int, int]:
        """The most urgent item always goes, and its deadline limits the batch."""
        return 0, min(len(left), self.size_within(left[0]))

    def largest(self, left: Sequence[float]) -> tuple[int, int]:
        """As many as can go together, with as few passed over as that allows."""
        best = best_size = -1
        for number, seconds in enumerate(left):
            waiting = len(left) - number
            size = min(waiting, self.size_within(seconds))
            if size > best_size:
                best, best_size = number, size
            if size == min(waiting, self.most):
                break
        return best, best_size


def serve(
    moments: Sequence[float], deadline: float, devices: int, profile: Profile, rule: Rule, keep: bool
) -> list[bool]:
    """Whether each item is in time.

    Args:
        moments: When they come.
        deadline: Seconds that each has.
        devices: How many calls run at once.
        profile: What calls cost.
        rule: Where a batch begins.
        keep: Those that are passed over stay; else they fail at once.
    """
    free_at = [0.0] * devices
    waiting: deque[int] = deque()
    served = [False] * len(moments)
    arrived = 0
    while arrived < len(moments) or waiting:
        now = free_at[0] if waiting else max(free_at[0], moments[arrived])
        while arrived < len(moments) and moments[arrived] <= now:
            waiting.append(arrived)
            arrived += 1
        while waiting and profile.size_within(moments[waiting[0]] + deadline - now) < 1:
            waiting.popleft()
        if not waiting:
            continue
        passed, size = rule([moments[number] + deadline - now for number in waiting])
        out = [waiting.popleft() for _ in range(passed)]
        for _ in range(size):
            served[waiting.popleft()] = True
        if keep:
            waiting.extendleft(reversed(out))
        heapq.heapreplace(free_at, now + profile.seconds(size))
    return served
