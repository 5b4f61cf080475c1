"""What a user says about a cluster, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from director._executors.ray.connection import check_address
from director._untrusted.numbers import real, seconds, shown

_LEAST, _MOST = 0.0001, 10**15  # of a resource: Ray's steps, and more bytes than a node has


@dataclass(frozen=True, kw_only=True)
class RayTerms:
    """The fields of a `RayExecutor`.

    Args:
        address: Of the cluster: ``"auto"`` for the one of this machine, ``"host:6379"``, or ``"local"`` to start one in
            this program. A process that is connected already does not look at it.
        resources: What each device holds of its node, as Ray names it: ``{"GPU": 2, "CPU": 8}``. `None`: a GPU, or
            where no node has one, a CPU core.
        runtime_env: Ray's runtime environment of the actors, such as their ``working_dir``.
        start_timeout: Seconds in which actors start; devices that are in use elsewhere for that long are left out.
        grace: Seconds between asking a call to end (its timeout has passed) and ending its actor.

    Raises:
        TypeError: A value of the wrong type.
        ValueError: A value out of range.
    """

    address: str = "auto"
    resources: Mapping[str, float] | None = None
    runtime_env: Mapping[str, Any] | None = None
    start_timeout: float = 60.0
    grace: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.address, str):
            raise TypeError(f"address must be a str, not {shown(self.address)}")
        check_address(self.address)
        for name, mapping in (("resources", self.resources), ("runtime_env", self.runtime_env)):
            if mapping is not None and not isinstance(mapping, Mapping):
                raise TypeError(f"{name} must be a mapping, not {shown(mapping)}")
        for name in ("start_timeout", "grace"):
            object.__setattr__(self, name, seconds(name, getattr(self, name), zero=True))
        if self.resources is not None:
            object.__setattr__(self, "resources", _amounts(self.resources))


def _amounts(resources: Mapping[str, float]) -> dict[str, float]:
    amounts = {name: real(f"resources[{name!r}]", amount, _LEAST, _MOST) for name, amount in resources.items()}
    if not amounts:
        raise ValueError("resources is empty: name at least one, such as {'GPU': 1}")
    if (gpus := amounts.get("GPU", 1)) > 1 and gpus != math.floor(gpus):
        raise ValueError(f"Ray gives whole GPUs, or a part of one, not {gpus!r}")
    return amounts
