"""What a forked copy of this process must not take for its own is told so, right after the fork.

Threads don't survive a fork, and open descriptors do: a copy would wait for ever for answers that no thread brings,
and would keep the other ends of its parent's pipes from seeing that the parent has ended.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from weakref import WeakMethod

if TYPE_CHECKING:
    from collections.abc import Callable

_watchers: set[WeakMethod[Callable[[int], None]]] = set()


def watch(be_forked: Callable[[int], None]) -> None:
    """Call a method in each forked copy, with the id of the process it was forked from, while its object is held."""
    _watchers.add(WeakMethod(be_forked, _watchers.discard))


def _tell_all() -> None:
    origin = os.getppid()
    for watcher in list(_watchers):
        if (be_forked := watcher()) is not None:
            be_forked(origin)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_tell_all)
