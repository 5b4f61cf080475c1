"""The devices of one running Director in a cluster: claimed, watched for nodes that leave, given back at the end.

`_claims` and what they know belong to whoever holds `_lock`: the thread that gathers, then the one that watches.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from director._core.slot_thread import SlotThread
from director._executors._ray.claim import Claim
from director._executors._ray.connection import connect, disconnect
from director._executors._ray.nodes import Names
from director._executors._ray.seat import RaySeat
from director._executors._ray.terms import Terms
from director._executors._ray.wire import About
from director._executors._ray.wishes import amounts_of
from director.errors import DiscoveryError, NoDevices, PlacementError

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._core.chronicle import Chronicle
    from director._core.slot import Slot
    from director._device import Device
    from director._devices.discovery import DeviceSpec
    from director._executors._ray.executor import RayExecutor
    from director._executors._ray.nodes import Node
    from director._models import Residency

logger = logging.getLogger("director")
_EVERY = 1.0  # seconds between two looks at the nodes
_SILENCE = 10.0  # seconds in which the head answers, if it is there


class Fleet:
    """Brings the devices of a cluster to one Director, and runs the calls of their slots.

    Args:
        executor: What the user has said.
    """

    def __init__(self, executor: RayExecutor) -> None:
        self.terms = Terms(executor.patience, executor.grace, executor.runtime_env)
        self.aside = SlotThread("director:ray notes")
        self._executor = executor
        self._is_ours = False  # the connection
        self._names = Names()
        self._lock = threading.Lock()
        self._claims: list[Claim] = []
        self._asking = SlotThread("director:ray asks")
        self._watching = SlotThread("director:ray watch")
        self._is_over = threading.Event()
        self._left: Callable[[Device, str], None] = lambda _device, _reason: None

    # ---- for the Director

    def gather(self, spec: DeviceSpec) -> tuple[Device, ...]:
        """Connect, claim what there is, and wait for it. Blocks; not for the event loop.

        Raises:
            DiscoveryError: No cluster answers, or no actor can be started in it.
            NoDevices: It has none, or all are in use.
            ValueError: `spec` means nothing in a cluster.
        """
        self._is_ours = connect(self._executor.address, self._executor.runtime_env)
        if self._is_ours:  # then it is that of the whole job, which may bring a folder of this machine
            self.terms = replace(self.terms, actor_env=None)
        try:
            nodes = self._nodes()
            amounts, most = amounts_of(spec, self._executor.resources, nodes)
            claims = [
                Claim(node, ordinal, amounts, self.terms)
                for node in nodes
                for ordinal in range(min(node.holds(amounts), most))
            ]
            with self._lock:
                self._claims = claims
            return self._settle(claims, amounts)
        except BaseException:
            self.disband()
            raise

    def watch(self, left: Callable[[Device, str], None]) -> None:
        """Tell of devices that leave.

        Args:
            left: Called on any thread with the device, and why.
        """
        self._left = left
        self._watching.submit(self._watch)

    def seat(self, slot: Slot, residency: Residency, chronicle: Chronicle) -> RaySeat:
        """A seat for `slot`."""
        gpus = self.claim_of(slot.device).amounts.get("GPU", 0)
        if gpus > 1 and len(slot.place.slots) > 1:
            raise PlacementError(f"a device of {gpus:g} GPUs has one slot: Ray gives all of them to one actor")
        residency.is_apart = True
        return RaySeat(slot, residency, chronicle, self)

    def disband(self) -> None:
        """Let go of everything in the cluster. Blocks."""
        self._is_over.set()
        with self._lock:
            claims, self._claims = self._claims, []
        for claim in claims:
            claim.release()
        for thread in (self._watching, self._asking, self.aside):
            thread.shutdown(wait=True)
        if self._is_ours:
            self._is_ours = False
            disconnect()

    # ---- for the seats, on their threads

    def claim_of(self, device: Device) -> Claim:
        """What is held for a device."""
        with self._lock:
            return next(claim for claim in self._claims if claim.device == device)

    def is_gone(self, claim: Claim) -> bool:
        """Whether the node of a device has left."""
        return claim.is_lost

    def lose(self, claim: Claim, reason: str) -> None:
        """A device is there no more."""
        with self._lock:
            if claim.is_lost or claim.device is None:
                return
            claim.is_lost = True
        self._left(claim.device, reason)

    # ---- on their own threads

    def _nodes(self) -> list[Node]:
        """The nodes that are alive.

        Raises:
            TimeoutError: The head does not answer.
        """
        import ray

        return self._names.alive(self._asking.submit(ray.nodes).result(_SILENCE))

    def _settle(self, claims: list[Claim], amounts: dict[str, float]) -> tuple[Device, ...]:
        """Wait for what was claimed; what somebody else uses is given up."""
        import ray

        what = " and ".join(f"{amount:g} {name}" for name, amount in amounts.items())
        if not claims:
            raise NoDevices(f"No node of the Ray cluster has {what}: {_told(self._nodes())}.")
        abouts = [claim.about for claim in claims]
        ready, _ = ray.wait(abouts, num_returns=len(abouts), timeout=self.terms.patience)
        settled = set(ready)
        for claim in claims:
            if claim.about in settled:
                self._recognise(claim)
            else:
                claim.release()
        with self._lock:
            self._claims = [claim for claim in claims if claim.about in settled]
        if not settled:
            raise NoDevices(
                f"{len(claims)} x {what} are there in the Ray cluster, and none was free for "
                f"{self.terms.patience:g} s: somebody else uses them (`ray status` tells), or actors start too slowly"
            )
        if len(settled) < len(claims):
            busy = len(claims) - len(settled)
            logger.warning("%d of %d devices of the cluster are in use elsewhere", busy, len(claims))
        return tuple(claim.device for claim in self._claims if claim.device is not None)

    def _recognise(self, claim: Claim) -> None:
        import ray
        from ray.exceptions import RayError

        taken = {other.device.uuid for other in self._claims if other.device is not None}
        try:
            claim.recognise(About(*ray.get(claim.about)), taken)
        except (RayError, ImportError) as error:
            first, *_ = str(error).strip().splitlines() or [type(error).__name__]
            raise DiscoveryError(
                f"no actor can be started on the node {claim.node.name}: {first}. Each node needs gpu-director, of the "
                "version that the driver has, or a runtime_env that brings it"
            ) from error

    def _watch(self) -> None:
        """Until the end, look which nodes are alive."""
        while not self._is_over.wait(_EVERY):
            try:
                alive = {node.id for node in self._nodes()}
            except Exception as error:  # noqa: BLE001 - whatever Ray says when its head is gone
                if not self._is_over.is_set():
                    self._lose_all(f"the head of the Ray cluster does not answer ({type(error).__name__})")
                return
            for claim in list(self._claims):
                if claim.node.id not in alive:
                    self.lose(claim, f"its node {claim.node.name} has left the cluster")

    def _lose_all(self, reason: str) -> None:
        for claim in list(self._claims):
            self.lose(claim, reason)


def _told(nodes: list[Node]) -> str:
    known = ("CPU", "GPU")
    said = [
        f"{node.name} has " + ", ".join(f"{node.resources.get(name, 0):g} {name}" for name in known) for node in nodes
    ]
    return "; ".join(said) or "it has no nodes"
