"""Serves the page of an app that is not a web server itself. The only importer of uvicorn."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from typing import TYPE_CHECKING
from urllib.parse import quote

import uvicorn

from director.cli._console import print_error
from director.dashboard._site import Site
from director.dashboard._source import Remote

if TYPE_CHECKING:
    from pathlib import Path

_LOCAL = ("localhost", "127.0.0.1", "::1")


async def serve_page(path: Path, host: str, port: int) -> None:
    """Serve until interrupted by Ctrl-C.

    Raises:
        OSError: The address can't be used.
    """
    token = os.environ.get("DIRECTOR_TOKEN") or (None if host in _LOCAL else secrets.token_urlsafe(24))
    listeners = _listen(host, port)
    shown = host if ":" not in host else f"[{host}]"
    address = f"http://{shown}:{_port(listeners)}/"
    print_error(address if token is None else f"{address}#token={quote(token)}")
    config = uvicorn.Config(
        Site(Remote(path), token),
        log_config=None,  # its logs are written by `escape_logs_and_errors`
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    await uvicorn.Server(config).serve(sockets=listeners)


def _listen(host: str, port: int) -> list[socket.socket]:
    """Sockets at all addresses of `host`: a name such as localhost may have two, and a browser may try only one.

    Opened here because uvicorn ends the process with a log line if the port is in use.
    """
    with contextlib.ExitStack() as undo:
        listeners: list[socket.socket] = []
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = undo.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address[0], port or _port(listeners), *address[2:]))
            listener.listen()  # connections before the server has begun wait for it
            listeners.append(listener)
        undo.pop_all()
    return listeners


def _port(listeners: list[socket.socket]) -> int:
    return int(listeners[0].getsockname()[1]) if listeners else 0
