"""The nodes of a cluster as Ray lists them: what each has, and what people call it. Owner of the names."""

from __future__ import annotations

import logging
import re
from math import floor
from typing import TYPE_CHECKING, Any, NamedTuple

from director._untrusted.numbers import number_in
from director.errors import NoDevices

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from director._devices.discovery import DeviceSpec

    pass

_ID_SHOWN = 6  # characters, where two nodes have one name


class Node(NamedTuple):
    """A node that is alive.

    Args:
        id: Ray's, never used twice.
        name: For people, unique.
        resources: What it has in all.
    """

    id: str
    name: str
    resources: Mapping[str, float]

    def holds(self, amounts: Mapping[str, float]) -> int:
        """How many devices that each hold `amounts` it has room for."""
        return min(floor(self.resources.get(name, 0.0) / amount + 1e-6) for name, amount in amounts.items())


class Names:
    """Gives each node a name that no other one has: the same ever after."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # by id; a few bytes for each node that ever was

    def alive(self, listed: Iterable[Mapping[str, Any]]) -> list[Node]:
        """The nodes that are alive, of what ``ray.nodes()`` says."""
        return [Node(each["NodeID"], self._name(each), each["Resources"]) for each in listed if each["Alive"]]

    def _name(self, listed: Mapping[str, Any]) -> str:
        node = listed["NodeID"]
        if node not in self._names:
            name = listed["NodeName"]
            if name == listed["NodeManagerAddress"]:  # its own name was not set: the host's says more
                name = listed["NodeManagerHostname"]
            taken = name in self._names.values()
            self._names[node] = f"{name}-{node[:_ID_SHOWN]}" if taken else name
        return self._names[node]


logger = logging.getLogger("director")
_GPU, _CPU = {"GPU": 1.0}, {"CPU": 1.0}
_ALL = 1 << 30


def amounts_of(
    spec: DeviceSpec, resources: Mapping[str, float] | None, nodes: Sequence[Node]
) -> tuple[dict[str, float], int]:
    """What each device holds of its node, and how many devices a node has at most.

    Args:
        spec: Of the Director.
        resources: Of the executor.
        nodes: What there is.

    Raises:
        NoDevices: GPUs are asked for, and there is none.
        ValueError: `spec` means nothing here.
    """
    if resources is not None:
        if spec is not None:
            raise ValueError(f"RayExecutor(resources=...) says what a device is; leave out devices={spec!r}")
        return dict(resources), _ALL
    has_gpus = any(node.holds(_GPU) for node in nodes)
    if spec in ("gpu", "cuda") and not has_gpus:
        raise NoDevices("No node of the Ray cluster has a GPU. Without GPUs, 'cpu' or 'cpu:4' can be used.")
    if spec in ("gpu", "cuda") or (spec is None and has_gpus):
        return dict(_GPU), _ALL
    if spec is None:
        logger.warning(
            "No node of the Ray cluster has a GPU, so jobs run on one CPU of each. Say devices='cpu' if that is what "
            "you want, or devices='gpu' to have an error instead."
        )
        return dict(_CPU), 1
    if isinstance(spec, str) and (asked := re.fullmatch("cpu(?::([0-9]*[1-9][0-9]*))?", spec)):
        return dict(_CPU), min(_ALL, number_in(asked[1] or "1"))
    raise ValueError(
        f"devices={spec!r} names devices of this machine. In a Ray cluster say None, 'gpu', 'cpu' or 'cpu:4' (so many "
        "on each node); one job's devices= names those that it may use"
    )
