"""What is held in the cluster for one device: a placement group of one bundle on one node, and the actors in it.

The bundle holds the device as a whole, so that no other program gets it between the lives of two actors, and all slots
of the device share it. Made and released by the fleet; the slots' threads hire in it.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from director._device import Device
from director._executors.ray.actor.actor import GROUPS, DirectorWorker
from director._executors.ray.placement_groups import PlacementGroups
from director._ipc import log_relay as logs
from director._threads import call_once
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from director._executors.ray.encoding import CallMessage
    from director._executors.ray.messages import Hardware
    from director._executors.ray.nodes import Node
    from director._executors.ray.terms import RayTerms


_KILLING = 3.0  # seconds in which Ray tells an actor to end, if there is a head
_LITTLE = 0.001  # of a device: enough for Ray to tell an actor which one it is, and room for a thousand slots


class Reservation:
    """One device, asked for; it is there when its first actor has said what `hardware` it has.

    Args:
        node: Where.
        ordinal: Counts the devices of the node.
        amounts: What it holds of the node's resources.
        terms: Of all actors.
        groups: Makes its placement group.
    """

    def __init__(
        self, node: Node, ordinal: int, amounts: dict[str, float], terms: RayTerms, groups: PlacementGroups
    ) -> None:
        self.node = node
        self.ordinal = ordinal
        self.device: Device | None = None
        self.is_lost = False  # set once, by the fleet
        self.is_cut = False  # the same: nothing can be heard of its calls any more
        self.amounts = amounts
        self._terms = terms
        self._groups = groups
        self._group = groups.make(amounts, node)
        self._lock = threading.Lock()  # guards the two: slots hire on their own threads
        self._hired: list[Actor] = []
        self._expected: Hardware | None = None  # of each actor but the first
        self._spare: Actor | None = None
        self._spare = self.hire()
        self.hardware = self._spare.hardware()

    def hire(self, before: Actor | None = None) -> Actor:
        """An actor for a slot: the first that was made if it is free, or a successor of the one `before`."""
        with self._lock:
            if before is None and self._spare is not None:
                spare, self._spare = self._spare, None
                return spare
            actor = Actor(self._group, self._parts(), self._terms, before, self._expected)
            self._hired = [other for other in self._hired if other is not before] + [actor]
            return actor

    def recognise(self, hardware: Hardware, taken: set[str]) -> Device:
        """The device, by what its first actor has. All later ones must have the same.

        Args:
            hardware: That.
            taken: UUIDs of others.

        Raises:
            DiscoveryError: It can't be a device of its own.
        """
        ids, gpus = hardware
        if len(gpus) > max(1, len(ids)):
            raise DiscoveryError(
                f"Ray has given an actor {len(ids)} GPU(s) and it sees {len(gpus)}: unset "
                "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES where Ray is started"
            )
        index = int(ids[0]) if ids and ids[0].isdecimal() else self.ordinal
        what = "logical GPU" if "GPU" in self.amounts else " + ".join(sorted(self.amounts))
        stand_in = Device(index, f"RAY-{self.node.id[:16]}-{index}", f"{what} of {self.node.name}", "cpu")
        device = replace(gpus[0] if gpus else stand_in, index=index, node=self.node.name)
        if device.uuid in taken:
            if self.amounts.get("GPU", 0) >= 1:
                raise DiscoveryError(f"Ray has given the GPU {device.uuid} to two actors, as a whole to each")
            device = replace(device, uuid=f"{device.uuid}#{self.ordinal}")  # each holds a part of it
        self._expected, self.device = hardware, device
        return device

    def release(self) -> None:
        """Let go of everything; actors that are left end."""
        if self.is_cut:
            return
        for actor in self._hired:
            actor.kill()
        self._groups.remove(self._group)

    def _parts(self) -> dict[str, float]:
        """What an actor takes of the bundle."""
        return {
            name: amount if amount > 1 and name == "GPU" else min(_LITTLE, amount)
            for name, amount in self.amounts.items()
            if name != "CPU"
        }


class Actor:
    """One actor of Ray's, which Ray does not start again: its references tell of one process and no other.

    Args:
        group: The placement group.
        parts: What it takes of it.
        terms: Of all.
        before: The one in whose place it comes, if there was one.
        expected: What it must have; it ends at once if it has something else.
    """

    def __init__(
        self, group: Any, parts: dict[str, float], terms: RayTerms, before: Actor | None, expected: Hardware | None
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        gpus = parts.pop("GPU", 0)
        accelerator = "GPU" if gpus else next(iter(parts), "")
        self._name: str = before._name if before is not None else f"director-{uuid4().hex}.begun"
        self.is_dead = False  # set once, by the fleet's thread: Ray's head says so
        remote: Any = ray.remote
        self._handle = (
            remote(concurrency_groups=GROUPS)(DirectorWorker)
            .options(
                num_cpus=0,
                num_gpus=gpus,
                resources=parts,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, 0),
                runtime_env=terms.runtime_env,
            )
            .remote(self._name, before is None, logs.levels(), accelerator, expected)
        )
        self._call = self._handle.call.options(concurrency_group="calls")
        self._listen = self._handle.listen.options(concurrency_group="notes")
        self._control = {
            name: getattr(self._handle, name).options(concurrency_group="control")
            for name in ("hardware", "begun", "request", "farewell")
        }

    def call(self, message: CallMessage) -> Any:
        """Have it make a call; the reference of the answer."""
        return self._call.remote(message.content, *message.extras)

    def listen(self) -> Any:
        """What it tells beside its answers, when there is something."""
        return self._listen.remote()

    def hardware(self) -> Any:
        """Ask what it computes on; answered as soon as it is there."""
        return self._control["hardware"].remote()

    def begun(self) -> Any:
        """Ask which calls have begun in its slot; the same."""
        return self._control["begun"].remote()

    def request(self, number: int, what: int) -> None:
        """Say something about a call; see `CallQueue.request`."""
        with suppress(Exception):  # the same as in `kill`
            self._control["request"].remote(number, int(what))

    def farewell(self) -> Any:
        """Have it unload everything."""
        return self._control["farewell"].remote()

    def ask_if_dead(self) -> bool:
        """Whether Ray's head knows that it has ended. Blocks."""
        from ray._private.state import actors

        known: dict[str, Any] = actors(self._handle._actor_id.hex())
        return known.get("State") == "DEAD"

    def kill(self) -> None:
        """End it, whatever it does. Without a head Ray waits for one: then it is left to a thread of its own."""
        import ray

        with suppress(Exception):  # it, or the cluster, may be gone
            call_once("director:kill", partial(ray.kill, self._handle, no_restart=True)).result(_KILLING)


