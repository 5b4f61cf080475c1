"""The class of the actors: only the methods that are called remotely.

Ray wraps each method of an actor class for tracing, private ones too, so the work is done by an object of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._executors.ray.actor.main import ActorMain

if TYPE_CHECKING:
    from director._executors.ray.messages import Hardware

GROUPS = {"calls": 3, "messages": 1, "control": 2}
"""Ray's concurrency groups and their threads: two calls in flight, one that returns; side messages; urgent requests."""


class DirectorWorker:
    """One actor; Ray's tools show this name. See `ActorMain`."""

    def __init__(
        self, name: str, is_first: bool, levels: dict[str, int], accelerator: str, expected: Hardware | None
    ) -> None:
        self._main = ActorMain(name, is_first, levels, accelerator, expected)

    def call(self, content: bytes, *extras: list[Any]) -> bytes | tuple[Any, ...]:
        """Make a call after those before it; returns the answer."""
        return self._main.call(content, extras)

    def next_messages(self) -> bytes | tuple[Any, ...]:
        """The next side messages; waits for one."""
        return self._main.next_messages()

    def hardware(self) -> Hardware:
        """The hardware that Ray has assigned to it."""
        return self._main.hardware()

    def last_begun(self) -> tuple[int, ...]:
        """The numbers of the last calls that have begun in its slot, in this actor or one before."""
        return self._main.last_begun()

    def request(self, number: int, what: int) -> None:
        """Withdraw or notify a call."""
        self._main.queue.request(number, what)

    def shut_down(self) -> bytes | tuple[Any, ...]:
        """Unload everything; returns the last side messages."""
        return self._main.shut_down()
