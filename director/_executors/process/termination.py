"""How a call that has no right to go on is brought to its end: asked, then told, then killed. Pure.

The child was asked by a notice on its page, which `director.check_cancelled` reads. SIGTERM comes after a grace, and
leaves Python code through its `finally` blocks. SIGKILL after another grace ends whatever is left.
"""

from __future__ import annotations

import math
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOST = 5.0  # seconds after SIGKILL: a process that is still there waits for a driver, and no signal reaches it


class Unkillable(Exception):
    """The process does not end at all."""


class Termination:
    """The steps for one request. `begin` is for any thread, everything else for the one that waits.

    Args:
        grace: Seconds between two steps.
    """

    def __init__(self, grace: float) -> None:
        self.next = math.inf  # the moment of the next step
        self._grace = grace
        self._steps: list[signal.Signals | None] = [signal.SIGTERM, signal.SIGKILL, None]

    def begin(self, moment: float) -> None:
        """Take the first step at `moment`, unless it is to be taken sooner."""
        self.next = min(self.next, moment)

    def patience(self, now: float) -> float | None:
        """Seconds until the next step; `None` if there is none to take."""
        return None if self.next == math.inf else max(0.0, self.next - now)

    def escalate(self, now: float, send: Callable[[signal.Signals], object]) -> None:
        """Take the step that is due, if one is.

        Raises:
            Unkillable: There was none left.
        """
        if now < self.next:
            return
        step = self._steps.pop(0)
        if step is None:
            raise Unkillable
        self.next = now + (self._grace if step is signal.SIGTERM else _LOST)
        send(step)
