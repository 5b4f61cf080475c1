"""What an actor tells beside its answers: log records, progress, values of streams. For any thread, behind one lock."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING

from director._executors._ray.wire import Note, NoteKind

if TYPE_CHECKING:
    from collections.abc import Callable


_MOST = 10_000  # notes that wait for the driver; more are dropped, and counted
WINDOW = 4  # values of a stream that are made and not fetched


class SideChannel:
    """Notes, each told once, in order."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # its lock is reentrant: a collected object's `__del__` may log
        self._notes: list[Note] = []
        self._dropped = 0
        self._told = 0
        self._values = 0  # among the notes
        self._is_closed = False

    def add(self, note: Note) -> None:
        """Tell something."""
        with self._changed:
            if len(self._notes) >= _MOST:
                self._dropped += 1
                return
            self._notes.append(note)
            self._changed.notify_all()

    def add_value(self, note: Note, is_over: Callable[[], bool]) -> bool:
        """Tell a value of a stream; waits while there are enough. False if the stream `is_over`."""
        with self._changed:
            while self._values >= WINDOW and not is_over():
                self._changed.wait()
            if is_over():
                return False
            self._values += 1
            self._notes.append(note)
            self._changed.notify_all()
            return True

    def wake(self) -> None:
        """Have who waits look whether it is over."""
        with self._changed:
            self._changed.notify_all()

    def take(self) -> list[Note]:
        """All that there is, when there is something or the channel is closed."""
        with self._changed:
            while not self._notes and not self._is_closed:
                self._changed.wait()
            return self.drain()[1]

    def drain(self) -> tuple[int, list[Note]]:
        """How many notes were told before, and all that there are now."""
        with self._changed:
            notes, self._notes, self._values = self._notes, [], 0
            if self._dropped:
                notes.append(Note(0, NoteKind.DROPPED, 0, (pickle.dumps(self._dropped), [], [])))
                self._dropped = 0
            self._changed.notify_all()
            told, self._told = self._told, self._told + len(notes)
            return told, notes

    def close(self) -> None:
        """The actor ends: who asks for more is answered."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
