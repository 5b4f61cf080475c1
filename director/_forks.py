"""What a forked copy of this process must not take for its own is told so, right after the fork.

Threads don't survive a fork, and open descriptors do: a copy would wait for ever for answers that no thread brings,
and would keep the other ends of its parent's pipes from seeing that the parent has ended.

The one thread that survives is the one that has forked. If that is a worker thread, then a job has forked, and in the
copy its function may return: to a worker that would take the jobs of its parent. So the copy ends there.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING
from weakref import WeakMethod

if TYPE_CHECKING:
    from collections.abc import Callable

workers: set[int] = set()  # threads that make calls of users; each enters and leaves by itself
copied: set[int] = set()  # of these the one that has forked, in the copy: whoever has made a call of a user asks it
_watchers: set[WeakMethod[Callable[[int], None]]] = set()


def watch(be_forked: Callable[[int], None]) -> None:
    """Call a method in each forked copy, with the id of the process it was forked from, while its object is held."""
    _watchers.add(WeakMethod(be_forked, _watchers.discard))


def leave_copy(error: BaseException | None = None) -> None:
    """After a call of a user on a thread of ours: end the process if the call has forked, and this is the copy.

    It ends as children of `multiprocessing` do: what was printed is flushed, no exit handler runs, and the status is 0,
    that of a `SystemExit`, or 1 for another error, whose traceback is printed.

    Args:
        error: What the call has raised.
    """
    if get_ident() not in copied:
        return
    status = 0
    with suppress(BaseException):
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            status = 1
            sys.excepthook(type(error), error, error.__traceback__)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(status & 0xFF)


def _notify_all() -> None:
    copied.clear()
    if get_ident() in workers:
        copied.add(get_ident())
    workers.clear()
    origin = os.getppid()
    for watcher in list(_watchers):
        if (be_forked := watcher()) is not None:
            be_forked(origin)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_notify_all)
