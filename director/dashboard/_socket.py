"""The socket of a running app: a request is a line of JSON, as are answers. Owner of the connections: the SocketServer.

| request | answer |
|---|---|
| `{"ask": "frames", "after": 7, "every": 0.5}` | frames, until the viewer disconnects |
| `{"ask": "snapshot"}` | one document |
| `{"ask": "job", "number": 7}`, `{"ask": "failure", "number": 7}` | one document, or `null` |

A request that is not valid is answered by `{"error": ...}`. Permissions of the file system admit only this user.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from director.dashboard._socket_paths import check_length, remove_socket
from director.dashboard._source import TooManyViewers, pieces

if TYPE_CHECKING:
    from pathlib import Path

    from director.dashboard._source import Source

_LONGEST_QUESTION = 4096  # bytes


class SocketServer:
    """Answers requests on a Unix socket, on the running event loop."""

    def __init__(self, source: Source, path: Path) -> None:
        self._source = source
        self.path = path
        self._viewers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._inode = -1  # of the file, once it is there

    async def open(self, *, replace: bool = False) -> None:
        """Listen.

        Args:
            replace: Take the path over from another socket of this user.

        Raises:
            OSError: The path can't be used.
        """
        check_length(self.path)
        with contextlib.ExitStack() as undo:
            listener = undo.enter_context(socket.socket(socket.AF_UNIX))
            # Before it has a path that another user could connect to.
            os.fchmod(listener.fileno(), 0o600)
            if replace:
                remove_socket(self.path)
            listener.bind(str(self.path))
            undo.callback(self.path.unlink)
            self._inode = self.path.lstat().st_ino
            self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=_LONGEST_QUESTION)
            undo.pop_all()

    async def close(self) -> None:
        """Disconnect the viewers and remove the socket."""
        with contextlib.suppress(FileNotFoundError):
            if self.path.lstat().st_ino == self._inode:  # else it is that of another process, which has replaced it
                self.path.unlink()
        if self._server is not None:
            self._server.close()
        viewers = list(self._viewers)
        for viewer in viewers:
            viewer.cancel()
        await asyncio.gather(*viewers, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        viewer = asyncio.get_running_loop().create_task(self._serve_connection(reader, writer), name="director:viewer")
        self._viewers.add(viewer)
        viewer.add_done_callback(self._viewers.discard)

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while question := await _next_question(reader, writer):
                await self._answer(question, reader, writer)
            writer.close()
            await writer.wait_closed()
        except OSError:
            pass  # the viewer has gone
        finally:
            # A viewer that does not read would keep the connection from closing.
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = parse_question(line)
        except ValueError as error:
            await _write(writer, {"error": str(error)})
            return
        match question.ask:
            case "frames":
                try:
                    await self._send_frames(question, reader, writer)
                except TooManyViewers as crowded:
                    await _write(writer, {"error": str(crowded)})
            case "snapshot":
                await _write(writer, await self._source.snapshot())
            case "job":
                await _write(writer, await self._source.job(question.number))
            case "failure":
                await _write(writer, await self._source.failure(question.number))

    async def _send_frames(
        self, question: Question, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # Done when the viewer has disconnected.
        left = asyncio.create_task(_read_until_closed(reader), name="director:leaving")
        try:
            async with contextlib.aclosing(self._source.frames(question.after, question.every)) as frames:
                async for _, frame in frames:
                    await _send(writer, frame)
                    if left.done():
                        break
        finally:
            left.cancel()


async def _read_until_closed(reader: asyncio.StreamReader) -> None:
    """Read and discard what a viewer sends, until it has disconnected."""
    with contextlib.suppress(OSError):
        while await reader.read(_LONGEST_QUESTION):
            pass


async def _next_question(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    try:
        return await reader.readline()
    except ValueError:
        writer.write(b'{"error":"the question is too long"}\n')
        return b""


@dataclass(frozen=True, slots=True)
class Question:
    """A parsed request."""

    ask: str
    number: int = 0
    after: int | None = None
    every: float = 0.0


def parse_question(line: bytes) -> Question:
    """Parse a request.

    Raises:
        ValueError: It is not valid.
    """
    try:
        question = Question(**json.loads(line))
    except (TypeError, ValueError) as error:
        raise ValueError(f'not a question: {error}. Ask {{"ask": "frames"}}, for example') from None
    if question.ask not in ("frames", "snapshot", "job", "failure"):
        raise ValueError('"ask" is one of "frames", "snapshot", "job", "failure"')
    if type(question.number) is not int or type(question.after) not in (int, type(None)):
        raise ValueError('"number" and "after" are whole numbers')
    if type(question.every) not in (int, float) or not 0 <= question.every <= 3600:
        raise ValueError('"every" is a number of seconds')
    return question


async def _write(writer: asyncio.StreamWriter, document: dict[str, Any] | None) -> None:
    await _send(writer, json.dumps(document).encode())


async def _send(writer: asyncio.StreamWriter, line: bytes) -> None:
    # uvloop logs a warning for writes to a closing connection.
    if writer.is_closing():
        raise ConnectionResetError("the viewer has gone")
    for piece in pieces(line + b"\n"):
        writer.write(piece)
        await writer.drain()
        # Other callbacks run between the writes to many viewers.
        await asyncio.sleep(0)
