"""What is held in the cluster for one device: a placement group of one bundle on one node, and the actors in it.

The bundle holds the device as a whole, so that nobody else gets it between two lives of an actor, and all slots of the
device share it. Made and released by the fleet; the slots' threads hire in it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from director._device import Device
from director._executors._process import logs
from director._executors._ray.shell import DirectorWorker

if TYPE_CHECKING:
    from director._executors._ray.groups import Groups
    from director._executors._ray.nodes import Node
    from director._executors._ray.terms import Terms
    from director._executors._ray.wire import About

_LITTLE = 0.001  # of a device: enough for Ray to tell an actor which one it is, and room for a thousand slots


class Claim:
    """One device, asked for; it is there when its first actor answers `about`.

    Args:
        node: Where.
        ordinal: Counts the devices of the node.
        amounts: What it holds of the node's resources.
        terms: Of all actors.
        groups: Makes its placement group.
    """

    def __init__(self, node: Node, ordinal: int, amounts: dict[str, float], terms: Terms, groups: Groups) -> None:
        self.node = node
        self.ordinal = ordinal
        self.device: Device | None = None
        self.is_lost = False  # set once, by the fleet
        self.is_cut = False  # the same: nothing can be heard of its calls any more
        self.amounts = amounts
        self._terms = terms
        self._groups = groups
        self._group = groups.make(amounts, node)
        self._hired: list[Actor] = []
        self._spare: Actor | None = None
        self._spare = self.hire()
        self.about = self._spare.about()

    def hire(self) -> Actor:
        """An actor for a slot: the first that was made if nobody has it yet."""
        spare, self._spare = self._spare, None
        if spare is not None:
            return spare
        actor = Actor(self._group, self._parts(), self._terms)
        self._hired.append(actor)
        return actor

    def recognise(self, about: About, taken: set[str]) -> Device:
        """The device, by what its first actor has said.

        Args:
            about: That.
            taken: UUIDs of others.
        """
        ids = about.accelerators
        index = int(ids[0]) if ids and ids[0].isdecimal() else self.ordinal
        if about.devices:
            gpu = about.devices[0]
            shared = gpu.uuid in taken  # two devices may hold a part of one GPU each
            uuid = f"{gpu.uuid}#{self.ordinal}" if shared else gpu.uuid
            self.device = Device(index, uuid, gpu.name, "cuda", gpu.total_memory, self.node.name)
        else:
            what = "logical GPU" if "GPU" in self.amounts else " + ".join(sorted(self.amounts))
            uuid = f"RAY-{self.node.id[:16]}-{self.ordinal}"
            self.device = Device(self.ordinal, uuid, f"{what} of {self.node.name}", "cpu", None, self.node.name)
        return self.device

    def release(self) -> None:
        """Let go of everything; actors that are left end."""
        if self.is_cut:
            return
        for actor in self._hired:
            actor.kill(for_good=True)
        self._groups.remove(self._group)

    def _parts(self) -> dict[str, float]:
        """What an actor takes of the bundle."""
        return {
            name: amount if amount > 1 and name == "GPU" else min(_LITTLE, amount)
            for name, amount in self.amounts.items()
            if name != "CPU"
        }


class Actor:
    """One actor of Ray's, and those that Ray starts in its place.

    Args:
        group: The placement group.
        parts: What it takes of it.
        terms: Of all.
    """

    def __init__(self, group: Any, parts: dict[str, float], terms: Terms) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        gpus = parts.pop("GPU", 0)
        self._accelerator = "GPU" if gpus else next(iter(parts), "")
        remote: Any = ray.remote
        made = remote(concurrency_groups={"aside": 3, "letters": 1})(DirectorWorker)
        self._handle = made.options(
            num_cpus=0,
            num_gpus=gpus,
            resources=parts,
            max_restarts=-1,
            max_task_retries=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, 0),
            runtime_env=terms.actor_env,
        ).remote(f"director-{uuid4().hex}.begun", logs.levels())
        self._call = self._handle.call
        self._hand_in = self._handle.hand_in.options(concurrency_group="letters")  # one thread: in their order
        self._aside = {
            name: getattr(self._handle, name).options(concurrency_group="aside")
            for name in ("about", "notice", "withdraw", "listen")
        }

    def call(self, letter: bytes, args: tuple[Any, ...]) -> Any:
        """Have it make the calls of a letter; returns the reference of the answers."""
        return self._call.remote(letter, *args)

    def hand_in(self, letter: bytes, args: tuple[Any, ...]) -> Any:
        """Have it go on with these calls, if it makes one; the reference of whether it does."""
        return self._hand_in.remote(letter, *args)

    def stream(self, letter: bytes, args: tuple[Any, ...], window: int) -> Any:
        """Have it make a generator and give its values, `window` of them at most ahead of who takes them."""
        options = {"num_returns": "streaming", "_generator_backpressure_num_objects": window}
        return self._handle.stream.options(**options).remote(letter, *args)

    def about(self) -> Any:
        """Ask who it is; answered as soon as there is one."""
        return self._aside["about"].remote(self._accelerator)

    def notice(self, number: int, notice: int) -> None:
        """Tell it that nobody waits for a call."""
        self._aside["notice"].remote(number, int(notice))

    def withdraw(self, numbers: list[int]) -> Any:
        """Take back calls that have not begun."""
        return self._aside["withdraw"].remote(numbers)

    def listen(self) -> Any:
        """What it has to tell."""
        return self._aside["listen"].remote()

    def farewell(self) -> Any:
        """Have it unload everything."""
        return self._handle.farewell.remote()

    def kill(self, *, for_good: bool) -> None:
        """End it, whatever it does; unless `for_good`, Ray starts another one."""
        import ray

        with suppress(Exception):  # it, or the cluster, may be gone
            ray.kill(self._handle, no_restart=for_good)
