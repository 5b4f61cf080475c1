"""One device of a cluster: a placement group of one bundle on one node, and the actors in it.

The bundle holds the device as a whole, so that no other program gets it between two actors, and all slots of the device
share it. Created and released by the fleet; the slots' threads start actors in it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from director._device import Device
from director._executors.ray.actor import cleanup
from director._executors.ray.actor_handle import ActorHandle
from director._executors.ray.cluster.connection import is_driver
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from director._executors.ray.cluster.nodes import Node
    from director._executors.ray.messages import Hardware
    from director._executors.ray.options import RayOptions

_SMALL_PART = 0.001  # of a resource: Ray tells an actor with so much which device it has, and a thousand slots fit


class Reservation:
    """One device, requested at once; it is ready when the reference `hardware` is, the answer of its first actor."""

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


_STARTING = 60.0  # seconds


class PlacementGroups:
    """Creates and removes groups of one bundle on one node. For one thread at a time.

    They are removed even if this process is killed: a cleanup actor does it then.
    """

    def __init__(self) -> None:
        self._cleanup_actor: Any = None
        self._owned: Any = None  # a reference of this process, whose end the cleanup actor waits for

    def make(self, bundle: dict[str, float], node: Node) -> Any:
        """A group that holds `bundle` of a node as soon as that is free.

        Raises:
            RayError: In a task or an actor of Ray: the cleanup actor does not start.
        """
        from ray.util.placement_group import placement_group

        if self._cleanup_actor is None and not is_driver():  # then this process may end long before its Ray job
            self._start_cleanup_actor()
        here = [{"ray.io/node-id": node.id}]
        group = placement_group([bundle], strategy="STRICT_PACK", bundle_label_selector=here)
        if self._cleanup_actor is not None:
            self._cleanup_actor.add.remote(group)
        return group

    def remove(self, group: Any) -> None:
        """Remove a group; its actors end."""
        from ray.util.placement_group import remove_placement_group

        with suppress(Exception):  # the cluster may be gone
            remove_placement_group(group)
            if self._cleanup_actor is not None:
                self._cleanup_actor.discard.remote(group)

    def close(self) -> None:
        """End the cleanup actor: all groups are removed, and no more are made."""
        import ray

        actor, self._cleanup_actor, self._owned = self._cleanup_actor, None, None
        if actor is not None:
            with suppress(Exception):  # the cluster may be gone
                ray.kill(actor)

    def _start_cleanup_actor(self) -> None:
        """Start a detached actor, which outlives this process. It takes no resources, so it can run on any node."""
        import ray
        from ray import cloudpickle

        by_value: Any = cloudpickle
        by_value.register_pickle_by_value(cleanup)
        remote: Any = ray.remote
        made = remote(cleanup.CleanupActor).options(
            name=uuid4().hex, namespace="director", lifetime="detached", num_cpus=0, max_concurrency=1_000
        )
        self._cleanup_actor = made.remote()
        self._owned = self._cleanup_actor.hold.remote()
        self._cleanup_actor.watch.remote([self._owned])
        ray.get(
            self._cleanup_actor.ready.remote(), timeout=_STARTING
        )  # a group that was created before could be leaked
