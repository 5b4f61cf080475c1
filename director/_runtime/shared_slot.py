"""Taking jobs for a slot that other processes use too.

A job is bound to a slot by `Scheduler.next_work`, so the worker asks for the slot first. If another process has it,
what waits goes to other slots meanwhile, and the worker waits in the system's own line, on its own thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from director._executors.base import NeverStarted

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import Slot
    from director._scheduler.wakeups import WakeCall
    from director._sharing.slot_lock import SlotLock

_TURN = 0.005  # real seconds that one process has when others wait: a hand-over takes some 0.1 ms


class SharedSlotGuard:
    """`Scheduler.next_work` for the worker of a shared slot: holds the slot from before a job is taken until it parks.

    Args:
        slot_lock: That of the slot.
        scheduler: Asked for jobs.
        note_wait: Called before a wait.
        in_line: Called before a wait too, once others can have what waits.
    """

    def __init__(
        self,
        slot_lock: SlotLock,
        scheduler: Scheduler,
        note_wait: Callable[[], None],
        in_line: Callable[[], None],
    ) -> None:
        self._slot_lock = slot_lock
        self._scheduler = scheduler
        self._note_wait = note_wait
        self._in_line = in_line
        self._since = 0.0

    def take(self, slot: Slot) -> tuple[Any, WakeCall]:
        """As `Scheduler.next_work`; blocks while another process has the slot.

        Raises:
            NeverStarted: The slot's files can't be locked, and no job was taken.
        """
        try:
            self._enter(slot)
        except OSError as error:
            self._in_line()  # tells the loop of what was posted
            raise NeverStarted(slot.device, f"the lock of a shared slot failed: {error}") from error
        taken, wake = self._scheduler.next_work(slot)
        if taken is None:
            self._slot_lock.leave()  # who parks holds nothing
        return taken, wake

    def _enter(self, slot: Slot) -> None:
        if self._slot_lock.is_mine:
            if self._is_over():
                self._slot_lock.leave()
                self._wait(slot)
        elif self._slot_lock.try_enter():
            self._since = time.monotonic()
        else:
            self._wait(slot)

    def _is_over(self) -> bool:
        """Whether to let others in before the next job: our time is up, they wait, and so do jobs of ours."""
        now = time.monotonic()
        if now - self._since < _TURN:
            return False
        self._since = now
        return self._slot_lock.is_wanted() and self._scheduler.waiting() > 0

    def _wait(self, slot: Slot) -> None:
        self._note_wait()
        wake = self._scheduler.wait_for_shared_slot(slot)
        if wake is not None:
            wake()
        self._in_line()
        self._slot_lock.enter()
        self._since = time.monotonic()
