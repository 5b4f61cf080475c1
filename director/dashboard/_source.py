"""The door between what shows a Director and where its facts come from: here, or another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

Frame: TypeAlias = tuple[int, bytes]
"""A number, and a JSON document without line breaks."""


RETRY_AFTER = 5  # seconds
_PIECE = 65_536  # bytes


class Crowded(ConnectionError):
    """As many viewers are there as may be; come back after `RETRY_AFTER` seconds."""


def pieces(content: bytes) -> Iterator[bytes]:
    """What is written at once: a viewer that doesn't read has one of them kept for it, and others get their turn."""
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]


class Source(Protocol):
    """Tells of one Director. A source that is gone raises `ConnectionError`."""

    def frames(self, after: int | None = None, interval: float = 0.0) -> AsyncGenerator[Frame, None]:
        """Frames, for ever: the whole first, unless all frames `after` one are at hand. Raises `Crowded`.

        Args:
            after: The number of the last frame that the viewer has.
            interval: Seconds between two looks, if more than the source's own.
        """

    async def snapshot(self) -> dict[str, Any]:
        """This moment, without history."""

    async def job(self, number: int) -> dict[str, Any] | None:
        """One job, `None` if it isn't kept."""

    async def failure(self, number: int) -> dict[str, Any] | None:
        """One kind of failure with its examples, `None` if it isn't kept."""
