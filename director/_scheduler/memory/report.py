"""What a ledger says at one time, as frozen snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from director._scheduler.memory.limits import headroom
from director._scheduler.memory.replica import ReservationState

if TYPE_CHECKING:
    from director._scheduler.memory.ledger import DeviceMemory


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """A replica that memory is reserved for.

    Args:
        model: The model's name.
        state: ``"loading"``, ``"resident"``, ``"draining"``, ``"unloading"``, ``"sleeping"`` or ``"asleep"``.
        bytes: What is reserved for it: of the host's memory, if it is asleep.
        declared: What its `Model` says; `None` if it says nothing.
        measured: What it was measured to take; `None` if it was not.
        peak: The most that it had at a time while it was loaded and warmed up; `None` where no framework tells.
        pinned: It is never unloaded for others.
        load_seconds: Of its loads, on average; 0 while there was none.
        used_at: When a call has used it last, in seconds of the Director's clock.
    """

    model: str
    state: str
    bytes: int
    declared: int | None
    measured: int | None
    peak: int | None
    pinned: bool
    load_seconds: float
    used_at: float


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """The memory of one device, in bytes.

    Args:
        budget: What replicas and calls may take together; `None` if nothing bounds them.
        headroom: What is left to contexts and libraries, beside the budget.
        reserved: What is taken of the budget: the sum of what `by_kind` tells apart.
        replicas: Of replicas that are resident, are about to leave, or were unloaded and their memory is not back yet.
        loading: Of loads that have begun.
        calls: Of calls that run, by the job option `memory`.
        leaked: What did not come back when a model was unloaded.
        foreign: What others use.
        context: What processes take beside their models: the context of CUDA, and libraries.
        models: The replicas.
        asleep: What replicas that have left it take of the host's memory; not a part of `reserved`.
    """

    budget: int | None = None
    headroom: int = 0
    reserved: int = 0
    replicas: int = 0
    loading: int = 0
    calls: int = 0
    leaked: int = 0
    foreign: int = 0
    context: int = 0
    models: tuple[ReplicaStats, ...] = ()
    asleep: int = 0

    @property
    def free(self) -> int | None:
        """What is left of the budget; `None` if nothing bounds it."""
        return None if self.budget is None else max(0, self.budget - self.reserved)

    @property
    def by_kind(self) -> dict[str, int]:
        """What is taken of the budget, by what takes it."""
        return {
            "replicas": self.replicas,
            "loading": self.loading,
            "calls": self.calls,
            "context": self.context,
            "leaked": self.leaked,
            "foreign": self.foreign,
        }


NO_MEMORY = MemoryStats()


def report(here: DeviceMemory) -> MemoryStats:
    """What a ledger says; under the scheduler's lock."""
    loading = here.bytes_in(ReservationState.LOADING)
    models = tuple(
        ReplicaStats(
            replica.known.model.name,
            replica.state.value,
            replica.size,
            replica.known.model.memory,
            replica.known.footprints.measured(here.place.device.name),
            replica.peak,
            replica.known.model.pin,
            replica.known.load_seconds,
            replica.used_at,
        )
        for replica in here.replicas
    )
    return MemoryStats(
        here.budget,
        headroom(here.place.device) if here.is_default else 0,
        here.reserved + here.foreign,
        here.held - loading + sum(each.missing for each in here.returning),
        loading,
        here.calls,
        sum(here.leaked.values()),
        here.foreign,
        sum(here.contexts.values()),
        models,
        sum(replica.size for replica in here.replicas if replica.in_host),
    )
