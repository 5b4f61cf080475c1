"""`RayExecutor`: a Director with it has the devices of a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from director._executors.ray.options import RayOptions

if TYPE_CHECKING:
    from director._executors.base import Fleet


@dataclass(frozen=True, kw_only=True)
class RayExecutor(RayOptions):
    """Runs jobs in a Ray cluster: one actor for each slot. Its devices are those of the Director.

    In a process that is connected already (a driver, a task, an actor, a replica of Ray Serve) it uses that connection
    and leaves it open; else it connects, and disconnects when the Director has closed.

    Args:
        address: Of the cluster: ``"auto"`` for the one of this machine, ``"host:6379"``, or ``"local"`` to start one in
            this program. Ignored in a process that is connected already.
        resources: What each device holds of its node, as Ray names it: ``{"GPU": 2, "CPU": 8}``. `None`: a GPU, or
            where no node has one, a CPU core.
        runtime_env: Ray's runtime environment of the actors, such as their ``working_dir``.
        start_timeout: Seconds in which actors start; devices that other programs use for so long are left out.
        grace: Seconds between asking a call to end (its timeout has passed) and ending its actor.

    Raises:
        TypeError: A value of the wrong type.
        ValueError: A value out of range.
    """

    def fleet(self) -> Fleet:
        """The fleet of one open Director (`director._executors.base.Fleet`)."""
        from director._executors.ray.fleet import RayFleet

        return RayFleet(self)
