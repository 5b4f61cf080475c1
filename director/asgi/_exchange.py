"""Watching what an application sends: whether its answer has begun, and whether it is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from director.asgi._types import Message, Send


class Answer:
    """The answer to one request on its way out; give `send` to the application.

    Args:
        send: The server's.
    """

    __slots__ = ("_send", "_trailers", "has_begun", "is_complete")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._trailers = False
        self.has_begun = False
        self.is_complete = False

    async def send(self, message: Message) -> None:
        """Take note of a message and pass it on."""
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
