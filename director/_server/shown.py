"""The server's Director as a dashboard shows it: with what all applications have done. On the event loop only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._api.director import Director
    from director._api.lifecycle import DirectorState
    from director._device import Device
    from director._runtime.lifecycle import OpenDirector
    from director._runtime.stats import Stats
    from director.hooks import LifespanHook


class Dashboards(Protocol):
    """The sockets that `director top` and the pages of the applications read."""

    async def open(self, path: str) -> None:
        """Open one, unless it is open. Raises `OSError` if that can't be done."""

    async def close(self) -> None:
        """Close them all."""


class ShownDirector:
    """What a dashboard knows of the server's Director.

    Args:
        director: The Director.
        opened_at: When it was opened, by its clock.
        stats: A snapshot of it, with the jobs that the applications have refused.
    """

    def __init__(self, director: Director, opened_at: float, stats: Callable[[], Stats]) -> None:
        self._director = director
        self.opened_at = opened_at
        self.stats = stats

    @property
    def name(self) -> str | None:
        """The server's name."""
        return self._director.name

    @property
    def state(self) -> DirectorState:
        """What it does with new jobs."""
        return self._director.state

    @property
    def healthy(self) -> bool:
        """Whether some slot can compute."""
        return self._director.healthy

    @property
    def devices(self) -> tuple[Device, ...]:
        """What it runs on."""
        return self._director.devices

    def add_hook(self, hook: LifespanHook) -> None:
        """Have the jobs recorded from now on."""
        self._runtime.add_hook(hook)

    def remove_hook(self, hook: LifespanHook) -> None:
        """Have them recorded no more."""
        self._runtime.remove_hook(hook)

    @property
    def _runtime(self) -> OpenDirector:
        return cast("OpenDirector", self._director._backend)
