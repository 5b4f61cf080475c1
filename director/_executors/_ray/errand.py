"""One call that is under way in an actor. The slot's thread's, but for `end`, which the event loop calls."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from director._core.job import Job
    from director._executors._ray.letter import Call


class Errand:
    """A call, its number, and when it must end.

    Args:
        call: What is to be done.
        number: Counts the calls of the slot, from 1.
    """

    __slots__ = (
        "_heard",
        "_lock",
        "began",
        "call",
        "ends_at",
        "is_ended",
        "is_handed",
        "jobs",
        "number",
        "read",
        "reference",
        "refusal",
        "sent",
    )

    def __init__(self, call: Call, number: int) -> None:
        self.call = call
        self.jobs: list[Job[Any]] = call.jobs
        self.number = number
        self.ends_at = math.inf  # when its actor is ended
        self.is_ended = False
        self.began = 0.0  # when its turn had come
        self.sent = self.read = 0.0  # moments of the call and of its answer
        self.reference: Any = None  # of what comes of the letter that it begins, until Ray is asked to tell
        self.is_handed = False  # past Ray's queue
        self._heard = 0  # of the progress that was told; `_lock` guards it, for two threads may tell
        self._lock = threading.Lock()
        self.refusal: BaseException | None = None  # of the reader of a stream

    def end(self, moment: float) -> None:
        """End its actor at `moment` if it has not come back by then."""
        self.ends_at = min(self.ends_at, moment)

    def is_news(self, sequence: int) -> bool:
        """Whether something that was told is newer than what was heard; it is heard now."""
        with self._lock:
            if sequence <= self._heard:
                return False
            self._heard = sequence
            return True
