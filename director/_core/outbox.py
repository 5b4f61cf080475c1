"""The way from the slots' threads to the event loop: many posts, one wake-up.

Each finished job is appended; the loop is rung only if no ring is on its way, and then delivers everything that is
there. (A ring for each job writes to the loop's self-pipe each time, which gives up the GIL between two jobs.)
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from director._core.job import Job

Outcome: TypeAlias = "tuple[Job[Any], Any, BaseException | None]"


class Outbox:
    """Outcomes and calls on their way to the loop, in order. Any thread posts; only the loop delivers.

    Args:
        loop: The event loop of the Director.
    """

    settle: Callable[[Job[Any], Any, BaseException | None], None]
    """Called on the loop with each outcome: job, value, error. Set once, before the first post."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posts: deque[Outcome | tuple[None, Callable[..., object], tuple[Any, ...]]] = deque()
        self._append = self._posts.append
        self._ringing = False

    def post(self, job: Job[Any], value: Any, error: BaseException | None) -> None:
        """Send the outcome of a job."""
        self._append((job, value, error))
        if not self._ringing:
            self._ring()

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        """Have the loop call `fn`, after what was posted before."""
        self._append((None, fn, args))
        if not self._ringing:
            self._ring()

    def deliver(self) -> None:
        """On the loop: hand over what is there now; what arrives meanwhile comes with the next ring."""
        self._ringing = False  # before looking: a post that comes too late for this delivery must ring again
        posts = self._posts
        for _ in range(len(posts)):
            post = posts.popleft()
            if post[0] is None:
                post[1](*post[2])
            else:
                self.settle(*post)

    def __bool__(self) -> bool:
        return bool(self._posts)

    def jobs(self) -> list[Job[Any]]:
        """Jobs whose outcome is on its way."""
        return [post[0] for post in self._posts.copy() if post[0] is not None]

    def _ring(self) -> None:
        # Two threads may both ring: harmless, the second delivery finds nothing.
        self._ringing = True
        try:
            self._loop.call_soon_threadsafe(self.deliver)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            # The loop was closed under the Director: nobody is left who could wait for this.
