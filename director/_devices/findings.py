"""What the rooms that watch devices hand to each other: frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Condition: TypeAlias = Literal["lost", "degraded", "fine"]


@dataclass(frozen=True, slots=True)
class Checkup:
    """One device as NVML showed it at one moment.

    Args:
        uuid: Which device.
        begun: When it was asked, in seconds of `time.monotonic`.
        condition: ``"doubtful"``: the error has no clear meaning, and only its repetition says something.
        reason: Why it isn't fine.
        total_memory: Bytes; `None` where it has none of its own, or can't be asked.
        free_memory: Bytes that nobody has allocated, this process or any other; `None` as above.
    """

    uuid: str
    begun: float
    condition: Condition | Literal["doubtful"] = "fine"
    reason: str = ""
    total_memory: int | None = None
    free_memory: int | None = None


@dataclass(frozen=True, slots=True)
class Xid:
    """The driver has reported an error of a device, caused by any process on it.

    Args:
        uuid: Which device.
        number: NVIDIA's number for it.
    """

    uuid: str
    number: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is thought of a device.

    Args:
        uuid: Which device.
        kind: ``"lost"``: it can't be used; ``"degraded"``: it works, and somebody should look at it; ``"fine"``: NVML
            finds nothing wrong with it, or not any more.
        reason: Why it isn't fine.
    """

    uuid: str
    kind: Condition
    reason: str = ""
