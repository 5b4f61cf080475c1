"""Cancels the work of a client who has left.

A server says so only to who asks for the next part of the request, and an application that has the whole request asks
no more. So somebody else has to keep asking: a task beside the application's own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from director.asgi._types import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from director.asgi._types import App, Message, Receive, Scope, Send

AGAIN = 0.01  # seconds until a task that somebody else is cancelling is looked at again


class CancelOnDisconnect:
    """ASGI middleware: when the client leaves before its answer is complete, the application is cancelled.

    What it awaits raises `asyncio.CancelledError`, once: jobs of `director.run` are cancelled with it, and clean-up may
    await. Code on a thread (a ``def`` endpoint) can't be stopped; it learns of it when it returns. Background tasks run
    after the answer is complete, and are left alone.

    Put it outside of middleware that reads the request, such as Starlette's ``BaseHTTPMiddleware``.

    Args:
        app: The application.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _WatchedAnswer(scope, receive, send)
        asyncio.get_running_loop().call_soon(exchange.watch)  # not now: what never waits is over by then
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.end():
                raise
        finally:  # nobody is left who could be answered: what we caused ends here
            exchange.end()


class _WatchedAnswer(Answer):
    """One request and its answer, which is cancelled if nobody is there to get it. On the event loop only.

    Until somebody watches, what the application asks for goes right through. That is not begun while it asks: a message
    must not end up with the wrong one.

    It cancels the task as `asyncio.timeout` does, not by a scope of anyio, which cancels every `await` on the way out
    too, and what cleans up has to await.
    """

    __slots__ = ("_ahead", "_asking", "_before", "_has_asked", "_has_left", "_is_cancelled", "_is_due", "_is_over",
                 "_receive", "_scope", "_task")  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(send)
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self._scope = scope
        self._receive = receive
        self._ahead: ReadAhead | None = None  # who watches
        self._asking = 0  # how often the application is asking the server
        self._has_asked = self._has_left = self._is_due = self._is_cancelled = self._is_over = False

    def watch(self) -> None:
        """From now on, or from when the application asks no more."""
        self._is_due = True
        if self._asking or self._is_over or self._has_left or self._ahead is not None:
            return
        if not self._has_asked and any(name == b"expect" for name, _ in self._scope["headers"]):
            return  # the client waits for leave to upload, which asking gives, so the application is first
        self._ahead = ReadAhead(self._receive, self._client_has_left)

    async def receive(self) -> Message:
        """The next message, for the application."""
        if self._ahead is not None:
            return await self._ahead.receive()
        if self._has_left:  # asked once more, a server may say nothing
            return {**LEFT}
        self._asking += 1
        try:
            message = await self._receive()
        finally:
            self._asking -= 1
            self._has_asked = True
            if self._is_due:
                asyncio.get_running_loop().call_soon(self.watch)
        if message["type"] == "http.disconnect":
            self._has_left = True
            asyncio.get_running_loop().call_soon(self._client_has_left)
            await asyncio.sleep(0)  # be cancelled here, before anybody makes an error of it
        return message

    def _client_has_left(self) -> None:
        """Cancel the task, unless that has been done, or the answer is complete: servers call that leaving too.

        Called by the loop: a task that cancels itself takes the cancellation along to wherever it waits next.
        """
        self._has_left = True
        if self.is_complete or self._is_over or self._is_cancelled:
            return
        if self._task.cancelling() > self._before:  # cleaning up for somebody else, a timeout say: it may go on then
            asyncio.get_running_loop().call_later(AGAIN, self._client_has_left)
            return
        self._is_cancelled = True
        self._task.cancel("the client has left")

    def end(self) -> bool:
        """The application has ended: watch no more. Returns whether a cancellation is ours alone; once."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None  # it refers to us: a cycle for each request would be work for the collector
        is_ours = self._is_cancelled and not self._is_over and self._task.uncancel() <= self._before
        self._is_over = True
        return is_ours


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
        self._asking: asyncio.Task[None] | None = loop.create_task(self._read_ahead(), name="director:disconnect")

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

    async def _read_ahead(self) -> None:
        """Until the client leaves, never more than a little ahead of the application."""
        try:
            while not self._has_left:
                if self._bytes > MOST:
                    self._wanted = asyncio.Event()
                    await self._wanted.wait()
                self._store(await self._receive())
        except Exception as error:  # noqa: BLE001 - whatever the server raised belongs to who asks for a message
            self._error = error
        if self._error is not None and self._arrived is not None:
            self._arrived.set()

    def _store(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._has_left = True
            if self._asking is not None:
                asyncio.get_running_loop().call_soon(self._hung_up)
        else:
            self._messages.append(message)
            self._bytes += len(message.get("body", b""))
        if self._arrived is not None:
            self._arrived.set()


T = TypeVar("T")
