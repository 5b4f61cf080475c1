"""The child's way to its parent. Any thread of the child may tell something; large things one at a time."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from director._executors._process.parcels import Parcel, wrap
from director._executors._process.references import pack
from director._executors._process.wire import NOWHERE, ROOM_IN_ANSWER, Tell, answer, answer_head

if TYPE_CHECKING:
    from director._executors._process.segments import Arrivals, Shipments

_NOTHING = Parcel(b"", [])
_WORDS: dict[int, str] = {
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
        self._late: deque[tuple[int, int, Parcel]] = deque()

    def tell(self, kind: int, number: int, value: Any = None, began: float = 0.0, ended: float = 0.0) -> None:
        """Tell the parent something about the request `number`.

        Raises:
            PicklingError: `value` can't be sent.
            OSError: There is no memory for it.
        """
        if self._pipe < 0:
            return
        try:
            stream, buffers = parcel = _NOTHING if value is None else wrap(value)
        except Exception:  # noqa: BLE001 - there may be another way; else this says what to do
            stream, buffers = parcel = pack(value, lambda: _WORDS[kind])
        if not buffers and len(stream) <= ROOM_IN_ANSWER:
            # One write, which the system does as one piece: on any thread, in the midst of anything.
            freed = self._arrivals.take_freed() if self._arrivals.freed else 0
            os.write(self._pipe, answer_head(kind, freed, NOWHERE, len(stream), 0, number, began, ended) + stream)
            return
        thread = threading.get_ident()
        if self._holder == thread:
            # A finalizer logs, which the collector has run in the midst of another answer on this very thread.
            self._late.append((kind, number, parcel))
            return
        with self._lock:
            self._holder = thread
            try:
                self._ship(kind, number, parcel, began, ended)
                while self._late:
                    self._ship(*self._late.popleft(), 0.0, 0.0)
            finally:
                self._holder = 0

    def close(self) -> None:
        """Tell nothing more: in a copy of the child that was forked, which is nobody's child."""
        os.close(self._pipe)
        self._pipe = -1

    def _ship(self, kind: int, number: int, parcel: Parcel, began: float, ended: float) -> None:
        load = self._shipments.send(parcel, ROOM_IN_ANSWER)
        os.write(self._pipe, answer(kind, self._arrivals.take_freed(), number, load, began, ended))
