"""The devices of one open Director in a Ray cluster: reserved at the start, watched, released at the end.

`_lock` guards `_reservations` and `_runners`. `_allocation` belongs to the thread that calls `gather`, then to the
watch thread, and at the end to the thread that calls `disband`.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from director._executors.ray.cluster.allocation import Allocation
from director._executors.ray.cluster.connection import connect, disconnect
from director._executors.ray.cluster.nodes import NodeNames, bundle_of
from director._executors.ray.runner import RayRunner
from director._system.threads import DaemonThreadExecutor, Flag
from director.errors import NoDevices, PlacementError

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._devices.discovery import DeviceSpec
    from director._executors.base import MemoryEvents
    from director._executors.ray.cluster.nodes import Node
    from director._executors.ray.cluster.reservation import Reservation
    from director._executors.ray.options import RayOptions
    from director._jobs.job_runner import SlotInfo
    from director._jobs.runner import RunnerEvents

logger = logging.getLogger("director")
_INTERVAL = 1.0  # seconds between two checks of the nodes
_HEAD_TIMEOUT = 10.0  # seconds in which the head of the cluster answers


class RayFleet:
    """Provides one Director with the devices of a cluster, and its slots with runners."""

    def __init__(self, options: RayOptions) -> None:
        self.options = options
        self._owns_connection = False
        self._names = NodeNames()
        self._lock = threading.RLock()  # a finalizer may call `disband` while its thread holds it
        self._allocation: Allocation | None = None
        self._reservations: dict[Device, Reservation] = {}
        self._runners: list[RayRunner] = []
        self._has_answered = True  # the head, to the last request
        self._head_thread = DaemonThreadExecutor("director:ray head")
        self._watch_thread = DaemonThreadExecutor("director:ray watch")
        self._is_closed = Flag()
        self._left: Callable[[Device, str], None] = lambda _device, _reason: None

    # ---- for the Director

    def gather(self, spec: DeviceSpec) -> tuple[Device, ...]:
        """Connect, reserve all devices, and wait until their actors have started. Blocks, not on the event loop.

        Raises:
            DiscoveryError: No cluster answers, or no actor can be started in it.
            NoDevices: The cluster has none, or all are in use.
            ValueError: `spec` has no meaning in a cluster.
        """
        self._owns_connection = connect(self.options.address, self.options.runtime_env)
        if self._owns_connection:  # that of the whole Ray job, with which it may upload a folder
            self.options = replace(self.options, runtime_env=None)
        try:
            nodes = self._nodes()
            bundle, most = bundle_of(spec, self.options.resources, nodes)
            self._allocation = Allocation(bundle, most, self.options)
            arrived, _ = self._allocation.update(nodes, self.options.start_timeout)
            if not arrived:
                raise self._allocation.last_error or NoDevices(
                    _why_none(nodes, bundle, self._allocation.missing, self.options)
                )
            if self._allocation.missing:
                total = len(arrived) + self._allocation.missing
                logger.warning("%d of %d devices of the cluster are in use elsewhere", self._allocation.missing, total)
        except BaseException:
            self.disband()
            raise
        self._add(arrived)
        return tuple(reservation.device for reservation in arrived if reservation.device is not None)

    def watch(self, joined: Callable[[Device], None], left: Callable[[Device, str], None]) -> None:
        """Begin to report devices that join and leave; see `Fleet.watch`."""
        self._left = left
        self._watch_thread.submit(self._watch, joined)

    def runner(self, slot: SlotInfo, events: RunnerEvents) -> RayRunner:
        """A runner for `slot`."""
        with self._lock:
            reservation = self._reservations[slot.device]
        gpus = reservation.bundle.get("GPU", 0)
        if gpus > 1 and slot.slots > 1:
            raise PlacementError(f"a device of {gpus:g} GPUs has one slot: Ray gives all of them to one actor")
        runner = RayRunner(slot, cast("MemoryEvents", events), self.options, reservation)
        with self._lock:
            self._runners.append(runner)
        return runner

    def disband(self) -> None:
        """Release everything in the cluster. Blocks."""
        with self._lock:
            self._is_closed.set()
        self._watch_thread.shutdown(wait=True)
        if self._allocation is not None:
            self._allocation.release()
        self._head_thread.shutdown(wait=self._has_answered)
        if self._owns_connection:
            self._owns_connection = False
            disconnect()

    # ---- on its own threads

    def _lose(self, reservation: Reservation, reason: str) -> None:
        """A device has left the cluster."""
        with self._lock:
            if reservation.is_lost or reservation.device is None:
                return
            reservation.is_lost = True
        self._left(reservation.device, reason)

    def _nodes(self) -> list[Node]:
        """The nodes that are alive.

        Raises:
            TimeoutError: The head does not answer.
        """
        import ray

        self._has_answered = False
        nodes = self._names.alive(self._head_thread.submit(ray.nodes).result(_HEAD_TIMEOUT))
        self._has_answered = True
        return nodes

    def _add(self, reservations: list[Reservation]) -> None:
        with self._lock:
            self._reservations.update(
                {reservation.device: reservation for reservation in reservations if reservation.device is not None}
            )

    def _watch(self, joined: Callable[[Device], None]) -> None:
        """Update the reservations by the nodes of the cluster, until the Director closes."""
        assert self._allocation is not None
        while not self._is_closed.wait(_INTERVAL):
            self._find_dead()
            try:
                nodes = self._nodes()
                arrived, gone = self._allocation.update(nodes, 0.0)
            except Exception as error:  # noqa: BLE001 - Ray raises many kinds when its head is gone
                if not self._is_closed.is_set():
                    self._lose_all(f"the head of the Ray cluster does not answer ({type(error).__name__})")
                return
            for reservation in gone:
                self._lose(reservation, f"its node {reservation.node.name} has left the cluster")
                reservation.release()
            self._add(arrived)
            for reservation in arrived:
                if reservation.device is not None:
                    logger.info("%s has joined", reservation.device.label)
                    joined(reservation.device)

    def _find_dead(self) -> None:
        """Ask Ray's head whether the actors of long calls are dead: no answer may arrive."""
        with self._lock:
            runners = list(self._runners)
        for runner in runners:
            actor = runner.client.silent_actor(_HEAD_TIMEOUT)
            if actor is not None:
                with suppress(Exception):  # the head does not answer: `_watch` sees that
                    actor.is_dead = self._head_thread.submit(actor.ask_if_dead).result(_HEAD_TIMEOUT)

    def _lose_all(self, reason: str) -> None:
        """The head is gone: the cluster ends, and Ray ends each program that stays connected to it for a minute."""
        with self._lock:
            reservations = list(self._reservations.values())
        for reservation in reservations:
            reservation.is_disconnected = True
            self._lose(reservation, reason)
        if self._owns_connection:
            self._owns_connection = False
            disconnect()
        else:
            logger.critical("Ray ends this program in less than a minute if the head of its cluster stays away")


def _why_none(nodes: list[Node], bundle: dict[str, float], reserved: int, options: RayOptions) -> str:
    what = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
    if reserved:
        return (
            f"the Ray cluster has {reserved} x {what}, and none was free for {options.start_timeout:g} s: other "
            "programs use them (see `ray status`), or actors start too slowly"
        )
    known = ("CPU", "GPU")
    found = [
        f"{node.name} has " + ", ".join(f"{node.resources.get(name, 0):g} {name}" for name in known) for node in nodes
    ]
    return f"No node of the Ray cluster has {what}: {'; '.join(found) or 'it has no nodes'}."
