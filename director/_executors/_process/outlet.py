"""The child's way to its parent. Any thread of the child may tell something; one at a time does."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from director._executors._process.parcels import Parcel
from director._executors._process.references import pack
from director._executors._process.wire import EMPTY, ROOM_IN_ANSWER, Tell, answer

if TYPE_CHECKING:
    from director._executors._process.segments import Arrivals, Shipments

_NOTHING = Parcel(b"", [])
_WORDS = {
    Tell.RETURNED: "the result",
    Tell.RAISED: "the exception",
    Tell.NOT_LOADED: "the exception of a loader",
    Tell.REPORTED: "what report() was given",
    Tell.LOGGED: "a log record",
    Tell.YIELDED: "a value of the stream",
}


class Outlet:
    """Writes answers.

    Args:
        pipe: Where to.
        shipments: For what is too long for a frame.
        arrivals: Tells which of the parent's segments were let go of.
    """

    def __init__(self, pipe: int, shipments: Shipments, arrivals: Arrivals) -> None:
        self._pipe = pipe
        self._shipments = shipments
        self._arrivals = arrivals
        self._lock = threading.Lock()
        self._holder = 0  # the thread that holds the lock
        self._late: deque[tuple[Tell, int, Parcel]] = deque()

    def tell(self, kind: Tell, number: int, value: Any = None, began: float = 0.0, ended: float = 0.0) -> None:
        """Tell the parent something about the request `number`.

        Raises:
            PicklingError: `value` can't be sent.
            OSError: There is no memory for it.
        """
        parcel = _NOTHING if value is None else pack(value, lambda: _WORDS[kind])
        thread = threading.get_ident()
        if self._holder == thread:
            # A finalizer logs, which the collector has run in the midst of another answer on this very thread.
            self._late.append((kind, number, parcel))
            return
        with self._lock:
            self._holder = thread
            try:
                self._write(kind, number, parcel, began, ended)
                while self._late:
                    self._write(*self._late.popleft(), 0.0, 0.0)
            finally:
                self._holder = 0

    def close(self) -> None:
        """Tell nothing more: in a copy of the child that was forked, which is nobody's child."""
        os.close(self._pipe)
        self._pipe = -1

    def _write(self, kind: Tell, number: int, parcel: Parcel, began: float, ended: float) -> None:
        if self._pipe >= 0:
            load = EMPTY if parcel is _NOTHING else self._shipments.send(parcel, ROOM_IN_ANSWER)
            os.write(self._pipe, answer(kind, self._arrivals.take_freed(), number, load, began, ended))
