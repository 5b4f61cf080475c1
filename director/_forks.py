"""What a forked copy of this process must not take for its own is told so, right after the fork.

Threads don't survive a fork, and open descriptors do: a copy would wait for ever for answers that no thread brings,
and would keep the other ends of its parent's pipes from seeing that the parent has ended.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Owned(Protocol):
    """Something that belongs to the process that made it."""

    def be_forked(self, origin: int) -> None:
        """This is a copy of the process `origin`, in which nothing else runs."""


_owned: WeakSet[Owned] = WeakSet()


def watch(one: Owned) -> None:
    """Tell `one` of forks, as long as anybody holds it."""
    _owned.add(one)


def _tell_all() -> None:
    origin = os.getppid()
    for one in list(_owned):
        one.be_forked(origin)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_tell_all)
