"""Reads a request a little ahead of the application, to see when its client leaves."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from director.asgi._types import Message, Receive

MOST = 65_536  # bytes of a body that are read before the application asks for them: what servers buffer anyway
LEFT: Message = {"type": "http.disconnect"}


class ReadAhead:
    """Asks the server from now on, in the place of the application, which gets its messages here. On the event loop.

    Args:
        receive: The server's.
        hung_up: Called by the loop when the client has left.
    """

    def __init__(self, receive: Receive, hung_up: Callable[[], None]) -> None:
        self._receive = receive
        self._hung_up = hung_up
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._has_left = False
        self._error: Exception | None = None
        self._arrived: asyncio.Event | None = None  # for the application, while it waits
        self._wanted: asyncio.Event | None = None  # for ourselves, while enough was read
        loop = asyncio.get_running_loop()
        self._asking: asyncio.Task[None] | None = loop.create_task(self._keep_asking(), name="director:disconnect")

    async def receive(self) -> Message:
        """The next message, for the application."""
        while not self._messages:
            if self._has_left:
                return {**LEFT}  # however often it asks
            if self._error is not None:
                raise self._error
            if self._arrived is None or self._arrived.is_set():
                self._arrived = asyncio.Event()  # one for all who wait: each of them may be the one that has to go on
            await self._arrived.wait()
        message = self._messages.popleft()
        self._bytes -= len(message.get("body", b""))
        if self._wanted is not None:
            self._wanted.set()
        return message

    def close(self) -> None:
        """Ask no more.

        A server that has sent the whole answer answers who asks, as if the client had left, so the task mostly ends by
        itself before it would be cancelled, at a fraction of the cost. It holds nothing that anybody waits for.
        """
        asking, self._asking = self._asking, None  # an error in it would lead back to us: a cycle for each request
        if asking is not None:
            asking.get_loop().call_soon(asking.cancel)

    async def _keep_asking(self) -> None:
        """Until the client leaves, never more than a little ahead of the application."""
        try:
            while not self._has_left:
                if self._bytes > MOST:
                    self._wanted = asyncio.Event()
                    await self._wanted.wait()
                self._take(await self._receive())
        except Exception as error:  # noqa: BLE001 - whatever the server raised belongs to who asks for a message
            self._error = error
        if self._error is not None and self._arrived is not None:
            self._arrived.set()

    def _take(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._has_left = True
            if self._asking is not None:
                asyncio.get_running_loop().call_soon(self._hung_up)
        else:
            self._messages.append(message)
            self._bytes += len(message.get("body", b""))
        if self._arrived is not None:
            self._arrived.set()
