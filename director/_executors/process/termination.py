"""Ends a call step by step: SIGTERM, then SIGKILL. Pure.

Before that the call has got a notice on its page, which `director.check_cancelled` reads. SIGTERM raises SystemExit in
the child, so that `finally` blocks run. SIGKILL follows after the grace.
"""

from __future__ import annotations

import math
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOST = 5.0  # seconds after SIGKILL: a process that is still there hangs in a driver


class Unkillable(Exception):
    """The process does not exit after SIGKILL."""


class Termination:
    """The steps for one call. `begin` is for any thread, everything else for the one that waits.

    Args:
        grace: Seconds between two steps.
    """

    def __init__(self, grace: float) -> None:
        self.next = math.inf  # the time of the next step
        self._grace = grace
        self._steps: list[signal.Signals | None] = [signal.SIGTERM, signal.SIGKILL, None]

    def begin(self, moment: float) -> None:
        """Take the first step at `moment`, or earlier if that was asked before."""
        self.next = min(self.next, moment)

    def timeout(self, now: float) -> float | None:
        """Seconds until the next step; `None` if there is none to take."""
        return None if self.next == math.inf else max(0.0, self.next - now)

    def escalate(self, now: float, send: Callable[[signal.Signals], object]) -> None:
        """Take a step if one is due.

        Raises:
            Unkillable: None is left.
        """
        if now < self.next:
            return
        step = self._steps.pop(0)
        if step is None:
            raise Unkillable
        self.next = now + (self._grace if step is signal.SIGTERM else _LOST)
        send(step)
