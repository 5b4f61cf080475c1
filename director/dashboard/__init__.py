"""What a running Director does, live: on a web page, in a terminal, as JSON. Needs no package beyond the core's.

::

    director = Director()
    dashboard = Dashboard(director)              # before the Director starts

    app.mount("/gpu", dashboard)                 # a page in any ASGI app
    async with dashboard.serve(), director:      # or a socket, for `director top` and `director top --web`
        ...
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from director.dashboard._feed import Feed
from director.dashboard._site import Site
from director.dashboard._socket import SocketServer
from director.dashboard._socket_paths import new_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from director import Director
    from director.dashboard._http import Receive, Scope, Send

__all__ = ["Dashboard"]


class Dashboard:
    """Shows one Director: an ASGI app to mount or to serve, and a socket for `director top`. It only reads.

    It handles the Director's events, keeps the last minutes in bounded memory, and computes what is shown only while
    there are viewers. It works on the Director's event loop, so an app that it is mounted in must run there.

    Args:
        director: The Director; it must not have been started.
        token: What a browser has to send: once behind ``#token=`` at the end of the address, which the page removes
            and keeps as a cookie, or in an ``Authorization: Bearer`` header. Without one, only requests from this
            machine that come through no proxy are answered. The socket needs none: it is open to
            this user alone.

    Raises:
        RuntimeError: The Director is running.
        ValueError: The token is empty.
    """

    def __init__(self, director: Director, *, token: str | None = None) -> None:
        self._feed = Feed(director)
        self._site = Site(self._feed, token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request.

        Cancellation: ends the answer.
        """
        await self._site(scope, receive, send)

    @contextlib.asynccontextmanager
    async def serve(self, path: Path | str | None = None) -> AsyncIterator[Path]:
        """Open a Unix socket that `director top` reads, until the end of the block.

        Args:
            path: Where; by default ``$XDG_RUNTIME_DIR/director/<pid>.sock``, or where there is no such directory,
                ``/tmp/director-<uid>/<pid>.sock``. `director top` finds those by itself.

        Raises:
            OSError: It can't be opened: the path is taken or too long, or others may write to its folder.

        Cancellation: disconnects the viewers and removes the socket.
        """
        server = SocketServer(self._feed, new_path() if path is None else Path(path))
        await server.open()
        try:
            yield server.path
        finally:
            await server.close()

    async def snapshot(self) -> dict[str, Any]:
        """The current state as viewers see it, without history, as a JSON document.

        Raises:
            RuntimeError: Called on another event loop than the Director's.
        """
        return await self._feed.snapshot()
