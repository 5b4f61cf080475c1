"""When a device gets no more work, and when it is tried again. Frozen, and the user's to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device


@dataclass(frozen=True, slots=True)
class HealthRules:
    """What `Director(health=...)` takes.

    Args:
        failures: Jobs that lose their workers on a device, one after the other, before it goes into quarantine.
        probation: Seconds of quarantine before the first probe; doubled after each probe that fails.
        longest: Most seconds between two probes.
        probe: ``probe(device)`` returns what is wrong with a device, `None` if nothing is; called on a thread of its
            own, what it raises is wrong too. By default a fresh process tries a GPU, and other devices come back.

    Raises:
        TypeError: A value of the wrong type.
        ValueError: A value out of range.
    """

    failures: int = 3
    probation: float = 30.0
    longest: float = 600.0
    probe: Callable[[Device], str | None] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.failures, bool) or not isinstance(self.failures, int):
            raise TypeError(f"failures must be an int, not {self.failures!r}")
        if self.failures < 1:
            raise ValueError(f"failures must be at least 1, not {self.failures}")
        for name in ("probation", "longest"):
            seconds = getattr(self, name)
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                raise TypeError(f"{name} must be seconds as a number, not {seconds!r}")
            if not seconds > 0:
                raise ValueError(f"{name} must be positive seconds, not {seconds!r}")

        if self.probe is not None and not callable(self.probe):
            raise TypeError(f"probe must be a callable of one device, not {self.probe!r}")

    def delay(self, rounds: int) -> float:
        """Seconds until the next probe, after so many that have failed."""
        return min(self.longest, self.probation * 2.0 ** min(rounds, 60))
