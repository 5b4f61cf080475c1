"""The devices of an open Director: its presence announced on the GPUs, or the fleet that has them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from director._devices.discovery import resolve_devices
from director._executors.base import FleetExecutor
from director._ipc.sharing import announce
from director._system.threads import call_once

if TYPE_CHECKING:
    from concurrent.futures import Future

    from director._device import Device
    from director._devices.discovery import DeviceSpec
    from director._executors.base import Executor, Fleet
    from director._ipc.sharing.presence import Presence

logger = logging.getLogger("director")
_DISBANDING = 10.0  # seconds in which a fleet's devices are given back


class OpenDevices:
    """The devices of one start, from `make` to `give_back`."""

    def __init__(self, devices: tuple[Device, ...], presence: Presence | None, fleet: Fleet | None) -> None:
        self.devices = devices
        self.fleet = fleet
        self._presence = presence

    @staticmethod
    async def make(spec: DeviceSpec, executor: Executor | FleetExecutor, shared: str | None) -> OpenDevices:
        """Find the devices, on a thread that is never joined: NVML may hang when a GPU fails."""

        def survey() -> OpenDevices:
            import ctypes  # noqa: F401 - imported here for `LoopWakeup`, so that the event loop does not wait for it

            if isinstance(executor, FleetExecutor):
                fleet = executor.fleet()
                return OpenDevices(fleet.gather(spec), None, fleet)
            devices = resolve_devices(spec)
            return OpenDevices(devices, announce(devices, shared), None)

        found = call_once("director:discovery", survey)
        try:
            return await asyncio.wrap_future(found)
        except asyncio.CancelledError:
            found.add_done_callback(_release_found)
            raise

    async def give_back(self) -> None:
        """Release the devices; waits at most 10 s."""
        if (leaving := self.give_back_soon()) is None:
            return
        _, late = await asyncio.wait({asyncio.wrap_future(leaving)}, timeout=_DISBANDING)
        if late:
            logger.warning("giving the devices back takes more than %g s: not waiting any longer", _DISBANDING)

    def give_back_soon(self) -> Future[None] | None:
        """Begin to release the devices; returns the future of what still runs, if anything."""
        if self._presence is not None:
            self._presence.close()
            self._presence = None
        fleet, self.fleet = self.fleet, None
        if fleet is None:
            return None
        try:
            return call_once("director:disband", fleet.disband)
        except RuntimeError:  # no thread can be started: release them here
            fleet.disband()
            return None


def _release_found(found: Future[OpenDevices]) -> None:
    """The start was cancelled during discovery: release what was found."""
    if not found.cancelled() and found.exception() is None:
        found.result().give_back_soon()
