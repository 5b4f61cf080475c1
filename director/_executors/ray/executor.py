"""`RayExecutor`: what a user gives a Director that is to have the devices of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from director._executors.ray.terms import RayTerms

if TYPE_CHECKING:
    from director._executors.ray.fleet import RayFleet


@dataclass(frozen=True, kw_only=True)
class RayExecutor(RayTerms):
    """Runs jobs in a Ray cluster: one actor for each slot. Its devices are those of the Director.

    Used in a process that is connected already (a driver, a task, an actor, a replica of Ray Serve) it takes that
    connection and leaves it open; else it connects, and disconnects when the Director has closed.

    Args:
        address: Of the cluster: ``"auto"`` for the one of this machine, ``"host:6379"``, or ``"local"`` to start one in
            this program. A process that is connected already does not look at it.
        resources: What each device holds of its node, as Ray names it: ``{"GPU": 2, "CPU": 8}``. `None`: a GPU, or
            where no node has one, a CPU core.
        runtime_env: Ray's runtime environment of the actors, such as their ``working_dir``.
        start_timeout: Seconds in which actors start; devices that are in use elsewhere for that long are left out.
        grace: Seconds between asking a call to end (its timeout has passed) and ending its actor.

    Raises:
        TypeError: A value of the wrong type.
        ValueError: A value out of range.
    """

    def fleet(self) -> RayFleet:
        """What one running Director uses (`director._executors.base.Fleet`)."""
        from director._executors.ray.fleet import RayFleet

        return RayFleet(self)
