"""Cancels the work of a client who has left.

A server says so only to who asks for the next part of the request, and an application that has the whole request asks
no more. So somebody else has to keep asking: a task beside the application's own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from director.asgi._exchange import Answer
from director.asgi._types import header

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
        answer = Answer(send)
        with _Cancellation(answer) as cancellation:
            line = _Line(receive, cancellation.client_has_left, header(scope, b"expect") == "100-continue")
            watching = asyncio.get_running_loop().create_task(line.watch(), name="director:disconnect")
            try:
                await self._app(scope, line.receive, answer.send)
            finally:
                watching.cancel()
                await asyncio.wait([watching])


class _Cancellation:
    """Of the task that serves a request, by us; others may cancel it too. As `asyncio.timeout` does it.

    Not by a scope of anyio: that cancels every `await` on the way out too, and what cleans up has to await.
    """

    __slots__ = ("_answer", "_before", "_is_done", "_task")

    def __init__(self, answer: Answer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self._answer = answer
        self._is_done = False

    def client_has_left(self) -> None:
        """Cancel the task; but not when the answer is complete, for servers call that leaving too."""
        if not self._answer.is_complete:
            self._is_done = True
            self._task.cancel("the client has left")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        """Nobody is left who could be answered: what we caused ends here."""
        is_ours = self._is_done and self._task.uncancel() <= self._before
        return is_ours and kind is not None and issubclass(kind, asyncio.CancelledError)


class _Line:
    """Messages of one request, between who watches for its end and the application. On the event loop only.

    Args:
        receive: The server's.
        hung_up: Called once when the client has left.
        is_held: The client waits for leave to send the body: only the application may give it, by asking.
    """

    def __init__(self, receive: Receive, hung_up: Callable[[], None], is_held: bool) -> None:
        self._receive = receive
        self._hung_up = hung_up
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._is_held = is_held
        self._last: Message | None = None  # of the client's leaving: asked for it once more, the answer is the same
        self._error: Exception | None = None
        self._arrived = asyncio.Event()
        self._wanted = asyncio.Event()

    async def watch(self) -> None:
        """Receive until the client leaves, never more than a little ahead of the application."""
        try:
            while self._last is None:
                if self._is_held or self._bytes > READ_AHEAD:
                    self._wanted.clear()
                    await self._wanted.wait()
                self._take(await self._receive())
        except Exception as error:  # noqa: BLE001 - whatever the server raised belongs to who asks for a message
            self._error = error
            self._arrived.set()

    async def receive(self) -> Message:
        """The next message, for the application."""
        while not self._messages:
            if self._last is not None:
                return self._last
            if self._error is not None:
                raise self._error
            self._is_held = False
            self._wanted.set()
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._bytes -= len(message.get("body", b""))
        self._wanted.set()
        return message

    def _take(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._last = message
            self._hung_up()
        else:
            self._messages.append(message)
            self._bytes += len(message.get("body", b""))
        self._arrived.set()
