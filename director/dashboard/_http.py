"""The answer to one HTTP request, in terms of ASGI. No state but that of the answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

from director.dashboard._source import pieces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    pass

    Scope: TypeAlias = MutableMapping[str, Any]
    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    Headers: TypeAlias = list[tuple[bytes, bytes]]
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", _POLICY.encode()),
]
BEARER = (b"www-authenticate", b"Bearer")
_TEXT = "text/plain; charset=utf-8"


class Reply:
    """The answer to one request; a HEAD gets it without the body."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._scope = scope
        self._with_body = scope["method"] != "HEAD"

    async def text(self, status: int, text: str, headers: Headers | None = None) -> None:
        """Plain text, as for errors."""
        await self._whole(status, _TEXT, text.encode(), [(b"cache-control", b"no-store"), *(headers or [])])

    async def document(self, document: dict[str, Any] | None) -> None:
        """A JSON document, or 404 for none."""
        if document is None:
            await self.text(404, "It is not there, or not kept any more.\n")
            return
        body = json.dumps(document, allow_nan=False).encode()
        await self._whole(200, "application/json", body, [(b"cache-control", b"no-store")])

    async def redirect(self, target: str, headers: Headers | None = None) -> None:
        """To an address relative to this one."""
        await self.text(307, "", [(b"location", target.encode()), *(headers or [])])

    async def file(self, file: File | None, status: int = 200) -> None:
        """A file of the page, or 404 for none; 304 if the browser has it."""
        if file is None:
            await self.text(404, "There is no such page.\n")
            return
        if status != 200:
            await self._whole(status, file.kind, file.content, [(b"cache-control", b"no-store"), BEARER])
            return
        headers = [(b"cache-control", b"no-cache"), (b"etag", file.etag.encode())]
        known = next((value for key, value in self._scope["headers"] if key.lower() == b"if-none-match"), b"")
        if file.etag.encode() in known:
            await self._whole(304, file.kind, b"", headers)
        else:
            await self._whole(200, file.kind, file.content, headers)

    async def begin_stream(self) -> None:
        """Begin a stream of server-sent events."""
        await self._start(200, "text/event-stream", [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")])
        await self._part(b"retry: 250\n\n", more=self._with_body)

    async def event(self, number: int, content: bytes) -> None:
        """One event of a stream."""
        for piece in pieces(b"id: %d\ndata: %b\n\n" % (number, content)):
            await self._part(piece, more=True)
            # Other callbacks run between the writes to many viewers.
            await asyncio.sleep(0)

    async def end_stream(self) -> None:
        """End the stream."""
        await self._part(b"", more=False)

    async def _whole(self, status: int, kind: str, body: bytes, headers: Headers) -> None:
        await self._start(status, kind, [(b"content-length", str(len(body)).encode()), *headers])
        await self._part(body, more=False)

    async def _start(self, status: int, kind: str, headers: Headers) -> None:
        headers = [(b"content-type", kind.encode()), *headers, *_ALWAYS]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _part(self, body: bytes, *, more: bool) -> None:
        body = body if self._with_body else b""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class File:
    """One file of the page."""

    kind: str
    content: bytes
    etag: str


def find_file(path: str) -> File | None:
    """The file at `path` below the page's folder, `None` if there is none."""
    return _all_files().get(path)


@cache
def _all_files() -> dict[str, File]:
    return dict(_walk(files("director.dashboard") / "page", ""))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, File]]:
    for entry in folder.iterdir():
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _walk(entry, f"{path}/")
        elif (kind := _TYPES.get(path.rpartition(".")[2])) is not None:
            content = entry.read_bytes()
            yield path, File(kind, content, f'"{hashlib.sha256(content).hexdigest()[:16]}"')
