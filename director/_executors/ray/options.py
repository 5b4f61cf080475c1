"""The options of a `RayExecutor`, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from director._executors.ray.cluster.connection import check_address
from director._untrusted.arguments import text
from director._untrusted.numbers import real, seconds, shown

_LEAST, _MOST = 0.0001, 10**15  # of a resource: the smallest step of Ray, and more bytes than a node has


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """The fields of a `RayExecutor`, which documents them; a class of its own, so that runners need not import that."""

    address: str = "auto"
    resources: Mapping[str, float] | None = None
    runtime_env: Mapping[str, Any] | None = None
    start_timeout: float = 60.0
    grace: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", text("address", self.address))
        check_address(self.address)
        for name, mapping in (("resources", self.resources), ("runtime_env", self.runtime_env)):
            if mapping is not None and not isinstance(mapping, Mapping):
                raise TypeError(f"{name} must be a mapping, not {shown(mapping)}")
        for name in ("start_timeout", "grace"):
            object.__setattr__(self, name, seconds(name, getattr(self, name), zero=True))
        if self.resources is not None:
            object.__setattr__(self, "resources", _checked(self.resources))


def _checked(resources: Mapping[str, float]) -> dict[str, float]:
    checked = {name: real(f"resources[{name!r}]", amount, _LEAST, _MOST) for name, amount in resources.items()}
    if not checked:
        raise ValueError("resources is empty: name at least one, such as {'GPU': 1}")
    if (gpus := checked.get("GPU", 1)) > 1 and gpus != math.floor(gpus):
        raise ValueError(f"Ray gives whole GPUs, or a part of one, not {gpus!r}")
    return checked
