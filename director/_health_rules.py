"""When a device gets no more work, and when it is tried again. Frozen, and the user's to change."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from director._devices.xids import FATAL_XIDS, HARMLESS_XIDS
from director._numbers import seconds, shown, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device


@dataclass(frozen=True, slots=True)
class HealthRules:
    """What `Director(health=...)` takes.

    Args:
        failures: Workers of a device that are lost in the midst of jobs, one after the other, before it goes into
            quarantine. A worker counts once, however many jobs it takes along.
        probation: Seconds of quarantine before the first probe; doubled after each probe that fails.
        longest: Most seconds between two probes.
        probe: ``probe(device)`` returns what is wrong with a device, `None` if nothing is; called on a thread of its
            own, what it raises is wrong too. By default a fresh process tries a GPU, and other devices come back.
        probe_timeout: Seconds that a probe may take; one that takes longer has found something wrong.
        interval: Seconds between two looks at each GPU through NVML; `None`: NVML is not watched.
        fatal_xids: Errors of NVIDIA's driver (XIDs) that put the GPU they are of into quarantine.
        harmless_xids: XIDs that say nothing of the GPU. Any other one makes it degraded for ten minutes.

    Raises:
        TypeError: A value of the wrong type.
        ValueError: A value out of range, or an XID in both sets.
    """

    failures: int = 3
    probation: float = 30.0
    longest: float = 600.0
    probe: Callable[[Device], str | None] | None = None
    probe_timeout: float = 60.0
    interval: float | None = 10.0
    fatal_xids: AbstractSet[int] = FATAL_XIDS
    harmless_xids: AbstractSet[int] = HARMLESS_XIDS

    def __post_init__(self) -> None:
        plain: dict[str, Any] = {"failures": whole("failures", self.failures, 1)}
        for name in ("probation", "longest"):
            plain[name] = seconds(name, getattr(self, name), endless=True)
        plain["probe_timeout"] = seconds("probe_timeout", self.probe_timeout)
        if self.interval is not None:
            plain["interval"] = seconds("interval", self.interval, hint="; None: NVML is not watched")
        if self.probe is not None and not callable(self.probe):
            raise TypeError(f"probe must be a callable of one device, not {shown(self.probe)}")
        for name in ("fatal_xids", "harmless_xids"):
            plain[name] = _xids(name, getattr(self, name))
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        if both := set(self.fatal_xids) & set(self.harmless_xids):
            raise ValueError(f"XIDs in both fatal_xids and harmless_xids: {sorted(both)}; take them out of one")

    def delay(self, rounds: int) -> float:
        """Seconds until the next probe, after so many that have failed."""
        return min(self.longest, self.probation * 2.0 ** min(rounds, 60))


def _xids(name: str, value: Any) -> frozenset[int]:
    if not isinstance(value, AbstractSet):
        raise TypeError(f"{name} must be a set of XIDs, not {shown(value)}")
    return frozenset(whole(f"an XID in {name}", xid, 0) for xid in value)