logger = logging.getLogger("director")
Key: TypeAlias = tuple[str, int]  # the id of a node, and which of its devices
_AGAIN = 15.0  # seconds after which a device that was in use elsewhere is asked for again


class Allocation:
    """Claims what the nodes have, again and again.

    Args:
        amounts: What each device holds.
        most: Devices on one node.
        terms: Of all actors.
    """

    def __init__(self, amounts: Mapping[str, float], most: int, terms: RayTerms) -> None:
        self.there: dict[Key, Reservation] = {}
        self.refusal: DiscoveryError | None = None  # why the last one that could not be used could not
        self._amounts = dict(amounts)
        self._most = most
        self._terms = terms
        self._groups = PlacementGroups()
        self._asked: dict[Key, tuple[Reservation, float]] = {}  # and until when
        self._later: dict[Key, float] = {}  # in vain, and when to ask again

    def look(self, nodes: Iterable[Node], patience: float) -> tuple[list[Reservation], list[Reservation]]:
        """Ask for what is missing.

        Args:
            nodes: Those that are alive.
            patience: Seconds to wait for what is asked for.

        Returns:
            The claims whose devices have come, and those whose nodes have left.
        """
        alive = {node.id: node for node in nodes}
        gone = [self.there.pop(key) for key in list(self.there) if key[0] not in alive]
        for key in [key for key in self._asked if key[0] not in alive]:
            self._asked.pop(key)[0].release()
        self._later = {key: moment for key, moment in self._later.items() if key[0] in alive}
        for node in alive.values():
            for ordinal in range(min(node.holds(self._amounts), self._most)):
                self._ask(node, ordinal)
        return self._arrived(patience), gone

    def release(self) -> None:
        """Release all reservations, those whose actors have not started too."""
        for claim in [*self.there.values(), *(claim for claim, _ in self._asked.values())]:
            claim.release()
        self._groups.close()

    @property
    def missing(self) -> int:
        """Devices that the nodes have, and that are not there."""
        return len(self._asked) + len(self._later)

    def _ask(self, node: Node, ordinal: int) -> None:
        key, now = (node.id, ordinal), time.monotonic()
        if key in self.there or key in self._asked or self._later.get(key, now) > now:
            return
        self._later.pop(key, None)
        self._asked[key] = (
            Reservation(node, ordinal, self._amounts, self._terms, self._groups),
            now + self._terms.start_timeout,
        )

    def _arrived(self, patience: float) -> list[Reservation]:
        import ray

        if not self._asked:
            return []
        answers = {claim.hardware: key for key, (claim, _) in self._asked.items()}
        ready, _ = ray.wait(list(answers), num_returns=len(answers), timeout=patience)
        arrived = []
        for key in [answers[answer] for answer in ready]:
            claim, _ = self._asked.pop(key)
            if self._recognise(claim):
                self.there[key] = claim
                arrived.append(claim)
            else:
                self._give_up(key, claim)
        for key, (claim, until) in list(self._asked.items()):
            if time.monotonic() >= until:
                del self._asked[key]
                self._give_up(key, claim)
        return arrived

    def _give_up(self, key: Key, claim: Reservation) -> None:
        claim.release()
        self._later[key] = time.monotonic() + _AGAIN

    def _recognise(self, claim: Reservation) -> bool:
        """Whether the first actor says what it is."""
        import ray
        from ray.exceptions import RayError

        taken = {other.device.uuid for other in self.there.values() if other.device is not None}
        try:
            claim.recognise(ray.get(claim.hardware), taken)
        except DiscoveryError as error:
            self.refusal = error
            logger.warning("%s", error)
            return False
        except (RayError, ImportError) as error:
            first, *_ = str(error).strip().splitlines() or [type(error).__name__]
            self.refusal = DiscoveryError(
                f"no actor can be started on the node {claim.node.name}: {first}. Each node needs gpu-director, of the "
                "version that the driver has, or a runtime_env that brings it"
            )
            logger.warning("%s", self.refusal)
            return False
        return True
