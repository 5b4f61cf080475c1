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
        with _Cancellation(Answer(send)) as cancellation:
            line = _Line(receive, cancellation.client_has_left)
            if not any(name == b"expect" for name, _ in scope["headers"]):
                asyncio.get_running_loop().call_soon(line.watch_unless_asked)
            try:
                await self._app(scope, line.receive, cancellation.answer.send)
            finally:
                line.close()


class _Cancellation:
    """Of the task that serves a request, by us; others may cancel it too. As `asyncio.timeout` does it.

    Not by a scope of anyio: that cancels every `await` on the way out too, and what cleans up has to await.
    """

    __slots__ = ("_before", "_is_done", "_is_over", "_task", "answer")

    def __init__(self, answer: Answer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self.answer = answer
        self._is_done = self._is_over = False

    def client_has_left(self) -> None:
        """Cancel the task, unless that has been done, or the answer is complete: servers call that leaving too."""
        if not (self.answer.is_complete or self._is_over or self._task.cancelling() > self._before):
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

    As long as the application asks for them itself, they go right through. Watched is when it does not ask: from the
    beginning (a request without a body is never asked for), and after each message it got.

    A client may wait for leave to send the body (``Expect: 100-continue``), which asking gives: then nobody may watch
    before the application has asked.

    Args:
        receive: The server's.
        hung_up: Called once when the client has left.
    """

    __slots__ = ("_arrived", "_bytes", "_error", "_hung_up", "_is_asked", "_last", "_messages", "_receive", "_wanted",
                 "_watching")  # fmt: skip

    def __init__(self, receive: Receive, hung_up: Callable[[], None]) -> None:
        self._receive = receive
        self._hung_up = hung_up
        self._watching: asyncio.Task[None] | None = None
        self._is_asked = False
        self._messages: deque[Message] = deque()  # that were received before they were asked for
        self._bytes = 0
        self._last: Message | None = None  # of the client's leaving: asked for it once more, the answer is the same
        self._error: Exception | None = None
        self._arrived: asyncio.Event | None = None  # for the application, while it waits
        self._wanted: asyncio.Event | None = None  # for who watches, while enough was read ahead

    def watch_unless_asked(self) -> None:
        """Begin to watch, unless the application has begun to ask."""
        if not self._is_asked:
            self._watch()

    async def receive(self) -> Message:
        """The next message, for the application."""
        if self._watching is None and self._last is None:
            self._is_asked = True
            try:
                self._take(await self._receive())
            finally:
                self._watch()
        while not self._messages:
            if self._last is not None:
                return self._last
            if self._error is not None:
                raise self._error
            self._arrived = asyncio.Event()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._bytes -= len(message.get("body", b""))
        if self._wanted is not None:
            self._wanted.set()
        return message

    def close(self) -> None:
        """The application has ended: watch no more."""
        self._is_asked = True
        if self._watching is not None:
            self._watching.cancel()  # ends at the next turn of the loop, and holds nothing that anybody waits for
            self._watching = None  # it refers to us: a cycle for each request would be work for the collector

    def _watch(self) -> None:
        if self._watching is None and self._last is None:
            self._watching = asyncio.get_running_loop().create_task(self._keep_asking(), name="director:disconnect")

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
