"""Calls objects right after a fork, in the child process, so that they release what belongs to the parent.

Threads don't survive a fork, and open descriptors do. Without this a forked child would wait for ever for results that
no thread delivers, and would hold the parent's pipes open after the parent has ended.

The only thread in the child is the one that called `fork`. If that is a worker thread, a job has forked, and its
function may return in the child to a worker that would go on to run the parent's jobs. `leave_copy` ends the child
there.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING
from weakref import WeakMethod

if TYPE_CHECKING:
    from collections.abc import Callable

# Threads that call users' functions, by identifier; each adds and removes itself.
workers: set[int] = set()
# In a forked child: the worker thread that has forked. Checked after each call of a user's function.
copied: set[int] = set()
_watchers: set[WeakMethod[Callable[[int], None]]] = set()


def watch(be_forked: Callable[[int], None]) -> None:
    """Call a method in each forked child with the id of its parent process, as long as the method's object is alive."""
    _watchers.add(WeakMethod(be_forked, _watchers.discard))


def leave_copy(error: BaseException | None = None) -> None:
    """End the process if a user's call on this thread has forked and this is the child. Called after each such call.

    It ends as children of `multiprocessing` do: output is flushed, no exit handler runs, and the status is 0, that of a
    `SystemExit`, or 1 for another error, whose traceback is printed.
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


# Objects of modules are collected when the interpreter ends, after what the callbacks of weak references need.
atexit.register(_watchers.clear)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_notify_all)
