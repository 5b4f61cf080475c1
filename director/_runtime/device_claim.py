"""What a Director holds of its devices while it is open: its presence on the GPUs, and the fleet that brings them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from director._devices.discovery import resolve_devices
from director._executors.base import FleetExecutor
from director._sharing import announce
from director._threads import call_once

if TYPE_CHECKING:
    from concurrent.futures import Future

    from director._device import Device
    from director._devices.discovery import DeviceSpec
    from director._executors.base import Executor, Fleet
    from director._sharing.presence import Presence

logger = logging.getLogger("director")
_DISBANDING = 10.0  # seconds in which a fleet's devices are given back


class DeviceClaim:
    """The devices of one start, from `make` to `give_back`."""

    def __init__(self, devices: tuple[Device, ...], presence: Presence | None, fleet: Fleet | None) -> None:
        self.devices = devices
        self.fleet = fleet
        self._presence = presence

    @staticmethod
    async def make(spec: DeviceSpec, executor: Executor | FleetExecutor, shared: str | None) -> DeviceClaim:
        """Find the devices, off the loop and on a thread that nobody joins: NVML may hang when a GPU dies."""

        def survey() -> DeviceClaim:
            import ctypes  # noqa: F401 - the wakeup's, made on the loop, which should not wait for the import

            if isinstance(executor, FleetExecutor):
                fleet = executor.fleet()
                return DeviceClaim(fleet.gather(spec), None, fleet)
            devices = resolve_devices(spec)
            return DeviceClaim(devices, announce(devices, shared), None)

        found = call_once("director:discovery", survey)
        try:
            return await asyncio.wrap_future(found)
        except asyncio.CancelledError:
            found.add_done_callback(_send_home)
            raise

    async def give_back(self) -> None:
        """Let others have the devices."""
        if (leaving := self.give_back_soon()) is None:
            return
        _, late = await asyncio.wait({asyncio.wrap_future(leaving)}, timeout=_DISBANDING)
        if late:
            logger.warning("giving the devices back takes more than %g s: it is left to itself", _DISBANDING)

    def give_back_soon(self) -> Future[None] | None:
        """The same where there is no loop on which to wait for it; returns what is under way."""
        if self._presence is not None:
            self._presence.close()
            self._presence = None
        fleet, self.fleet = self.fleet, None
        if fleet is None:
            return None
        try:
            return call_once("director:disband", fleet.disband)
        except RuntimeError:  # no thread is left: right here, for others wait for the devices
            fleet.disband()
            return None


def _send_home(found: Future[DeviceClaim]) -> None:
    """Nobody waits for what was found."""
    if not found.cancelled() and found.exception() is None:
        found.result().give_back_soon()
