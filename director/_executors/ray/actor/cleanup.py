"""An actor that removes the placement groups of a driver after its end. Sent by value, so it imports no `director`.

Ray removes a placement group at the end of the Ray job in which it was created. A Director in a task, an actor or a
replica of Ray Serve may be killed long before that, and its GPUs would stay reserved.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from typing import Any

_WATCH_TIMEOUT = 60.0  # seconds in which `watch` is called, unless the driver has ended before


class CleanupActor:
    """Holds placement groups until their driver has ended. Ray's tools show this name."""

    def __init__(self) -> None:
        self._groups: list[Any] = []
        self._has_ended = asyncio.Event()
        self._exit_timer = threading.Timer(_WATCH_TIMEOUT, os._exit, (0,))
        self._exit_timer.start()

    async def ready(self) -> None:
        """Return when all earlier calls have arrived."""

    async def add(self, group: Any) -> None:
        """Remove a placement group at the end, unless it is discarded before."""
        self._groups.append(group)

    async def discard(self, group: Any) -> None:
        """The placement group was removed."""
        self._groups = [other for other in self._groups if other.id != group.id]

    async def hold(self) -> None:
        """Doesn't return before the driver has ended, which owns the reference of the result."""
        await self._has_ended.wait()

    async def watch(self, owned: list[Any]) -> None:
        """Wait for the end of the driver, remove its placement groups, and exit.

        Args:
            owned: A list with the reference of `hold`. Ray would wait for a reference that is an argument itself.
        """
        import ray
        from ray.util.placement_group import remove_placement_group

        self._exit_timer.cancel()
        with suppress(Exception):  # Ray raises that the owner has died
            await owned[0]
        for group in self._groups:
            with suppress(Exception):  # the cluster may be gone
                remove_placement_group(group)
        self._has_ended.set()  # the actor exits when its last call has returned
        ray.actor.exit_actor()
