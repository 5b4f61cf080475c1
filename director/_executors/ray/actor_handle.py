"""One Ray actor, as the driver has it: how it is created, called and killed. For any thread."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from director._executors.ray.actor.actor import GROUPS, DirectorWorker
from director._ipc import log_relay as logs
from director._system.threads import call_once

if TYPE_CHECKING:
    from director._executors.ray.encoding import CallMessage
    from director._executors.ray.messages import Hardware
    from director._executors.ray.options import RayOptions

_KILLING = 3.0  # seconds to wait for `ray.kill`


class ActorHandle:
    """One actor, which Ray does not restart, so that its references belong to one process."""

    def __init__(
        self,
        group: Any,
        resources: dict[str, float],
        options: RayOptions,
        previous: ActorHandle | None,
        expected: Hardware | None,
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        gpus = resources.pop("GPU", 0)
        accelerator = "GPU" if gpus else next(iter(resources), "")
        self._name: str = previous._name if previous is not None else f"director-{uuid4().hex}.begun"
        self.is_dead = False  # set once, by the fleet's thread, when Ray's head says so
        remote: Any = ray.remote
        self._handle = (
            remote(concurrency_groups=GROUPS)(DirectorWorker)
            .options(
                num_cpus=0,
                num_gpus=gpus,
                resources=resources,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, 0),
                runtime_env=options.runtime_env,
            )
            .remote(self._name, previous is None, logs.levels(), accelerator, expected)
        )
        self._call = self._handle.call.options(concurrency_group="calls")
        self._next_messages = self._handle.next_messages.options(concurrency_group="messages")
        self._control = {
            name: getattr(self._handle, name).options(concurrency_group="control")
            for name in ("hardware", "last_begun", "request", "shut_down")
        }

    def call(self, message: CallMessage) -> Any:
        """Have it make a call; returns the reference of the answer."""
        return self._call.remote(message.content, *message.extras)

    def next_messages(self) -> Any:
        """The reference of its next side messages."""
        return self._next_messages.remote()

    def hardware(self) -> Any:
        """The reference of its hardware, which is ready when the actor has started."""
        return self._control["hardware"].remote()

    def last_begun(self) -> Any:
        """The reference of the numbers of the last calls that have begun in its slot."""
        return self._control["last_begun"].remote()

    def request(self, number: int, what: int) -> None:
        """Withdraw a call, or notify it; see `CallQueue.request`."""
        with suppress(Exception):  # the actor, or the cluster, may be gone
            self._control["request"].remote(number, int(what))

    def shut_down(self) -> Any:
        """Have it unload everything; returns the reference of its last side messages."""
        return self._control["shut_down"].remote()

    def ask_if_dead(self) -> bool:
        """Whether it is dead, by Ray's head. Blocks."""
        from ray._private.state import actors

        known: dict[str, Any] = actors(self._handle._actor_id.hex())
        return known.get("State") == "DEAD"

    def kill(self) -> None:
        """Kill it. On another thread, because `ray.kill` waits for the head if that is gone; waits a little."""
        import ray

        with suppress(Exception):  # the actor, or the cluster, may be gone
            call_once("director:kill", partial(ray.kill, self._handle, no_restart=True)).result(_KILLING)
