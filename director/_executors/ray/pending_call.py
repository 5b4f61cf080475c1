"""One call on its way to an actor and back. The slot's thread's, but for `end`, which the event loop calls."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from director._executors.remote.runner import CallState, PendingCall
from director._ipc.protocol import CallStyle

if TYPE_CHECKING:
    from director._executors.ray.messages import Answer, Payload
    from director._jobs.job import ScheduledJob


class RayCall(PendingCall):
    """A call, and all that has come of it so far.

    Args:
        jobs: Whose; with several of them it is a batch.
        fn: The function.
        args: Its arguments but for the resource; of a batch its items.
        style: In which way it is called.
    """

    __slots__ = (
        "answer",
        "args",
        "ends_at",
        "fn",
        "heard",
        "is_ending",
        "is_withdrawn",
        "life",
        "progress",
        "read_at",
        "reference",
        "refusal",
        "sent_at",
        "style",
        "taken",
        "values",
    )

    def __init__(
        self, jobs: list[ScheduledJob[Any]], fn: Any, args: tuple[Any, ...], style: CallStyle = CallStyle.WITH_RESOURCE
    ) -> None:
        super().__init__(jobs)
        self.fn = fn
        self.args = args
        self.style = style
        self.reference: Any = None  # Ray's, of its answer
        self.sent_at = self.read_at = 0.0  # when it was sent, and its answer was read
        self.answer: Answer | None = None  # the last one; filed here until it is the turn of the call
        self.progress: Payload | None = None  # what was reported and not looked at yet
        self.heard = -1  # the place of the last report
        self.values: dict[int, Payload] = {}  # of a stream, by their places: those that were not handed over yet
        self.taken = 0  # values that were
        self.refusal: BaseException | None = None  # of the reader of a stream
        self.ends_at = math.inf  # when its actor is ended
        self.is_ending = False
        self.is_withdrawn = False  # the actor was asked to forget it
        self.life: object | None = None  # which actor it was lost with

    def end(self, at: float) -> None:
        """End its actor at the time `at` if it has not come back by then."""
        self.ends_at = min(self.ends_at, at)

    def begin(self) -> None:
        """It is known to have begun."""
        if self.state is CallState.SENT:
            self.move(CallState.BEGUN)

    def lose(self, life: object) -> None:
        """It had begun, or may have, in an actor that is gone."""
        self.begin()
        self.move(CallState.LOST)
        self.life = life

    def return_to_queue(self) -> None:
        """It has not begun and never will under this number."""
        self.move(CallState.QUEUED)
        self.number, self.reference = -1, None
        self.is_withdrawn = False
