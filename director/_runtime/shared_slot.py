"""Taking jobs for a slot that other processes use too.

A job is bound to a slot by `Dispatch.take`, so the worker asks for the slot first. If another process has it, what
waits goes to other slots meanwhile, and the worker waits in the system's own line, on its own thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from director._executors.base import NeverStarted

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._scheduler.scheduler import Dispatch
    from director._scheduler.slots import Slot
    from director._scheduler.wakeups import Ring
    from director._sharing.slot_lock import Turnstile

_TURN = 0.005  # real seconds that one process has when others wait: a hand-over takes some 0.1 ms


class TurnTaker:
    """`Dispatch.take` for the worker of a shared slot: holds the slot from before a job is taken until it parks.

    Args:
        turnstile: That of the slot.
        dispatch: Asked for jobs.
        note_wait: Called before a wait.
        in_line: Called before a wait too, once others can have what waits.
    """

    def __init__(
        self,
        turnstile: Turnstile,
        dispatch: Dispatch,
        note_wait: Callable[[], None],
        in_line: Callable[[], None],
    ) -> None:
        self._turnstile = turnstile
        self._dispatch = dispatch
        self._note_wait = note_wait
        self._in_line = in_line
        self._since = 0.0

    def take(self, slot: Slot) -> tuple[Any, Ring]:
        """As `Dispatch.take`; blocks while another process has the slot.

        Raises:
            NeverStarted: The slot's files can't be locked, and no job was taken.
        """
        try:
            self._enter(slot)
        except OSError as error:
            self._in_line()  # tells the loop of what was posted
            raise NeverStarted(slot.device, f"the lock of a shared slot failed: {error}") from error
        taken, ring = self._dispatch.take(slot)
        if taken is None:
            self._turnstile.leave()  # who parks holds nothing
        return taken, ring

    def _enter(self, slot: Slot) -> None:
        if self._turnstile.is_mine:
            if self._is_over():
                self._turnstile.leave()
                self._wait(slot)
        elif self._turnstile.try_enter():
            self._since = time.monotonic()
        else:
            self._wait(slot)

    def _is_over(self) -> bool:
        """Whether to let others in before the next job: our time is up, they wait, and so do jobs of ours."""
        now = time.monotonic()
        if now - self._since < _TURN:
            return False
        self._since = now
        return self._turnstile.is_wanted() and self._dispatch.waiting() > 0

    def _wait(self, slot: Slot) -> None:
        self._note_wait()
        ring = self._dispatch.stand_in_line(slot)
        if ring is not None:
            ring()
        self._in_line()
        self._turnstile.enter()
        self._since = time.monotonic()
