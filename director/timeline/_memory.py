"""Memory in use, sampled by a thread of its own once a second. Owner of the samples: the Meter's thread.

Sampling NVML may hang for ever when a GPU dies: then only this thread hangs, and there are no more samples.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from director._devices.readings import read
from director._system.threads import Flag
from director.errors import DiscoveryError
from director.timeline._story import MemorySample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director import Device

logger = logging.getLogger("director")

PERIOD = 1.0  # seconds
MOST = 4_096  # samples; then every other one is dropped, and the period is doubled
_STATM = Path("/proc/self/statm")


class Meter:
    """Takes samples from its start until `stop`."""

    def __init__(self, clock: Callable[[], float], devices: Sequence[Device]) -> None:
        self._clock = clock
        self._labels = {device.uuid: device.label for device in devices if device.kind == "cuda" and not device.node}
        self._samples: list[MemorySample] = []
        self._stopped = Flag()
        try:
            threading.Thread(target=self._work, name="director:memory", daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            logger.warning("The timeline goes on without memory: %s", error)

    def stop(self) -> None:
        """Stop sampling."""
        self._stopped.set()

    def samples(self) -> tuple[MemorySample, ...]:
        """The samples so far; from any thread."""
        return tuple(self._samples)

    def _work(self) -> None:
        period = PERIOD
        try:
            while True:
                self._samples.append(self._sample())
                if len(self._samples) >= MOST:
                    self._samples = self._samples[::2]
                    period *= 2
                if self._stopped.wait(period):
                    return
        except DiscoveryError as error:
            logger.warning("The timeline goes on without the memory of the GPUs: %s", error)

    def _sample(self) -> MemorySample:
        readings = read(tuple(self._labels)) if self._labels else ()
        used = {self._labels[gpu.uuid]: gpu.used_memory for gpu in readings if gpu.used_memory is not None}
        return MemorySample(self._clock(), resident(), used)


def resident() -> int | None:
    """Bytes of this process that are in memory; `None` where the system doesn't say."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None
