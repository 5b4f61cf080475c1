"""How long the server lives: until the last application has left, and a little longer. On the event loop only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from director._system.threads import call_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._ipc.sharing.lock_file import LockFile


class Applications(Protocol):
    """The applications of the server."""

    @property
    def is_empty(self) -> bool:
        """Whether none is connected."""

    def accept(self) -> None:
        """Accept those that have connected."""


class Lifetime:
    """Ends the server when no application is connected.

    An application that finds no server starts one while it holds ``start``, the lock that is taken here before the
    socket is removed: so a server that ends never removes the socket of the next one.

    Args:
        start: The lock.
        remove: Removes the socket.
        linger: Seconds without an application, after which the server ends.
    """

    def __init__(self, start: LockFile, remove: Callable[[], None], linger: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = start
        self._remove = remove
        self._linger = linger
        self._host: Applications | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_retired = False
        self.over = asyncio.Event()

    def watch(self, host: Applications) -> None:
        """Begin."""
        self._host = host
        self.look()

    def hurry(self) -> None:
        """SIGTERM: end as soon as no application is connected."""
        self._linger = 0.0
        self.look()

    def retire(self) -> None:
        """Take no more applications, so that the next one starts another server; those that are connected stay."""
        if self._is_retired:
            return
        self._is_retired, self._linger = True, 0.0
        self._remove()

    def look(self) -> None:
        """An application has come or gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._host is not None and self._host.is_empty:
            self._timer = self._loop.call_later(self._linger, self._end)

    def _end(self) -> None:
        self._timer = None
        if self._is_retired:
            self.over.set()
            return
        locked = call_once("director:lock", self._start.lock)
        locked.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._locked))

    def _locked(self) -> None:
        """No application can start a server now. One may have connected before the lock was taken."""
        assert self._host is not None
        self._host.accept()
        if self._host.is_empty:
            self._remove()
            self.over.set()
        self._start.unlock()
