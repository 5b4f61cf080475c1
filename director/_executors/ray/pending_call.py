"""One call on its way to an actor and back. For the slot's thread; `end` for the event loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from director._executors.remote.calls import CallState, PendingCall
from director._ipc.protocol import CallStyle

if TYPE_CHECKING:
    from director._executors.ray.messages import Answer, Payload
    from director._jobs.job import ScheduledJob


class RayCall(PendingCall):
    """A call, and all that was received of it; of a batch the arguments are its items."""

    __slots__ = (
        "actor",
        "answer",
        "ends_at",
        "is_ending",
        "is_withdrawn",
        "last_report",
        "lost_with",
        "progress",
        "read_at",
        "reference",
        "sent_at",
        "taken",
        "values",
    )

    def __init__(
        self, jobs: list[ScheduledJob[Any]], fn: Any, args: tuple[Any, ...], style: CallStyle = CallStyle.WITH_RESOURCE
    ) -> None:
        super().__init__(jobs, fn, args, style)
        self.reference: Any = None  # Ray's reference of its answer
        self.sent_at = self.read_at = 0.0  # by the monotonic clock; the answer was received at the second
        self.actor: object = None  # the identity of the actor to which it was sent, see `CallEncoder`
        self.answer: Answer | None = (
            None  # set when it is received, perhaps before the slot's thread waits for the call
        )
        self.progress: Payload | None = None  # the last report, until it is handled
        self.last_report = -1  # its index
        self.values: dict[int, Payload] = {}  # of a stream, by index: those that the reader has not got
        self.taken = 0  # values that the reader has got
        self.ends_at = math.inf  # when its actor is killed
        self.is_ending = False
        self.is_withdrawn = False  # the actor was asked to give it back
        self.lost_with: object | None = None  # the incarnation of the actor

    def end(self, at: float) -> None:
        """Kill its actor at the time `at` if it has not ended by then."""
        self.ends_at = min(self.ends_at, at)

    def begin(self) -> None:
        """The call has begun."""
        if self.state is CallState.SENT:
            self.move(CallState.BEGUN)

    def lose(self, incarnation: object) -> None:
        """The call has begun, or may have, and its actor is dead."""
        self.begin()
        self.move(CallState.LOST)
        self.lost_with = incarnation

    def return_to_queue(self) -> None:
        """The call has not begun, and never begins under this number."""
        self.move(CallState.QUEUED)
        self.number, self.reference = -1, None
        self.is_withdrawn = False
