"""The dashboard as a pure ASGI app: one page, its files, a stream of frames, jobs by number. It is read-only.

It may be mounted anywhere: the page's addresses are relative, and only the path below the mount point is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from director.dashboard._access import AccessCheck, hide_token
from director.dashboard._http import BEARER, Reply, find_file
from director.dashboard._source import RETRY_AFTER, TooManyViewers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from director.dashboard._http import Receive, Scope, Send
    from director.dashboard._source import Frame, Source

LONGEST_STREAM = 10.0  # seconds
"""A stream ends after this time, and the page requests the next one.

A server that shuts down waits for its open answers,

and an endless one would keep it from ending."""


_PATIENCE = 1.0  # seconds that the end of a stream may take
_TO_ENTER = ("enter.js", "page.css", "icon.svg")  # files of the page that asks for the token


class Site:
    """An ASGI app that shows the data of a source."""

    def __init__(self, source: Source, token: str | None = None, longest_stream: float = LONGEST_STREAM) -> None:
        self._source = source
        self._door = AccessCheck(token)
        self._longest = longest_stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _serve_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003, "reason": "there are no websockets here"})
        else:
            await self._answer(hide_token(scope), receive, Reply(scope, send))

    async def _answer(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await reply.text(405, "The dashboard only reads.\n", [(b"allow", b"GET, HEAD")])
        elif refusal := self._door.refusal(scope):
            await self._refuse(refusal, scope, reply)
        else:
            await self._route(scope, receive, reply)

    async def _refuse(self, refusal: tuple[int, str], scope: Scope, reply: Reply) -> None:
        status, why = refusal
        path = _path(scope)
        if status == 401 and path in _TO_ENTER:
            await reply.file(find_file(path))
        elif status == 401 and path in ("", "index.html"):
            # The page that sends the token from the fragment of its address.
            if not await self._add_slash(scope, reply):
                await reply.file(find_file("enter.html"), 401)
        else:
            await reply.text(status, why, [BEARER] if status == 401 else [])

    async def _route(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        try:
            match _path(scope).split("/"):
                case ["" | "index.html"]:
                    await self._show_page(scope, reply)
                case ["session"] if cookie := self._door.cookie(scope):
                    await reply.text(200, "", [(b"set-cookie", cookie.encode())])
                case ["events"]:
                    await self._stream(scope, receive, reply)
                case ["snapshot"]:
                    await reply.document(await self._source.snapshot())
                case ["jobs", word] if (number := _number(word)) is not None:
                    await reply.document(await self._source.job(number))
                case ["failures", word] if (number := _number(word)) is not None:
                    await reply.document(await self._source.failure(number))
                case parts:
                    await reply.file(find_file("/".join(parts)))
        except TooManyViewers as crowded:
            await reply.text(503, f"{crowded}.\n", [(b"retry-after", b"%d" % RETRY_AFTER)])
        except ConnectionError as gone:
            await reply.text(502, f"{gone}\n")

    async def _show_page(self, scope: Scope, reply: Reply) -> None:
        cookie = self._door.cookie(scope)
        if cookie is not None and self._door.is_in_address(scope):
            # A redirect removes the token from the address and from the history of the browser.
            await reply.redirect(f"./{_last_part(scope)}", [(b"set-cookie", cookie.encode())])
        elif not await self._add_slash(scope, reply):
            await reply.file(find_file("index.html"))

    async def _add_slash(self, scope: Scope, reply: Reply) -> bool:
        """Redirect a browser from the mount point without a slash, where relative addresses would be wrong."""
        place = _last_part(scope)
        is_needed = place != "" and not _path(scope)
        if is_needed:
            await reply.redirect(f"./{place}/")
        return is_needed

    async def _stream(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        async with contextlib.aclosing(self._source.frames(*_stream_options(scope))) as frames:
            first = await anext(frames)  # before the answer begins: the source may be gone
            async with _until_disconnect(receive, self._longest):
                await reply.begin_stream()
                if scope["method"] != "HEAD":
                    await reply.event(*first)
                    await _forward(frames, reply)
        if scope["method"] != "HEAD":
            with contextlib.suppress(TimeoutError):  # a viewer that doesn't read would block this for ever
                async with asyncio.timeout(_PATIENCE):
                    await reply.end_stream()


@contextlib.asynccontextmanager
async def _until_disconnect(receive: Receive, seconds: float) -> AsyncGenerator[None, None]:
    """End the block when the client has disconnected, or after `seconds`."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            leaving = asyncio.create_task(_end_on_disconnect(receive, limit), name="director:leaving")
            try:
                yield
            finally:
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)
    except TimeoutError:
        if not limit.expired():
            raise


async def _forward(frames: AsyncGenerator[Frame, None], reply: Reply) -> None:
    with contextlib.suppress(OSError):  # the source or the browser has disconnected
        async for frame in frames:
            await reply.event(*frame)


async def _end_on_disconnect(receive: Receive, limit: asyncio.Timeout) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    limit.reschedule(asyncio.get_running_loop().time())


async def _serve_lifespan(receive: Receive, send: Send) -> None:
    """Answer the lifespan protocol, for a server that serves only this app; there is nothing to start or stop."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _path(scope: Scope) -> str:
    """The path below the mount point; some frameworks remove the prefix, others don't."""
    root: str = scope.get("root_path", "")
    path: str = scope["path"]
    return path.removeprefix(root).strip("/")


def _last_part(scope: Scope) -> str:
    """The part after the last slash of the path, as it was requested."""
    raw = scope.get("raw_path")  # some servers don't set it
    path: str = quote(scope["path"]) if raw is None else raw.decode("latin-1")
    return path.rpartition("/")[2]


def _stream_options(scope: Scope) -> tuple[int | None, float]:
    """The number of the last frame that the viewer has, and the seconds between frames that it wants."""
    wanted = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    headers = {key.lower(): value for key, value in scope["headers"]}
    after = headers.get(b"last-event-id", b"").decode("latin-1") or wanted.get("after", [""])[0]
    try:
        every = min(60.0, max(0.0, float(wanted.get("every", ["0"])[0])))
    except ValueError:
        every = 0.0
    return _number(after), every


def _number(word: str) -> int | None:
    return int(word) if re.fullmatch("[0-9]{1,18}", word) else None
