"""The way from the slots' threads to the event loop: many posts, one wake-up.

Each finished job is appended; the loop is rung only if no ring is on its way, and then delivers everything that is
there. (A ring for each job writes to the loop's self-pipe each time, which gives up the GIL between two jobs.) Those of
a batch come as one post, which the loop unpacks.
"""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from director._core.doorbell import Doorbell

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._core.job import Job


_Future = asyncio.Future  # as it is now: nest_asyncio puts another in its place
# A job that has returned (with its value as cargo), or a call.
Post: TypeAlias = "Job[Any] | tuple[Callable[..., object], tuple[Any, ...]]"


class Outbox:
    """Jobs that have returned, and calls, on their way to the loop, in order. Any thread posts; the loop delivers.

    Args:
        loop: The event loop of the Director.
    """

    deliver: Callable[[], None]
    """Called on the loop when there are posts, to take them. Set once, before the first post."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.posts: deque[Post] = deque()
        self.ringing = False
        self.left = 0  # of the posts, how many the delivery that goes on is still to take; the loop's
        self._loop = loop
        self.doorbell = Doorbell(loop, lambda: self.deliver())

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        """Have the loop call `fn`, after what was posted before."""
        self.posts.append((fn, args))
        if not self.ringing:
            self.ring()

    def on_loop(self, fn: Callable[..., object], *args: Any) -> None:
        """Have the loop call `fn`: now if we are there, else soon."""
        if _get_running_loop() is self._loop:
            fn(*args)
        else:
            self.call(fn, *args)

    def ring(self) -> None:
        """Have the loop deliver; for whoever has appended a post and found that nobody is `ringing`."""
        self.ringing = True  # two threads may both ring: harmless, the second delivery finds nothing
        try:
            self.doorbell.ring()
        except BaseException:  # a signal's handler has raised: the next post must ring
            self.ringing = False
            raise

    def stop(self, nobody_rings: bool) -> None:
        """Deliver what is there, and then no more; `nobody_rings`: no thread is left that could post."""
        self.deliver()
        self.doorbell.stop(nobody_rings)

    def begin(self) -> None:
        """On the loop: what is there now is to be delivered; what arrives meanwhile comes with the next ring."""
        self.ringing = False  # before looking: a post that comes too late for this delivery must ring again
        self.left = len(self.posts)

    def unpack(self, jobs: list[Job[Any]]) -> None:
        """On the loop, while it delivers: these came in one post, and are next."""
        self.posts.extendleft(reversed(jobs))
        self.left += len(jobs)

    def __bool__(self) -> bool:
        return bool(self.posts)

    def jobs(self) -> list[Job[Any]]:
        """Jobs whose outcome is on its way."""
        jobs: list[Job[Any]] = []
        for post in self.posts.copy():
            first = post[1][0] if isinstance(post, tuple) and post[1] else post
            if isinstance(first, _Future):
                jobs.append(first)  # type: ignore[arg-type]  # only jobs are
            elif isinstance(first, list):  # those of a batch
                jobs += first
        return jobs
