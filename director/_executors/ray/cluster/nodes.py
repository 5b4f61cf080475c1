"""The nodes of a cluster: their resources, and a unique name for each. `NodeNames` owns the names."""

from __future__ import annotations

import logging
import re
from math import floor
from typing import TYPE_CHECKING, Any, NamedTuple

from director._devices.option import written
from director._untrusted.numbers import number_in
from director.errors import NoDevices

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from director._devices.discovery import DeviceSpec

_ID_SHOWN = 6  # characters of the id, where two nodes have the same name


class Node(NamedTuple):
    """A node that is alive.

    Attributes:
        id: Ray's id, never used twice.
        name: Unique, for people.
        resources: All that it has, free or in use.
    """

    id: str
    name: str
    resources: Mapping[str, float]

    def holds(self, bundle: Mapping[str, float]) -> int:
        """How many devices the node has room for, each of which takes `bundle`."""
        return min(floor(self.resources.get(name, 0.0) / amount + 1e-6) for name, amount in bundle.items())


class NodeNames:
    """Gives each node a unique name, which never changes."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # by id; those of nodes that have left are kept

    def alive(self, listed: Iterable[Mapping[str, Any]]) -> list[Node]:
        """The nodes that are alive, of those that ``ray.nodes()`` lists."""
        return [Node(each["NodeID"], self._name(each), each["Resources"]) for each in listed if each["Alive"]]

    def _name(self, listed: Mapping[str, Any]) -> str:
        node = listed["NodeID"]
        if node not in self._names:
            name = listed["NodeName"]
            if name == listed["NodeManagerAddress"]:  # the default of Ray; the name of the host says more
                name = listed["NodeManagerHostname"]
            taken = name in self._names.values()
            self._names[node] = f"{name}-{node[:_ID_SHOWN]}" if taken else name
        return self._names[node]


logger = logging.getLogger("director")
_GPU, _CPU = {"GPU": 1.0}, {"CPU": 1.0}
_NO_LIMIT = 1 << 30


def bundle_of(
    spec: DeviceSpec, resources: Mapping[str, float] | None, nodes: Sequence[Node]
) -> tuple[dict[str, float], int]:
    """The bundle (resources of a node) that each device takes, and how many devices a node has at most.

    Raises:
        NoDevices: GPUs are asked for, and there is none.
        ValueError: `spec` has no meaning in a cluster.
    """
    if resources is not None:
        if spec is not None:
            raise ValueError(f"RayExecutor(resources=...) says what a device is; leave out devices={spec!r}")
        return dict(resources), _NO_LIMIT
    has_gpus = any(node.holds(_GPU) for node in nodes)
    if spec in ("gpu", "cuda") and not has_gpus:
        raise NoDevices("No node of the Ray cluster has a GPU. Without GPUs, 'cpu' or 'cpu:4' can be used.")
    if spec in ("gpu", "cuda") or (spec is None and has_gpus):
        return dict(_GPU), _NO_LIMIT
    if spec is None:
        logger.warning(
            "No node of the Ray cluster has a GPU, so jobs run on one CPU of each. Say %s if that is what you want, or "
            "%s to have an error instead.",
            written("cpu"),
            written("gpu"),
        )
        return dict(_CPU), 1
    if isinstance(spec, str) and (asked := re.fullmatch("cpu(?::([0-9]*[1-9][0-9]*))?", spec)):
        return dict(_CPU), min(_NO_LIMIT, number_in(asked[1] or "1"))
    raise ValueError(
        f"{written(spec)} names devices of this machine. In a Ray cluster say None, 'gpu', 'cpu' or 'cpu:4' (so many "
        "on each node); one job's devices= names those that it may use"
    )
