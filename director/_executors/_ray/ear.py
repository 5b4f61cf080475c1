"""Hears what an actor tells beside its answers: log records, and how far its jobs are. One question is always open."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from director._executors._ray.pickling import loads

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._executors._ray.claim import Actor

logger = logging.getLogger("director")


class Ear:
    """Listens to one actor. `_is_open` is written by the slot's thread while it is False, else by Ray's.

    Args:
        actor: Whom to ask.
        take: Called with what it tells.
        told: Called with answers as they travel, on any thread.
        aside: Has a function called on a thread for that, for Ray's own must not wait for anybody.
    """

    def __init__(
        self,
        actor: Actor,
        take: Callable[[int, Any], None],
        told: Callable[[bytes], None],
        aside: Callable[[Callable[[], object]], object],
    ) -> None:
        self._actor = actor
        self._take = take
        self._told = told
        self._aside = aside
        self._is_open = False

    def listen(self) -> None:
        """Ask, unless a question is open."""
        if not self._is_open:
            self._is_open = True
            self._ask()

    def _ask(self) -> None:
        self._actor.listen().future().add_done_callback(self._be_answered)

    def _be_answered(self, future: Any) -> None:
        """On a thread of Ray's."""
        if future.exception() is not None:  # the actor has ended; the next call asks its successor
            self._is_open = False
            return
        notes, answers = loads(future.result())
        self._told(answers)
        self._aside(lambda: self._hear(notes))

    def _hear(self, notes: list[tuple[int, bytes]]) -> None:
        self._ask()
        for number, packed in notes:
            try:
                self._take(number, loads(packed))
            except Exception:
                logger.exception("what an actor of Ray's says can't be understood")
