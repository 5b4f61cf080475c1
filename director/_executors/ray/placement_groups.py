"""The placement groups of one fleet: made here, removed whatever becomes of this process. For one thread at a time."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from director._executors.ray.actor import cleanup as keeper
from director._executors.ray.connection import is_driver

if TYPE_CHECKING:
    from director._executors.ray.nodes import Node


_STARTING = 60.0  # seconds


class PlacementGroups:
    """Makes groups of one bundle on one node."""

    def __init__(self) -> None:
        self._keeper: Any = None
        self._ours: Any = None  # an object of this process that the keeper waits for

    def make(self, amounts: dict[str, float], node: Node) -> Any:
        """A group that holds `amounts` of a node as soon as they are free.

        Raises:
            RayError: Within Ray: the keeper does not start.
        """
        from ray.util.placement_group import placement_group

        if self._keeper is None and not is_driver():  # then this process may end before its job
            self._hire_keeper()
        here = [{"ray.io/node-id": node.id}]
        group = placement_group([amounts], strategy="STRICT_PACK", bundle_label_selector=here)
        if self._keeper is not None:
            self._keeper.mind.remote(group)
        return group

    def remove(self, group: Any) -> None:
        """Let go of a group; actors in it end."""
        from ray.util.placement_group import remove_placement_group

        with suppress(Exception):  # the cluster may be gone
            remove_placement_group(group)
            if self._keeper is not None:
                self._keeper.forget.remote(group)

    def close(self) -> None:
        """All are removed, and no more are made."""
        import ray

        hired, self._keeper, self._ours = self._keeper, None, None
        if hired is not None:
            with suppress(Exception):  # the same
                ray.kill(hired)

    def _hire_keeper(self) -> None:
        """Detached, or it would end with this process; anywhere, for it needs nothing that a node may lack."""
        import ray
        from ray import cloudpickle

        by_value: Any = cloudpickle
        by_value.register_pickle_by_value(keeper)
        remote: Any = ray.remote
        made = remote(keeper.CleanupActor).options(
            name=uuid4().hex, namespace="director", lifetime="detached", num_cpus=0, max_concurrency=1_000
        )
        self._keeper = made.remote()
        self._ours = self._keeper.never.remote()
        self._keeper.watch.remote([self._ours])
        ray.get(self._keeper.ready.remote(), timeout=_STARTING)  # what we claim before it is there could be lost
