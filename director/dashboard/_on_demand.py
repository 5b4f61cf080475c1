"""The dashboard of a Director that may run for weeks without a viewer: it is recorded only while there is one.

Used by the server process, which opens a socket for it when an application has a dashboard. On the event loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from director.dashboard._feed import Feed
from director.dashboard._socket import SocketServer
from director.dashboard._socket_paths import own_folder
from director.dashboard._tally import SECONDS
from director.dashboard._view import Shown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from director.dashboard._recorder import Recorder
    from director.dashboard._source import Frame

KEPT = float(SECONDS)  # without a viewer, after which recording stops: then nothing is left of what was seen


class ShownRunning(Shown, Protocol):
    """What can be recorded from any time on, until any time."""

    @property
    def opened_at(self) -> float:
        """When it was opened, by its clock."""

    def remove_hook(self, hook: Recorder) -> None:
        """Tell the recorder no more."""


class OnDemand:
    """A `director.dashboard._source.Source` that records nothing until a viewer connects."""

    def __init__(self, director: ShownRunning) -> None:
        self._director = director
        self._feed: Feed | None = None
        self._viewers = 0
        self._timer: asyncio.TimerHandle | None = None  # stops recording

    async def frames(self, after: int | None = None, interval: float = 0.0) -> AsyncGenerator[Frame, None]:
        """Yield frames without end; see `Source.frames`."""
        with self._recorded() as feed:
            async with contextlib.aclosing(feed.frames(after, interval)) as frames:
                async for frame in frames:
                    yield frame

    async def snapshot(self) -> dict[str, Any]:
        """The current state, without history."""
        with self._recorded() as feed:
            return await feed.snapshot()

    async def job(self, number: int) -> dict[str, Any] | None:
        """One job, `None` if it isn't kept."""
        with self._recorded() as feed:
            return await feed.job(number)

    async def failure(self, number: int) -> dict[str, Any] | None:
        """One kind of failure with its examples, `None` if it isn't kept."""
        with self._recorded() as feed:
            return await feed.failure(number)

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[Feed]:
        """The feed, for one viewer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._feed is None:
            self._feed = Feed(self._director, self._director.opened_at)
        self._viewers += 1
        try:
            yield self._feed
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._timer = asyncio.get_running_loop().call_later(KEPT, self.stop)

    def stop(self) -> None:
        """Record nothing until a viewer connects again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._feed is not None:
            self._director.remove_hook(self._feed.recorder)
            self._feed = None


class Sockets:
    """The sockets of one Director, at the paths that applications ask for."""

    def __init__(self, director: ShownRunning) -> None:
        self._source = OnDemand(director)
        self._servers: dict[str, SocketServer] = {}

    async def open(self, path: str) -> None:
        """Open a socket, unless it is open. One that another server process has had at that path is replaced.

        Raises:
            OSError: It can't be opened: the path is too long, or has no folder, or something else than a socket.
        """
        if path in self._servers:
            return
        own_folder()  # where it usually is
        server = self._servers[path] = SocketServer(self._source, Path(path))
        try:
            await server.open(replace=True)
        except BaseException:
            del self._servers[path]
            raise

    async def close(self) -> None:
        """Disconnect the viewers, and remove the sockets."""
        for server in self._servers.values():
            await server.close()
        self._source.stop()
