"""A slot that several processes use in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director._sharing.lock_file import HAS_LOCKS, LockFile, folder

if TYPE_CHECKING:
    from director._scheduler.slots import Slot
    from director._sharing.lock_file import Folder


class SlotLock:
    """Lets one process at a time work on a slot. Used by the slot's own thread alone.

    Two locks. Who works holds ``slot``. Who is next holds ``line`` and waits for ``slot``; all others wait for
    ``line``. So nobody who has just left can overtake who waits, and one look at ``line`` tells who works that somebody
    does. The system wakes the next one, whether the slot was given back or its process has died.

    Args:
        folder: Where its two files are.
        name: Of both, without their endings.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._slot = LockFile(folder, f"{name}.slot")
        self._line = LockFile(folder, f"{name}.line")
        self._is_next = False
        self.is_mine = False

    def try_enter(self) -> bool:
        """Take the slot if nobody works there and nobody waits. Otherwise the next step is `enter`."""
        if not self._line.try_lock():
            return False
        self._is_next = True
        if not self._slot.try_lock():
            return False  # the place in the line is kept
        self._acquire_slot()
        return True

    def enter(self) -> None:
        """Stand in the line and take the slot. Blocks, without the GIL, for as long as others need."""
        if not self._is_next:
            self._line.lock()
            self._is_next = True
        self._slot.lock()
        self._acquire_slot()

    def is_wanted(self) -> bool:
        """Whether somebody waits for the slot, which is ours."""
        if self._line.try_lock():
            self._line.unlock()
            return False
        return True

    def leave(self) -> None:
        """Let the next one in."""
        self.is_mine = False
        self._slot.unlock()

    def _acquire_slot(self) -> None:
        self.is_mine = True
        self._is_next = False
        self._line.unlock()


class SharedSlots:
    """The turnstiles of all who give the same name.

    Args:
        name: What they have agreed on.

    Raises:
        RuntimeError: This system has no `flock`, or the folder for it can't be used or is open to strangers.
    """

    def __init__(self, name: str) -> None:
        if not HAS_LOCKS:
            raise RuntimeError("Director(shared=...) needs flock, which this system does not have: use one process")
        self._folder = folder("shared", name)
        self._folder.check()

    def slot_lock(self, slot: Slot) -> SlotLock:
        """That of one slot, by the UUID of its device, which is the same in every process, and its place there."""
        position = slot.number - slot.place.slots[0].number
        return SlotLock(self._folder, f"{slot.device.uuid.replace('/', '-')}.{position}")
