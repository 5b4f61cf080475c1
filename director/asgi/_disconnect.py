"""Cancels the work of a client who has left.

A server says so only to who asks for the next part of the request, and an application that has the whole request asks
no more. So somebody else has to keep asking: a task beside the application's own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from director.asgi._exchange import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from director.asgi._types import App, Message, Receive, Scope, Send

READ_AHEAD = 65_536  # bytes of a body that are read before the application asks for them: what servers buffer anyway
AGAIN = 0.01  # seconds until a task that somebody else is cancelling is looked at again


class CancelOnDisconnect:
    """ASGI middleware: when the client leaves before its answer is complete, the application is cancelled.

    What it awaits raises `asyncio.CancelledError`, once: jobs of `director.run` are cancelled with it, and clean-up may
    await. Code on a thread (a ``def`` endpoint) can't be stopped; it learns of it when it returns. Background tasks run
    after the answer is complete, and are left alone.

    Put it outside of middleware that reads the request, such as Starlette's ``BaseHTTPMiddleware``.

    Args:
        app: The application.
        after: Seconds of a request in which nobody watches. What is over by then saves the cost of a task; who leaves
            in this time is noticed at its end.

    Raises:
        ValueError: `after` is negative.
    """

    def __init__(self, app: App, *, after: float = 0.05) -> None:
        if not after >= 0:
            raise ValueError(f"after must be seconds, 0 or more, not {after!r}")
        self._app = app
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with _CancelledAnswer(send) as answer:
            line = _Line(scope, receive, answer.client_has_left)
            timer = asyncio.get_running_loop().call_later(self._after, line.watch)
            try:
                await self._app(scope, line.receive, answer.send)
            finally:
                timer.cancel()
                line.close()


class _CancelledAnswer(Answer):
    """An answer that nobody may be there to get: cancels the task that makes it. Others may cancel that too.

    As `asyncio.timeout` does it, not by a scope of anyio: that cancels every `await` on the way out too, and what
    cleans up has to await.
    """

    __slots__ = ("_before", "_is_done", "_is_over", "_task")

    def __init__(self, send: Send) -> None:
        super().__init__(send)
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self._is_done = self._is_over = False

    def client_has_left(self) -> None:
        """Cancel the task, unless that has been done, or the answer is complete: servers call that leaving too."""
        if self.is_complete or self._is_over or self._is_done:
            return
        if self._task.cancelling() > self._before:  # cleaning up for somebody else, a timeout say: it may go on then
            asyncio.get_running_loop().call_later(AGAIN, self.client_has_left)
            return
        self._is_done = True
        self._task.cancel("the client has left")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        """Nobody is left who could be answered: what we caused ends here."""
        self._is_over = True
        is_ours = self._is_done and self._task.uncancel() <= self._before
        return is_ours and kind is not None and issubclass(kind, asyncio.CancelledError)


class _Line:
    """Messages of one request, between the server and the application. On the event loop only.

    Until somebody watches, what the application asks for goes right through. Who watches keeps asking in its place, and
    never while it asks itself: a message must not end up with the wrong one.

    Args:
        scope: Of the request.
        receive: The server's.
        hung_up: Called when the client has left.
    """

    __slots__ = ("_arrived", "_asking", "_bytes", "_error", "_has_asked", "_hung_up", "_is_due", "_is_over", "_last",
                 "_messages", "_receive", "_scope", "_wanted", "_watching")  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, hung_up: Callable[[], None]) -> None:
        self._scope = scope
        self._receive = receive
        self._hung_up = hung_up
        self._asking = 0  # how often the application is asking the server
        self._has_asked = self._is_due = self._is_over = False
        self._watching: asyncio.Task[None] | None = None
        self._messages: deque[Message] = deque()  # that were received before they were asked for
        self._bytes = 0
        self._last: Message | None = None  # of the client's leaving: asked for it once more, the answer is the same
        self._error: Exception | None = None
        self._arrived: asyncio.Event | None = None  # for the application, while it waits
        self._wanted: asyncio.Event | None = None  # for who watches, while enough was read ahead

    def watch(self) -> None:
        """From now on, or from when the application asks no more itself."""
        self._is_due = True
        if self._asking or self._is_over or self._watching is not None or self._last is not None:
            return
        if not self._has_asked and any(name == b"expect" for name, _ in self._scope["headers"]):
            return  # the client waits for leave to upload, which asking gives
        self._watching = asyncio.get_running_loop().create_task(self._keep_asking(), name="director:disconnect")

    async def receive(self) -> Message:
        """The next message, for the application."""
        if self._watching is None and self._last is None:
            self._take(await self._ask())
            if self._last is not None:
                await asyncio.sleep(0)  # be cancelled here, before anybody makes an error of it
        while not self._messages:
            if self._last is not None:
                return self._last
            if self._error is not None:
                raise self._error
            if self._arrived is None or self._arrived.is_set():
                self._arrived = asyncio.Event()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._bytes -= len(message.get("body", b""))
        if self._wanted is not None:
            self._wanted.set()
        return message

    def close(self) -> None:
        """The application has ended: watch no more."""
        self._is_over = True
        if self._watching is not None:
            self._watching.cancel()  # ends at the next turn of the loop, and holds nothing that anybody waits for
            self._watching = None  # it refers to us: a cycle for each request would be work for the collector

    async def _ask(self) -> Message:
        self._asking += 1
        try:
            return await self._receive()
        finally:
            self._asking -= 1
            self._has_asked = True
            if self._is_due:
                self.watch()

    async def _keep_asking(self) -> None:
        """Receive until the client leaves, never more than a little ahead of the application."""
        try:
            while self._last is None:
                if self._bytes > READ_AHEAD:
                    self._wanted = asyncio.Event()
                    await self._wanted.wait()
                self._take(await self._receive())
        except Exception as error:  # noqa: BLE001 - whatever the server raised belongs to who asks for a message
            self._error = error
        if self._error is not None and self._arrived is not None:
            self._arrived.set()

    def _take(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._last = message
            # Soon, not now: the application may be the one that asked, and a task that cancels itself takes the
            # cancellation along to wherever it waits next.
            asyncio.get_running_loop().call_soon(self._hung_up)
        else:
            self._messages.append(message)
            self._bytes += len(message.get("body", b""))
        if self._arrived is not None:
            self._arrived.set()
