"""One device of a cluster: a placement group of one bundle on one node, and the actors in it.

The bundle holds the device as a whole, so that no other program gets it between two actors, and all slots of the device
share it. Created and released by the fleet; the slots' threads start actors in it.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from director._device import Device
from director._executors.ray.actor_handle import ActorHandle
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from director._executors.ray.cluster.nodes import Node
    from director._executors.ray.cluster.placement_groups import PlacementGroups
    from director._executors.ray.messages import Hardware
    from director._executors.ray.options import RayOptions

_SMALL_PART = 0.001  # of a resource: Ray tells an actor with so much which device it has, and a thousand slots fit


class Reservation:
    """One device, requested at once; it is ready when the reference `hardware` is, the answer of its first actor.

    Args:
        node: Its node.
        ordinal: Counts the devices of the node.
        bundle: The resources of the node that it takes.
        options: The user's.
        groups: Creates its placement group.
    """

    def __init__(
        self, node: Node, ordinal: int, bundle: dict[str, float], options: RayOptions, groups: PlacementGroups
    ) -> None:
        self.node = node
        self.ordinal = ordinal
        self.device: Device | None = None
        self.is_lost = False  # its node has left; set once, by the fleet
        self.is_disconnected = False  # the cluster is gone, with all answers; the same
        self.bundle = bundle
        self._options = options
        self._groups = groups
        self._group = groups.make(bundle, node)
        self._lock = threading.Lock()  # guards the next three; slots start actors on their own threads
        self._actors: list[ActorHandle] = []
        self._expected: Hardware | None = None  # of all actors but the first
        self._first_actor: ActorHandle | None = None
        self._first_actor = self.start_actor()
        self.hardware = self._first_actor.hardware()

    def start_actor(self, previous: ActorHandle | None = None) -> ActorHandle:
        """An actor for a slot: the first one if no slot has it, else a new one, which replaces `previous`."""
        with self._lock:
            if previous is None and self._first_actor is not None:
                first, self._first_actor = self._first_actor, None
                return first
            actor = ActorHandle(self._group, self._actor_resources(), self._options, previous, self._expected)
            self._actors = [other for other in self._actors if other is not previous] + [actor]
            return actor

    def identify(self, hardware: Hardware, taken: set[str]) -> Device:
        """The device, by the hardware of its first actor; all later actors must have the same.

        Args:
            hardware: The answer of the actor.
            taken: UUIDs of other devices.

        Raises:
            DiscoveryError: The hardware is not that of one device, or that of another reservation.
        """
        ids, gpus = hardware
        if len(gpus) > max(1, len(ids)):
            raise DiscoveryError(
                f"Ray has given an actor {len(ids)} GPU(s) and it sees {len(gpus)}: unset "
                "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES where Ray is started"
            )
        index = int(ids[0]) if ids and ids[0].isdecimal() else self.ordinal
        what = "logical GPU" if "GPU" in self.bundle else " + ".join(sorted(self.bundle))
        stand_in = Device(index, f"RAY-{self.node.id[:16]}-{index}", f"{what} of {self.node.name}", "cpu")
        device = replace(gpus[0] if gpus else stand_in, index=index, node=self.node.name)
        if device.uuid in taken:
            if self.bundle.get("GPU", 0) >= 1:
                raise DiscoveryError(f"Ray has given the GPU {device.uuid} to two actors, as a whole to each")
            device = replace(device, uuid=f"{device.uuid}#{self.ordinal}")  # each holds a part of it
        self._expected, self.device = hardware, device
        return device

    def release(self) -> None:
        """Kill the actors, and remove the placement group."""
        if self.is_disconnected:
            return
        for actor in self._actors:
            actor.kill()
        self._groups.remove(self._group)

    def _actor_resources(self) -> dict[str, float]:
        """The resources of the bundle that an actor takes."""
        return {
            name: amount if amount > 1 and name == "GPU" else min(_SMALL_PART, amount)
            for name, amount in self.bundle.items()
            if name != "CPU"
        }
