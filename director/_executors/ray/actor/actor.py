"""The class of the actors: the few methods that may be called from outside, and nothing else.

Ray wraps every method of an actor's class in one that looks for a trace, private ones too. What does the work is
therefore an object of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._executors.ray.actor.worker import Worker

if TYPE_CHECKING:
    from director._executors.ray.messages import Hardware

GROUPS = {"calls": 3, "notes": 1, "control": 2}
"""Ray's threads for them: two calls on their way and one that is over; one question for notes; what must not wait."""


class DirectorWorker:
    """One actor, under the name that Ray's tools show; see `Worker`."""

    def __init__(
        self, name: str, is_first: bool, levels: dict[str, int], accelerator: str, expected: Hardware | None
    ) -> None:
        self._worker = Worker(name, is_first, levels, accelerator, expected)

    def call(self, content: bytes, *extras: list[Any]) -> bytes | tuple[Any, ...]:
        """Make a call in its turn; the answer."""
        return self._worker.call(content, extras)

    def listen(self) -> bytes | tuple[Any, ...]:
        """The notes that there are, when there are some."""
        return self._worker.listen()

    def hardware(self) -> Hardware:
        """What it computes on."""
        return self._worker.hardware()

    def begun(self) -> tuple[int, ...]:
        """The numbers of the last calls that have begun in its slot, in this actor or one before."""
        return self._worker.begun()

    def request(self, number: int, what: int) -> None:
        """Say something about a call, or withdraw it."""
        self._worker.queue.request(number, what)

    def farewell(self) -> bytes | tuple[Any, ...]:
        """Unload everything; the notes that are left."""
        return self._worker.farewell()
