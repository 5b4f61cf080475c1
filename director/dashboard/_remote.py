"""A Director in another process, through the socket that its app has opened. No state."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from director.dashboard._source import Crowded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from director.dashboard._source import Frame

_LONGEST_ANSWER = 2**28  # bytes; a whole is some megabytes when there are very many slots


class Remote:
    """A `director.dashboard._source.Source` at the other end of a socket.

    Args:
        path: The socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def frames(self, after: int | None = None, interval: float = 0.0) -> AsyncGenerator[Frame, None]:
        """Frames until the app has gone, which is a `ConnectionError`; see `Source.frames`."""
        async with self._ask({"ask": "frames", "after": after, "every": interval}) as answers:
            while True:
                frame = (await _line(answers)).rstrip(b"\n")
                told = json.loads(frame)
                if "number" not in told:
                    raise Crowded(str(told.get("error")))
                yield told["number"], frame

    async def snapshot(self) -> dict[str, Any]:
        """This moment, without history."""
        found: dict[str, Any] = await self._answer({"ask": "snapshot"})
        return found

    async def job(self, number: int) -> dict[str, Any] | None:
        """One job, `None` if it isn't kept."""
        found: dict[str, Any] | None = await self._answer({"ask": "job", "number": number})
        return found

    async def failure(self, number: int) -> dict[str, Any] | None:
        """One kind of failure with its examples, `None` if it isn't kept."""
        found: dict[str, Any] | None = await self._answer({"ask": "failure", "number": number})
        return found

    async def _answer(self, question: dict[str, Any]) -> Any:
        async with self._ask(question) as answers:
            return json.loads(await _line(answers))

    @contextlib.asynccontextmanager
    async def _ask(self, question: dict[str, Any]) -> AsyncIterator[asyncio.StreamReader]:
        try:
            answers, writer = await asyncio.open_unix_connection(self._path, limit=_LONGEST_ANSWER)
        except (FileNotFoundError, ConnectionError) as error:
            raise ConnectionError(f"no app listens at {self._path} any more") from error
        try:
            try:
                writer.write(json.dumps(question).encode() + b"\n")
                await writer.drain()
            except ConnectionError as error:
                raise ConnectionError(f"the app at {self._path} has gone") from error
            yield answers
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _line(answers: asyncio.StreamReader) -> bytes:
    line = await answers.readline()
    if not line.endswith(b"\n"):
        raise ConnectionError("the app has closed its socket: it has ended, or is about to")
    return line
