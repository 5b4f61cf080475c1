"""The door between what shows a Director and where its facts come from: here, or another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

Frame: TypeAlias = tuple[int, bytes]
"""A number, and a JSON document without line breaks."""


class Source(Protocol):
    """Tells of one Director. A source that is gone raises `ConnectionError`."""

    def frames(self, after: int | None = None, interval: float = 0.0) -> AsyncGenerator[Frame, None]:
        """Frames, for ever: the whole first, unless all frames `after` one are at hand.

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
