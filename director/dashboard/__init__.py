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
from director.dashboard._socket_paths import check_length, new_path, own_folder, server_path
from director.dashboard._source import Remote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from director import Director
    from director.dashboard._http import Receive, Scope, Send
    from director.dashboard._source import Source

__all__ = ["Dashboard"]


class Dashboard:
    """Shows one Director: an ASGI app to mount or to serve, and a socket for `director top`. It only reads.

    It handles the Director's events, keeps the last minutes in bounded memory, and computes what is shown only while
    there are viewers. It works on the Director's event loop, so an app that it is mounted in must run there.

    Of a Director with ``server=`` it shows the server process, with the jobs of all its applications: the same in each
    of them. The server records from the first viewer on, until there was none for five minutes.

    Args:
        director: The Director; it must not have been started, unless it has ``server=``.
        token: What a browser has to send: once behind ``#token=`` at the end of the address, which the page removes
            and keeps as a cookie, or in an ``Authorization: Bearer`` header. Without one, only requests from this
            machine that come through no proxy are answered. The socket needs none: it is open to
            this user alone.

    Raises:
        RuntimeError: The Director is running.
        ValueError: The token is empty.
    """

    def __init__(self, director: Director, *, token: str | None = None) -> None:
        self._director = director
        self._source: Source
        self._server_path = None if director.server is None else server_path(director.server)
        if self._server_path is None:
            self._source = Feed(director)
        else:
            director._show_server(str(self._server_path))
            self._source = Remote(self._server_path)
        self._site = Site(self._source, token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request.

        Cancellation: ends the answer.
        """
        await self._site(scope, receive, send)

    @contextlib.asynccontextmanager
    async def serve(self, path: Path | str | None = None) -> AsyncIterator[Path]:
        """Open a Unix socket that `director top` reads, until the end of the block.

        With ``server=`` the server process opens it, once for all applications, and until it ends.

        Args:
            path: Where; by default ``$XDG_RUNTIME_DIR/director/<pid>.sock``, or where there is no such directory,
                ``/tmp/director-<uid>/<pid>.sock``; of a server process ``server-<name>.sock``. `director top` finds
                those by itself.

        Raises:
            OSError: It can't be opened: the path is taken or too long, or others may write to its folder.

        Cancellation: disconnects the viewers and removes the socket.
        """
        if self._server_path is not None:
            chosen = _usable(self._server_path if path is None else Path(path))
            self._director._show_server(str(chosen))
            yield chosen
            return
        server = SocketServer(self._source, new_path() if path is None else Path(path))
        await server.open()
        try:
            yield server.path
        finally:
            await server.close()

    async def snapshot(self) -> dict[str, Any]:
        """The current state as viewers see it, without history, as a JSON document.

        Raises:
            RuntimeError: Called on another event loop than the Director's.
            ConnectionError: The server process of ``server=`` is not there.
        """
        return await self._source.snapshot()


def _usable(path: Path) -> Path:
    """A path for another process, which opens the socket.

    Raises:
        OSError: It is too long, or others may write to its folder.
    """
    own_folder()
    path = path.absolute()
    check_length(path)
    return path
