"""The side messages of an actor: log records, reports, values of streams. For any thread, under one lock."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING

from director._executors.ray.messages import SideMessage, SideMessageKind
from director._system.threads import Flag

if TYPE_CHECKING:
    from collections.abc import Callable


_MOST = 10_000  # messages that wait for the driver; more log records and reports are dropped, and counted
WINDOW = 4  # values of a stream that wait for the driver


class SideChannel:
    """Side messages, each sent once, in order."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer may log while its thread holds it
        self._has_messages = Flag()  # for `take`; cleared before its check, so that no message is missed
        self._has_room = Flag()  # for `add_value`; the same
        self._messages: list[SideMessage] = []
        self._dropped = 0
        self._sent = 0
        self._values = 0  # among the messages
        self._is_closed = False

    def add(self, message: SideMessage) -> None:
        """Send a log record or a report."""
        with self._lock:
            if len(self._messages) >= _MOST:
                self._dropped += 1
                return
            self._messages.append(message)
        self._has_messages.set()

    def add_value(self, message: SideMessage, is_unwanted: Callable[[], bool]) -> bool:
        """Send a value of a stream, when there is room in the window; False if the stream `is_unwanted`."""
        while True:
            self._has_room.clear()
            if is_unwanted():
                return False
            with self._lock:
                if self._values < WINDOW:
                    self._values += 1
                    self._messages.append(message)
                    break
            self._has_room.wait()
        self._has_messages.set()
        return True

    def wake(self) -> None:
        """Have `add_value` check again whether its stream is wanted."""
        self._has_room.set()

    def take(self) -> list[SideMessage]:
        """Wait for messages, or for the end of the channel; returns all."""
        while True:
            self._has_messages.clear()
            if self._messages or self._is_closed:
                return self.drain()[1]
            self._has_messages.wait()

    def drain(self) -> tuple[int, list[SideMessage]]:
        """How many messages were sent before, and all that are to be sent now."""
        with self._lock:
            messages, self._messages, self._values = self._messages, [], 0
            if self._dropped:
                messages.append(SideMessage(0, SideMessageKind.DROPPED, 0, (pickle.dumps(self._dropped), [], [])))
                self._dropped = 0
            sent_before, self._sent = self._sent, self._sent + len(messages)
        self._has_room.set()
        return sent_before, messages

    def close(self) -> None:
        """The actor ends: `take` waits no longer."""
        self._is_closed = True
        self._has_messages.set()
