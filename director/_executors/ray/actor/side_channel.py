"""What an actor tells beside its answers: log records, progress, values of streams. For any thread, behind one lock."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING

from director._executors.ray.messages import Note, NoteKind
from director._threads import Flag

if TYPE_CHECKING:
    from collections.abc import Callable


_MOST = 10_000  # notes that wait for the driver; more are dropped, and counted
WINDOW = 4  # values of a stream that are made and not fetched


class SideChannel:
    """Notes, each told once, in order."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a collected object's `__del__` may log in the midst
        self._has_news = Flag()  # for `take`; cleared before it looks, so that nothing that comes then is missed
        self._has_room = Flag()  # for `add_value`, in the same way
        self._notes: list[Note] = []
        self._dropped = 0
        self._told = 0
        self._values = 0  # among the notes
        self._is_closed = False

    def add(self, note: Note) -> None:
        """Tell something."""
        with self._lock:
            if len(self._notes) >= _MOST:
                self._dropped += 1
                return
            self._notes.append(note)
        self._has_news.set()

    def add_value(self, note: Note, is_over: Callable[[], bool]) -> bool:
        """Tell a value of a stream; waits while there are enough. False if the stream `is_over`."""
        while True:
            self._has_room.clear()
            if is_over():
                return False
            with self._lock:
                if self._values < WINDOW:
                    self._values += 1
                    self._notes.append(note)
                    break
            self._has_room.wait()
        self._has_news.set()
        return True

    def wake(self) -> None:
        """Have who waits look whether it is over."""
        self._has_room.set()

    def take(self) -> list[Note]:
        """All that there is, when there is something or the channel is closed."""
        while True:
            self._has_news.clear()
            if self._notes or self._is_closed:
                return self.drain()[1]
            self._has_news.wait()

    def drain(self) -> tuple[int, list[Note]]:
        """How many notes were told before, and all that there are now."""
        with self._lock:
            notes, self._notes, self._values = self._notes, [], 0
            if self._dropped:
                notes.append(Note(0, NoteKind.DROPPED, 0, (pickle.dumps(self._dropped), [], [])))
                self._dropped = 0
            told, self._told = self._told, self._told + len(notes)
        self._has_room.set()
        return told, notes

    def close(self) -> None:
        """The actor ends: who asks for more is answered."""
        self._is_closed = True
        self._has_news.set()
