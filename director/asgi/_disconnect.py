"""Cancels the application when the client has disconnected.

A server reports a disconnect only to a call of `receive`, and an application that has read the whole request does not
call it again. So another task keeps calling `receive` while the application runs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from director.asgi._types import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from director.asgi._types import App, Message, Receive, Scope, Send

AGAIN = 0.01  # seconds between checks of a task that other code is cancelling


class CancelOnDisconnect:
    """ASGI middleware: when the client leaves before its answer is complete, the application is cancelled.

    What it awaits raises `asyncio.CancelledError`, once: jobs of `director.run` are cancelled with it, and clean-up may
    await. Code on a thread (a ``def`` endpoint) can't be stopped; the cancellation takes effect when it returns.
    Background tasks run after the answer is complete and are not cancelled.

    Add it outside of middleware that reads the request, such as Starlette's ``BaseHTTPMiddleware``.

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
        # Not at once: an application that never waits has ended by then, and needs no task.
        asyncio.get_running_loop().call_soon(exchange.watch)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.end():
                raise
        finally:
            # The client has disconnected, so a cancellation that this middleware caused ends here.
            exchange.end()


class _WatchedAnswer(Answer):
    """One request and its answer, cancelled if the client disconnects. On the event loop only.

    Until reading ahead has begun, calls of `receive` are passed to the server. Reading ahead does not begin during such
    a call: two readers could get each other's messages.

    It cancels the task as `asyncio.timeout` does, not by a cancel scope of anyio, which would also cancel each `await`
    of the clean-up.
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
        # Reads ahead; `None` before it has begun and after `end`.
        self._ahead: ReadAhead | None = None
        # Calls of the server's `receive` that the application has pending.
        self._asking = 0
        self._has_asked = self._has_left = self._is_due = self._is_cancelled = self._is_over = False

    def watch(self) -> None:
        """Begin to read ahead, now or when the pending `receive` of the application has returned."""
        self._is_due = True
        if self._asking or self._is_over or self._has_left or self._ahead is not None:
            return
        if not self._has_asked and any(name == b"expect" for name, _ in self._scope["headers"]):
            # The client waits for `100 Continue`, which `receive` sends: the application decides when.
            return
        self._ahead = ReadAhead(self._receive, self._client_has_left)

    async def receive(self) -> Message:
        """The next message, for the application."""
        if self._ahead is not None:
            return await self._ahead.receive()
        if self._has_left:  # a second call of the server's `receive` may never return
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
            # Let the cancellation be raised here, before the application turns the disconnect into an error.
            await asyncio.sleep(0)
        return message

    def _client_has_left(self) -> None:
        """Cancel the task, unless that has been done or the answer is complete: servers report a disconnect then too.

        Called by the loop: in a task that cancels itself the cancellation would be raised at its next `await`.
        """
        self._has_left = True
        if self.is_complete or self._is_over or self._is_cancelled:
            return
        # Other code, such as a timeout, is cancelling the task, which may go on afterwards.
        if self._task.cancelling() > self._before:
            asyncio.get_running_loop().call_later(AGAIN, self._client_has_left)
            return
        self._is_cancelled = True
        self._task.cancel("the client has left")

    def end(self) -> bool:
        """The application has ended: stop reading ahead. Returns whether this object alone cancelled the task; once."""
        if self._ahead is not None:
            self._ahead.close()
            # Avoids a reference cycle per request.
            self._ahead = None
        is_ours = self._is_cancelled and not self._is_over and self._task.uncancel() <= self._before
        self._is_over = True
        return is_ours


MOST = 65_536  # bytes of a body that are read before the application asks for them: what servers buffer anyway
LEFT: Message = {"type": "http.disconnect"}


class ReadAhead:
    """Calls the server's `receive` instead of the application, which gets its messages from here. On the event loop.

    Args:
        receive: The server's.
        hung_up: Called by the loop when the client has disconnected.
    """

    def __init__(self, receive: Receive, hung_up: Callable[[], None]) -> None:
        self._receive = receive
        self._hung_up = hung_up
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._has_left = False
        self._error: Exception | None = None
        # Set when a message has arrived; exists while the application waits for one.
        self._arrived: asyncio.Event | None = None
        # Set when the application has taken messages; exists while `MOST` bytes wait.
        self._wanted: asyncio.Event | None = None
        loop = asyncio.get_running_loop()
        self._asking: asyncio.Task[None] | None = loop.create_task(self._read_ahead(), name="director:disconnect")

    async def receive(self) -> Message:
        """The next message, for the application."""
        while not self._messages:
            if self._has_left:
                return {**LEFT}  # for every further call
            if self._error is not None:
                raise self._error
            if self._arrived is None or self._arrived.is_set():
                # One event for all pending calls, because any of them may get the message.
                self._arrived = asyncio.Event()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._bytes -= len(message.get("body", b""))
        if self._wanted is not None:
            self._wanted.set()
        return message

    def close(self) -> None:
        """Stop reading ahead.

        A server that has sent the whole answer returns from `receive` as if the client had disconnected. So the task
        mostly ends by itself before it would be cancelled, at a fraction of the cost. No other task waits for it.
        """
        # An error of the task would refer to this object: a reference cycle per request.
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.get_loop().call_soon(asking.cancel)

    async def _read_ahead(self) -> None:
        """Receive messages until the client disconnects, at most `MOST` bytes ahead of the application."""
        try:
            while not self._has_left:
                if self._bytes > MOST:
                    self._wanted = asyncio.Event()
                    await self._wanted.wait()
                self._store(await self._receive())
        except Exception as error:  # noqa: BLE001 - an error of the server is raised in the application's `receive`
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
