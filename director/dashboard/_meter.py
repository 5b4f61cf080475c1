"""Readings of the GPUs while somebody looks: at most one a second, each on a daemon thread. Owner: the Meter.

NVML may hang for ever when a GPU dies. Then the one thread hangs, the readings get old, and viewers are told how old.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

from director._devices.nvml import within
from director._devices.readings import read
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director import Device
    from director._devices.readings import Reading

_PERIOD = 1.0  # seconds between two readings
_PATIENCE = 10.0  # seconds until a reading counts as failed


class Meter:
    """The latest readings, by UUID."""

    def __init__(self) -> None:
        self.readings: dict[str, Reading] = {}
        self.error: str | None = None
        self._taken = 0.0
        self._thread: threading.Thread | None = None

    def refresh(self, devices: Sequence[Device]) -> None:
        """Take readings soon, unless they are fresh or on their way; never blocks."""
        uuids = [device.uuid for device in devices if device.kind == "cuda" and device.node is None]
        if not uuids or monotonic() - self._taken < _PERIOD or (self._thread is not None and self._thread.is_alive()):
            return
        self._taken = monotonic()
        self._thread = threading.Thread(target=self._take, args=(uuids,), name="director-meter", daemon=True)
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            self.readings, self.error = {}, str(error)

    def _take(self, uuids: list[str]) -> None:
        try:
            self.readings = {reading.uuid: reading for reading in within(_PATIENCE, lambda: read(uuids))}
            self.error = None
        except DiscoveryError as error:
            self.readings, self.error = {}, str(error)
