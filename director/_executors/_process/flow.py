"""The values of a stream on their way from a child: never more of them than the parent has room for.

The child may have `WINDOW` values under way; each that the reader's bridge has taken is a credit for one more. Without
that a quick generator of large values would fill memory behind a slow reader, however small the frames are.
"""

from __future__ import annotations

import os
import select

WINDOW = 4  # values that are made, and that nobody has taken yet


class Credits:
    """A counter that both sides have: an eventfd, from which each read takes one.

    Args:
        descriptor: Of it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def give(self) -> None:
        """In the parent: one more."""
        os.eventfd_write(self._descriptor, 1)

    def take(self) -> None:
        """In the child: wait for one."""
        os.eventfd_read(self._descriptor)

    def clear(self) -> None:
        """In the child: forget those of a stream that ended early."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while poll.poll(0):
            self.take()
