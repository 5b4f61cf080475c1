"""Types of ASGI, as https://asgi.readthedocs.io defines it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a header of the request, by its name in lower case; the first if there are several."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name), None)


class Answer:
    """Passes the answer to one request on, and records its progress; give `send` to the application."""

    __slots__ = ("_send", "_trailers", "has_begun", "is_complete")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._trailers = False
        self.has_begun = False
        self.is_complete = False

    async def send(self, message: Message) -> None:
        """Record whether the answer has begun and is complete, and pass the message on."""
        match message["type"]:
            case "http.response.start":
                self.has_begun = True
                self._trailers = message.get("trailers", False)
            case "http.response.body" | "http.response.zerocopysend":
                self.is_complete = not (message.get("more_body", False) or self._trailers)
            case "http.response.pathsend":
                self.is_complete = not self._trailers
            case "http.response.trailers":
                self.is_complete = not message.get("more_trailers", False)
        await self._send(message)
