"""Calls that were handed to an actor while its call thread was busy: it goes from one to the next without a pause.

Between two calls that wait in Ray's own queue an actor rests for most of a millisecond. Behind a lock, for any thread.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director._executors._ray.wire import Head

Part: TypeAlias = "tuple[Head, tuple[Any, ...]]"


class Tray:
    """What the call thread makes next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: deque[Part] = deque()
        self._is_served = False

    def serve(self, parts: Iterable[Part]) -> None:
        """The call thread begins with these, and comes back for more with `next`."""
        with self._lock:
            self._is_served = True
            self._parts.extend(parts)

    def next(self) -> Part | None:
        """The next; with `None` the call thread leaves."""
        with self._lock:
            if self._parts:
                return self._parts.popleft()
            self._is_served = False
            return None

    def add(self, parts: Iterable[Part]) -> bool:
        """Hand some in; False if the call thread has left, and they were not taken."""
        with self._lock:
            if self._is_served:
                self._parts.extend(parts)
            return self._is_served
