"""The devices of one running Director in a cluster: claimed, watched as nodes come and go, given back at the end.

`_claims`, of the devices that the Director knows or has known, belongs to the thread that holds `_lock`; `_muster` to
the thread that gathers, then the one that watches, and at the end the one that disbands.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from director._executors.ray.allocation import Allocation
from director._executors.ray.connection import connect, disconnect
from director._executors.ray.nodes import Names, amounts_of
from director._executors.ray.runner import RayRunner
from director._threads import DaemonThreadExecutor, Flag
from director.errors import NoDevices, PlacementError

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._devices.discovery import DeviceSpec
    from director._executors.ray.allocation import Reservation
    from director._executors.ray.nodes import Node
    from director._executors.ray.terms import RayTerms
    from director._jobs.job_runner import SlotInfo
    from director._jobs.runner import RunnerEvents

logger = logging.getLogger("director")
_EVERY = 1.0  # seconds between two looks at the nodes
_SILENCE = 10.0  # seconds in which the head answers, if it is there


class RayFleet:
    """Brings the devices of a cluster to one Director, and runs the calls of their slots.

    Args:
        terms: What the user has said.
    """

    def __init__(self, terms: RayTerms) -> None:
        self.terms = terms
        self._is_ours = False  # the connection
        self._names = Names()
        self._lock = threading.RLock()  # a finalizer may find that the loop is gone, and disband, in the midst
        self._muster: Allocation | None = None
        self._claims: dict[Device, Reservation] = {}
        self._runners: list[RayRunner] = []
        self._is_answered = True  # what the head was asked last
        self._asking = DaemonThreadExecutor("director:ray asks")
        self._watching = DaemonThreadExecutor("director:ray watch")
        self._is_over = Flag()
        self._left: Callable[[Device, str], None] = lambda _device, _reason: None

    # ---- for the Director

    def gather(self, spec: DeviceSpec) -> tuple[Device, ...]:
        """Connect, claim what there is, and wait for it. Blocks; not for the event loop.

        Raises:
            DiscoveryError: No cluster answers, or no actor can be started in it.
            NoDevices: It has none, or all are in use.
            ValueError: `spec` means nothing in a cluster.
        """
        self._is_ours = connect(self.terms.address, self.terms.runtime_env)
        if self._is_ours:  # then it is that of the whole job, which may bring a folder of this machine
            self.terms = replace(self.terms, runtime_env=None)
        try:
            nodes = self._nodes()
            amounts, most = amounts_of(spec, self.terms.resources, nodes)
            self._muster = Allocation(amounts, most, self.terms)
            arrived, _ = self._muster.look(nodes, self.terms.start_timeout)
            if not arrived:
                raise self._muster.refusal or NoDevices(_why_none(nodes, amounts, self._muster.missing, self.terms))
            if self._muster.missing:
                total = len(arrived) + self._muster.missing
                logger.warning("%d of %d devices of the cluster are in use elsewhere", self._muster.missing, total)
        except BaseException:
            self.disband()
            raise
        self._add(arrived)
        return tuple(claim.device for claim in arrived if claim.device is not None)

    def watch(self, joined: Callable[[Device], None], left: Callable[[Device, str], None]) -> None:
        """Tell of devices that come and go; both are called on any thread.

        Args:
            joined: Takes a device that has come.
            left: Takes one that is gone, and why.
        """
        self._left = left
        self._watching.submit(self._watch, joined)

    def runner(self, slot: SlotInfo, events: RunnerEvents) -> RayRunner:
        """A runner for `slot`."""
        claim = self._claim_of(slot.device)
        gpus = claim.amounts.get("GPU", 0)
        if gpus > 1 and slot.slots > 1:
            raise PlacementError(f"a device of {gpus:g} GPUs has one slot: Ray gives all of them to one actor")
        runner = RayRunner(slot, events, self.terms, claim)
        with self._lock:
            self._runners.append(runner)
        return runner

    def disband(self) -> None:
        """Let go of everything in the cluster. Blocks."""
        with self._lock:
            self._is_over.set()
        self._watching.shutdown(wait=True)
        if self._muster is not None:
            self._muster.release()
        self._asking.shutdown(wait=self._is_answered)
        if self._is_ours:
            self._is_ours = False
            disconnect()

    # ---- on its own threads

    def _claim_of(self, device: Device) -> Reservation:
        """What is held for a device."""
        with self._lock:
            return self._claims[device]

    def _lose(self, claim: Reservation, reason: str) -> None:
        """A device is there no more."""
        with self._lock:
            if claim.is_lost or claim.device is None:
                return
            claim.is_lost = True
        self._left(claim.device, reason)

    def _nodes(self) -> list[Node]:
        """The nodes that are alive.

        Raises:
            TimeoutError: The head does not answer.
        """
        import ray

        self._is_answered = False
        nodes = self._names.alive(self._asking.submit(ray.nodes).result(_SILENCE))
        self._is_answered = True
        return nodes

    def _add(self, claims: list[Reservation]) -> None:
        with self._lock:
            self._claims.update({claim.device: claim for claim in claims if claim.device is not None})

    def _watch(self, joined: Callable[[Device], None]) -> None:
        """Until the end, look which nodes there are."""
        assert self._muster is not None
        while not self._is_over.wait(_EVERY):
            self._find_dead()
            try:
                nodes = self._nodes()
                arrived, gone = self._muster.look(nodes, 0.0)
            except Exception as error:  # noqa: BLE001 - whatever Ray says when its head is gone
                if not self._is_over.is_set():
                    self._lose_all(f"the head of the Ray cluster does not answer ({type(error).__name__})")
                return
            for claim in gone:
                self._lose(claim, f"its node {claim.node.name} has left the cluster")
                claim.release()
            self._add(arrived)
            for claim in arrived:
                if claim.device is not None:
                    logger.info("%s has joined", claim.device.label)
                    joined(claim.device)

    def _find_dead(self) -> None:
        """Ask Ray's head for the actors of calls that take long, should the slots' threads wait in vain."""
        with self._lock:
            runners = list(self._runners)
        for runner in runners:
            actor = runner.client.silent_actor(_SILENCE)
            if actor is not None:
                with suppress(Exception):  # the head does not answer: `_watch` sees that
                    actor.is_dead = self._asking.submit(actor.ask_if_dead).result(_SILENCE)

    def _lose_all(self, reason: str) -> None:
        """Without its head a cluster ends, and Ray ends each program that stays connected to it for a minute."""
        with self._lock:
            claims = list(self._claims.values())
        for claim in claims:
            claim.is_cut = True
            self._lose(claim, reason)
        if self._is_ours:
            self._is_ours = False
            disconnect()
        else:
            logger.critical("Ray ends this program in less than a minute if the head of its cluster stays away")


def _why_none(nodes: list[Node], amounts: dict[str, float], claimed: int, terms: RayTerms) -> str:
    what = " and ".join(f"{amount:g} {name}" for name, amount in amounts.items())
    if claimed:
        return (
            f"{claimed} x {what} are there in the Ray cluster, and none was free for {terms.start_timeout:g} s: other "
            "programs use them (`ray status` tells), or actors start too slowly"
        )
    known = ("CPU", "GPU")
    said = [
        f"{node.name} has " + ", ".join(f"{node.resources.get(name, 0):g} {name}" for name in known) for node in nodes
    ]
    return f"No node of the Ray cluster has {what}: {'; '.join(said) or 'it has no nodes'}."
