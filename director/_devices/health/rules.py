"""Rules for when a device gets no more work, and when it is probed again. Frozen."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from director._untrusted.arguments import check_callable
from director._untrusted.numbers import seconds, shown, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device

_RESET_GPU = (46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158)
_RESTART_BARE_METAL = (79,)
_OWN_WORKFLOW = (48, 74)  # uncorrectable ECC, NVLink: NVIDIA's workflows begin with draining and a reset

_RESTART_APPLICATION = (
    *(8, 11, 13, 25, 31, 32, 68, 69, 80, 94),  # illegal work, page faults; 94: memory, and only one process is hit
    *(39, 40, 41, 70, 71, 72, 75, 76, 77, 85, *range(126, 136)),  # copy engines
    *(60, 82, 83, 84, 86, 88, 89, *range(96, 106), 139),  # video, JPEG and optical flow engines
)
_IGNORE = (37, 38, 43, 44, 63, 66, 67, 92, 93, 106, 107, 121, 137, 141, 152, 153, 157, 160, 161)
_FOLLOWS_ANOTHER = (45, 154)  # cleaning up after an error that has a number itself; "recovery action changed"

FATAL_XIDS = frozenset((*_RESET_GPU, *_RESTART_BARE_METAL, *_OWN_WORKFLOW))
"""After these the device must be reset, or its machine restarted, before it can be used again."""

HARMLESS_XIDS = frozenset((*_RESTART_APPLICATION, *_IGNORE, *_FOLLOWS_ANOTHER))
"""After these the device works; at most the affected process needs a restart."""

_WORDS = {
    46: "the GPU stopped processing",
    48: "uncorrectable ECC error",
    62: "its microcontroller halted",
    64: "a row of its memory could not be remapped",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    95: "uncontained memory error",
    109: "context switch timed out",
    110: "security fault",
    119: "its system processor (GSP) does not answer",
    120: "its system processor (GSP) failed",
    136: "link training failed",
    140: "unrecovered ECC error",
    143: "the GPU could not be initialised",
    155: "NVLink error",
    156: "a resource was retired",
    158: "fatal timeout",
}


def describe_xid(number: int) -> str:
    """An XID as text, with its meaning if it is a fatal one."""
    words = _WORDS.get(number, "see NVIDIA's Xid catalog")
    return f"XID {number} ({words})"


@dataclass(frozen=True, slots=True)
class HealthRules:
    """What `Director(health=...)` takes.

    Args:
        failures: Workers of a device that are lost during jobs, one after the other, before it goes into quarantine. A
            worker counts once, however many jobs it had. A failed load counts too, if another device has the model.
        probation: Seconds of quarantine before the first probe; doubled after each probe that fails.
        longest: Most seconds between two probes.
        probe: ``probe(device)`` returns what is wrong with a device, `None` if nothing is; called on a thread of its
            own; if it raises, the device does not work. By default a GPU is tested in a new process, and other devices
            always work.
        probe_timeout: Seconds that a probe may take; a device whose probe takes longer does not work.
        interval: Seconds between two checkups of each GPU by NVML; `None`: NVML is not used.
        fatal_xids: Errors of NVIDIA's driver (XIDs) that put their GPU into quarantine.
        harmless_xids: XIDs that are ignored. Any other XID makes its GPU degraded for ten minutes.

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
        if self.probe is not None:
            check_callable("probe", self.probe, "a callable of one device")
        for name in ("fatal_xids", "harmless_xids"):
            plain[name] = _xids(name, getattr(self, name))
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        if both := set(self.fatal_xids) & set(self.harmless_xids):
            raise ValueError(f"XIDs in both fatal_xids and harmless_xids: {sorted(both)}; take them out of one")

    def delay(self, rounds: int) -> float:
        """Seconds until the next probe, after `rounds` failed ones."""
        return min(self.longest, self.probation * 2.0 ** min(rounds, 60))


def _xids(name: str, value: Any) -> frozenset[int]:
    if not isinstance(value, AbstractSet):
        raise TypeError(f"{name} must be a set of XIDs, not {shown(value)}")
    return frozenset(whole(f"an XID in {name}", xid, 0) for xid in value)


class Health(Enum):
    """Whether a device gets work.

    | from | to | when |
    |---|---|---|
    | `HEALTHY` | `QUARANTINED` | it was lost, or its workers were lost repeatedly |
    | `QUARANTINED` | `PROBATION` | time for a probe |
    | `PROBATION` | `HEALTHY`, `QUARANTINED` | by the result of the probe |
    """

    HEALTHY = "healthy"
    QUARANTINED = "quarantined"
    PROBATION = "probation"


HEALTH_MOVES: dict[Health, frozenset[Health]] = {
    Health.HEALTHY: frozenset({Health.QUARANTINED}),
    Health.QUARANTINED: frozenset({Health.PROBATION}),
    Health.PROBATION: frozenset({Health.HEALTHY, Health.QUARANTINED}),
}
