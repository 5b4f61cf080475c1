"""The protocol between what shows a Director and where the data comes from: this process, or another one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator
    from pathlib import Path

    pass

Frame: TypeAlias = tuple[int, bytes]
"""A number, and a JSON document without line breaks."""


RETRY_AFTER = 5  # seconds
_PIECE = 65_536  # bytes


class TooManyViewers(ConnectionError):
    """There are as many viewers as allowed; retry after `RETRY_AFTER` seconds."""


def pieces(content: bytes) -> Iterator[bytes]:
    """The parts that are written at once: at most one is buffered for a viewer that doesn't read."""
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]


class Source(Protocol):
    """The data of one Director. A source that has gone raises `ConnectionError`."""

    def frames(self, after: int | None = None, interval: float = 0.0) -> AsyncGenerator[Frame, None]:
        """Yield frames without end: the whole first, unless all frames after `after` are kept. Raises `TooManyViewers`.

        Args:
            after: The number of the last frame that the viewer has.
            interval: Seconds between frames, if more than the source's own.
        """

    async def snapshot(self) -> dict[str, Any]:
        """The current state, without history."""

    async def job(self, number: int) -> dict[str, Any] | None:
        """One job, `None` if it isn't kept."""

    async def failure(self, number: int) -> dict[str, Any] | None:
        """One kind of failure with its examples, `None` if it isn't kept."""


_LONGEST_ANSWER = 2**28  # bytes; a whole is some megabytes when there are very many slots


class Remote:
    """A `director.dashboard._source.Source` at the other end of a socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def frames(self, after: int | None = None, interval: float = 0.0) -> AsyncGenerator[Frame, None]:
        """Yield frames until the app has gone, which raises `ConnectionError`; see `Source.frames`."""
        async with self._ask({"ask": "frames", "after": after, "every": interval}) as answers:
            while True:
                frame = (await _line(answers)).rstrip(b"\n")
                document = json.loads(frame)
                if "number" not in document:
                    raise TooManyViewers(str(document.get("error")))
                yield document["number"], frame

    async def snapshot(self) -> dict[str, Any]:
        """The current state, without history."""
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
