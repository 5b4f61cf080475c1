"""An actor that outlives its driver by a moment, to give back what that has claimed. Sent as it is, with no imports.

Ray removes a placement group when the job in which it was made is over. A Director in a task, an actor or a replica of
Ray Serve may be ended long before that, by whom it can't do anything about; its GPUs would be nobody's.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from typing import Any

_FORGOTTEN = 60.0  # seconds


class CleanupActor:
    """Under the name that Ray's tools show."""

    def __init__(self) -> None:
        self._groups: list[Any] = []
        self._is_over = asyncio.Event()
        self._forgotten = threading.Timer(_FORGOTTEN, os._exit, (0,))  # the driver has ended before it could say more
        self._forgotten.start()

    async def ready(self) -> None:
        """Return when all calls before this one have come."""

    async def mind(self, group: Any) -> None:
        """Remove a placement group at the end, unless it was removed."""
        self._groups.append(group)

    async def forget(self, group: Any) -> None:
        """It is removed."""
        self._groups = [other for other in self._groups if other.id != group.id]

    async def never(self) -> None:
        """Does not return while the caller is there, to whom the result would belong."""
        await self._is_over.wait()

    async def watch(self, owned: list[Any]) -> None:
        """Wait for the end of a driver, clean up after it, and leave.

        Args:
            owned: An object of the driver's that never comes. In a list: by itself, Ray would wait for it before it
                made the call.
        """
        import ray
        from ray.util.placement_group import remove_placement_group

        self._forgotten.cancel()
        with suppress(Exception):  # of Ray: the owner has died
            await owned[0]
        for group in self._groups:
            with suppress(Exception):  # the cluster may be gone
                remove_placement_group(group)
        self._is_over.set()  # the actor leaves when its last call has returned
        ray.actor.exit_actor()
