"""An event loop on virtual time: an hour of sleeping takes a millisecond, and always ends in the same order."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from selectors import SelectorKey

PATIENCE = 20.0  # real seconds, after which a loop that nobody will ever wake is called a deadlock


class SimLoop(asyncio.SelectorEventLoop):
    """`time()` stands still while there is something to do, and jumps to the next timer when there is not.

    A thread or process at work outside is invisible to a loop: time must not run away from it. `work_outside` says that
    there is one, and time then stands still until the loop hears from it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._outside = 0
        self._select = self._selector.select  # type: ignore[attr-defined]  # not in typeshed; stable since 3.4
        self._selector.select = self._wait  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now

    @contextmanager
    def work_outside(self) -> Iterator[None]:
        """Within this block somebody outside the loop is at work and will call it."""
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1

    async def shutdown_default_executor(self, *args: float | None) -> None:
        with self.work_outside():  # its threads, which it waits for
            await super().shutdown_default_executor(*args)

    def _wait(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if self._outside and timeout != 0:
            return self._select(None)
        events = self._select(PATIENCE if timeout is None else 0)
        if events:
            return events
        if timeout is None:
            raise RuntimeError(f"Deadlock: no timer is set and nothing has called the loop for {PATIENCE:g} s.")
        self._now += timeout
        return events
