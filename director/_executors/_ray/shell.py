"""The class of the actors: the few methods that may be called from outside, and nothing else.

Ray wraps every method of an actor's class in one that looks for a trace, private ones too. What does the work is
therefore an object of its own.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from director._executors._ray.reply import together
from director._executors._ray.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director._executors._ray.wire import About, Answer


class DirectorWorker:
    """One actor, under the name that Ray's tools show; see `Worker`."""

    def __init__(self, mark: str, levels: dict[str, int]) -> None:
        self._worker = Worker(mark, levels)

    # On the call thread:

    def call(self, letter: bytes, *args: Any) -> bytes | tuple[Any, ...]:
        """Make the calls of a letter, and those that are handed in meanwhile; gives the answers that were not told."""
        return self._worker.serve(letter, args)

    def stream(self, letter: bytes, *args: Any) -> Iterator[Answer]:
        """Make a generator, and give its values."""
        yield from self._worker.stream(letter, args)

    def farewell(self) -> list[tuple[int, bytes]]:
        """Unload everything."""
        return self._worker.farewell()

    # Aside:

    def about(self, accelerator: str) -> About:
        """Who and where it is."""
        return self._worker.about(accelerator)

    def notice(self, number: int, notice: int) -> None:
        """Nobody waits any more for a call."""
        self._worker.notices.post(number, notice)

    def withdraw(self, numbers: list[int]) -> list[int]:
        """Take back calls that have not begun."""
        return self._worker.notices.withdraw(numbers)

    def hand_in(self, letter: bytes, *args: Any) -> bool:
        """Calls for the call thread to go on with; False if it has left."""
        return self._worker.hand_in(letter, args)

    def listen(self) -> bytes:
        """What there is to tell."""
        notes, answers = self._worker.notes.take()
        return pickle.dumps((notes, together(answers)))
