"""All devices that one Director has in a cluster: requested, retried, and released."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeAlias

from director._executors.ray.cluster.reservation import PlacementGroups, Reservation
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from director._executors.ray.cluster.nodes import Node
    from director._executors.ray.options import RayOptions

logger = logging.getLogger("director")
Key: TypeAlias = tuple[str, int]  # the id of a node, and which of its devices
_RETRY_AFTER = 15.0  # seconds after which a device is requested again that other programs used


class Allocation:
    """Reserves all devices that the nodes have, also those of nodes that join. For one thread at a time."""

    def __init__(self, bundle: Mapping[str, float], most: int, options: RayOptions) -> None:
        self.ready: dict[Key, Reservation] = {}
        self.last_error: DiscoveryError | None = None  # of a device that can't be used
        self._bundle = dict(bundle)
        self._most = most
        self._options = options
        self._groups = PlacementGroups()
        self._pending: dict[Key, tuple[Reservation, float]] = {}  # and when they time out
        self._retry_at: dict[Key, float] = {}  # of those that have timed out or failed

    def update(self, nodes: Iterable[Node], timeout: float) -> tuple[list[Reservation], list[Reservation]]:
        """Request the devices that are missing.

        Returns:
            The reservations that have become ready, and those whose nodes have left.
        """
        alive = {node.id: node for node in nodes}
        gone = [self.ready.pop(key) for key in list(self.ready) if key[0] not in alive]
        for key in [key for key in self._pending if key[0] not in alive]:
            self._pending.pop(key)[0].release()
        self._retry_at = {key: moment for key, moment in self._retry_at.items() if key[0] in alive}
        for node in alive.values():
            for ordinal in range(min(node.holds(self._bundle), self._most)):
                self._request(node, ordinal)
        return self._collect_ready(timeout), gone

    def release(self) -> None:
        """Release all reservations, those whose actors have not started too."""
        for reservation in [*self.ready.values(), *(reservation for reservation, _ in self._pending.values())]:
            reservation.release()
        self._groups.close()

    @property
    def missing(self) -> int:
        """How many devices of the nodes are not ready."""
        return len(self._pending) + len(self._retry_at)

    def _request(self, node: Node, ordinal: int) -> None:
        key, now = (node.id, ordinal), time.monotonic()
        if key in self.ready or key in self._pending or self._retry_at.get(key, now) > now:
            return
        self._retry_at.pop(key, None)
        self._pending[key] = (
            Reservation(node, ordinal, self._bundle, self._options, self._groups),
            now + self._options.start_timeout,
        )

    def _collect_ready(self, timeout: float) -> list[Reservation]:
        import ray

        if not self._pending:
            return []
        answers = {reservation.hardware: key for key, (reservation, _) in self._pending.items()}
        ready, _ = ray.wait(list(answers), num_returns=len(answers), timeout=timeout)
        collected = []
        for key in [answers[answer] for answer in ready]:
            reservation, _ = self._pending.pop(key)
            if self._identify(reservation):
                self.ready[key] = reservation
                collected.append(reservation)
            else:
                self._give_up(key, reservation)
        for key, (reservation, deadline) in list(self._pending.items()):
            if time.monotonic() >= deadline:
                del self._pending[key]
                self._give_up(key, reservation)
        return collected

    def _give_up(self, key: Key, reservation: Reservation) -> None:
        reservation.release()
        self._retry_at[key] = time.monotonic() + _RETRY_AFTER

    def _identify(self, reservation: Reservation) -> bool:
        """Whether the device can be used, by the answer of its first actor."""
        import ray
        from ray.exceptions import RayError

        taken = {other.device.uuid for other in self.ready.values() if other.device is not None}
        try:
            reservation.identify(ray.get(reservation.hardware), taken)
        except DiscoveryError as error:
            self.last_error = error
            logger.warning("%s", error)
            return False
        except (RayError, ImportError) as error:
            first, *_ = str(error).strip().splitlines() or [type(error).__name__]
            self.last_error = DiscoveryError(
                f"no actor can be started on the node {reservation.node.name}: {first}. Each node needs gpu-director, "
                "of the version that the driver has, or a runtime_env that brings it"
            )
            logger.warning("%s", self.last_error)
            return False
        return True
