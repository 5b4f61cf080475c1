"""The placement groups of one fleet. For one thread at a time.

They are removed even if this process is killed: a cleanup actor does it then.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from director._executors.ray.actor import cleanup
from director._executors.ray.cluster.connection import is_driver

if TYPE_CHECKING:
    from director._executors.ray.cluster.nodes import Node


_STARTING = 60.0  # seconds


class PlacementGroups:
    """Creates and removes groups of one bundle on one node."""

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
