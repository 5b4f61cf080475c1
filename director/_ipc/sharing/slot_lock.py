"""A slot that several processes use in FIFO order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director._ipc.sharing.lock_file import HAS_LOCKS, LockFile, folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._ipc.sharing.lock_file import Folder


class SlotLock:
    """Lets one process at a time work on a slot. Used by the slot's own thread only.

    There are two locks. The process that works holds ``slot``. The next one holds ``line`` and waits for ``slot``; all
    others wait for ``line``. So a process that has just released the slot can't overtake one that waits, and the
    working process sees by trying ``line`` whether another one waits. The system wakes the next process when the slot
    is released, also when the process that held it has died.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._slot = LockFile(folder, f"{name}.slot")
        self._line = LockFile(folder, f"{name}.line")
        self._is_next = False
        self.is_mine = False

    def try_enter(self) -> bool:
        """Acquire the slot if no process works there or waits; returns whether it did. Otherwise call `enter` next."""
        if not self._line.try_lock():
            return False
        self._is_next = True
        if not self._slot.try_lock():
            # `line` stays locked: the place in the queue is kept.
            return False
        self._acquire_slot()
        return True

    def enter(self, is_next: Callable[[], None] | None = None) -> None:
        """Queue for the slot and acquire it.

        Blocks, without the GIL, until the processes before this one have released it.

        Args:
            is_next: Called when no process is left that will have it before this one, but for the one that has it.
        """
        if not self._is_next:
            self._line.lock()
            self._is_next = True
        if is_next is not None:
            is_next()
        self._slot.lock()
        self._acquire_slot()

    def is_wanted(self) -> bool:
        """Whether another process waits for the slot, which this one holds."""
        if self._line.try_lock():
            self._line.unlock()
            return False
        return True

    def leave(self) -> None:
        """Release the slot for the next process."""
        self.is_mine = False
        self._slot.unlock()

    def _acquire_slot(self) -> None:
        self.is_mine = True
        self._is_next = False
        self._line.unlock()


class SharedSlots:
    """The slot locks of all processes that give the same name.

    Raises:
        RuntimeError: This system has no `flock`, or the folder for it can't be used, or other users can write to it.
    """

    def __init__(self, name: str) -> None:
        if not HAS_LOCKS:
            raise RuntimeError("Director(shared=...) needs flock, which this system does not have: use one process")
        self._folder = folder("shared", name)
        self._folder.check()

    def slot_lock(self, device: Device, position: int) -> SlotLock:
        """The lock of one slot, named by the UUID of its device and its index there: the same in every process."""
        return SlotLock(self._folder, f"{_file_name(device)}.{position}")

    def load_lock(self, device: Device) -> LockFile:
        """A lock of a device, for loads, to be used by the thread of one of its slots."""
        return LockFile(self._folder, f"{_file_name(device)}.load")


def _file_name(device: Device) -> str:
    return device.uuid.replace("/", "-")
