"""The nodes of a cluster as Ray lists them: what each has, and what people call it. Owner of the names."""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
            if name == listed["NodeManagerAddress"]:  # nobody has given it one: the host's says more
                name = listed["NodeManagerHostname"]
            taken = name in self._names.values()
            self._names[node] = f"{name}-{node[:_ID_SHOWN]}" if taken else name
        return self._names[node]
