"""Whose turn it is to load a model in this process.

Frameworks change state of the whole process while they load: the default type of tensors, what creates parameters. Two
loads at once get each other's, and so does a call beside a load. So loads take turns in the process, whatever their
Director; `Model(load_alone=False)` is loaded beside others, and `Model(load_alone=True)` while nothing else runs.

A slot that waits for its turn, or for the load of another slot, rests: it is in a call that does nothing.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director._jobs.job_runner import SlotInfo
    from director._jobs.model import Model


class LocalSlots(Protocol):
    """The slots of one open Director, whose calls are made in this process."""

    def pause(self, changed: Callable[[], None]) -> None:
        """Give the slots no more jobs; until `resume`, `changed` is called, on any thread, when a call has ended."""

    def resume(self) -> None:
        """Give the slots jobs again."""

    def running(self) -> set[int]:
        """Numbers of the slots that are in a call."""


class LoadTurns:
    """The turns of one process. For the slots' threads."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._directors: WeakSet[LocalSlots] = WeakSet()
        self._line: deque[object] = deque()  # loads that take turns, in order of arrival: the turn is the first one's
        self._beside = 0  # other loads
        self._exclusive: object = None  # the load at whose turn nothing else may begin, perhaps not all has ended
        self._is_alone = False  # all has ended
        self._resting: set[tuple[int, int]] = set()  # identity of the Director's slots, number of the slot

    def add(self, director: LocalSlots) -> None:
        """A Director opens."""
        with self._changed:
            self._directors.add(director)
            if self._exclusive is not None:  # under the lock: `_go_on` resumes it afterwards, not before
                director.pause(self._notify)

    @contextmanager
    def turn(self, model: Model[Any], director: LocalSlots, slot: SlotInfo) -> Iterator[None]:
        """Wait until `slot` may load `model`, which it does within the block."""
        if model.load_alone is False:
            with self.rest(director, slot), self._changed:
                self._changed.wait_for(lambda: self._exclusive is None)
                self._beside += 1
            try:
                yield
            finally:
                with self._changed:
                    self._beside -= 1
                    self._changed.notify_all()
            return
        me = object()
        with self.rest(director, slot), self._changed:
            self._line.append(me)
            self._changed.wait_for(lambda: self._line[0] is me)
        try:
            if model.load_alone:
                self._stop_all_but(me, director, slot)
            yield
        finally:
            if model.load_alone:
                self._go_on()
            with self._changed:
                self._line.popleft()
                self._changed.notify_all()

    @contextmanager
    def rest(self, director: LocalSlots, slot: SlotInfo) -> Iterator[None]:
        """What `slot` does within the block is to wait; it goes on when no load is alone."""
        key = (id(director), slot.number)
        with self._changed:
            self._resting.add(key)
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_alone)
                self._resting.discard(key)

    def _stop_all_but(self, me: object, director: LocalSlots, slot: SlotInfo) -> None:
        with self._changed:
            self._exclusive = me
            directors = list(self._directors)
        for each in directors:
            each.pause(self._notify)
        mine = (id(director), slot.number)
        with self._changed:
            self._changed.wait_for(lambda: not self._beside and self._running() <= {mine})
            self._is_alone = True

    def _go_on(self) -> None:
        with self._changed:
            self._exclusive, self._is_alone = None, False
            directors = list(self._directors)
            self._changed.notify_all()
        for each in directors:
            each.resume()

    def _running(self) -> set[tuple[int, int]]:
        running = {(id(each), number) for each in self._directors for number in each.running()}
        return running - self._resting

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def be_forked(self) -> None:
        """In a forked copy: no thread of those that load is here."""
        self._begin()


turns = LoadTurns()
if hasattr(os, "register_at_fork"):  # not on Windows
    # Not by `forks.watch`: its weak reference to what lives as long as the interpreter complains at the exit.
    os.register_at_fork(after_in_child=turns.be_forked)
