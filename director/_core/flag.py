"""An event that may be set at any moment.

`threading.Event` holds a plain lock in `set`, `clear` and at the begin and the end of `wait`. A finalizer or a signal
handler that runs there, on the thread that holds it, and sets the event waits for itself.
"""

from __future__ import annotations

import threading


class Flag:
    """A `threading.Event` whose `set` holds no lock. Any thread may wait; one thread may `clear`."""

    __slots__ = ("_gate", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._gate = threading.Lock()  # who waits acquires it; open while the flag is set
        self._gate.acquire()

    def is_set(self) -> bool:
        """Whether it was set and not cleared since."""
        return self._is_set

    def set(self) -> None:
        """Let go who waits, and who comes to wait."""
        self._is_set = True
        self._open()

    def clear(self) -> None:
        """From now on `wait` waits."""
        self._is_set = False
        self._gate.acquire(blocking=False)

    def wait(self, timeout: float = -1) -> bool:
        """Wait until it is set, for so many seconds at most if `timeout` is given; False if it isn't."""
        while not self._is_set:
            if not self._gate.acquire(timeout=timeout):
                return self._is_set
        self._open()  # for others that wait
        return True

    def _open(self) -> None:
        try:
            self._gate.release()
        except RuntimeError:  # it is open already
            return
