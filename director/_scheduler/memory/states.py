"""The states of the memory that is reserved for a replica: a model on one device, or on a slot where slots don't share.

`Residency` has what runners have reported; this is what the scheduler has decided.
"""

from __future__ import annotations

from enum import Enum


class ReservationState(Enum):
    """What the ledger says of a replica.

    | from | to | by |
    |---|---|---|
    | `ABSENT` | `LOADING` | a slot takes a job that needs it; its memory is reserved from here on |
    | `ABSENT` | `RESIDENT` | a runner has loaded it by itself, in a process that it had to replace |
    | `LOADING` | `RESIDENT` | the loader has returned |
    | `LOADING` | `ABSENT` | the loader, or `wake`, has raised; or the loader was never called |
    | `LOADING` | `ASLEEP` | `wake` was never called |
    | `RESIDENT` | `DRAINING` | another model needs its memory, or `Director.unload`: no slot takes a job for it |
    | `RESIDENT`, `DRAINING` | `LOADING` | its process has ended before a call, which loads it again |
    | `DRAINING` | `RESIDENT` | the jobs that needed the memory have left the queue |
    | `DRAINING` | `UNLOADING` | no call uses it, and a slot's thread unloads it |
    | `DRAINING` | `SLEEPING` | the same, but it moves it to host memory, where its bytes are reserved too |
    | `SLEEPING` | `ASLEEP` | `sleep` has returned: it has nothing of the device any more |
    | `ASLEEP` | `LOADING` | a slot takes a job that needs it; its memory of the device is reserved from here on |
    | `ASLEEP` | `UNLOADING` | `Director.unload` was called, and a slot's thread unloads it |
    | all but `LOADING` | `ABSENT` | it was unloaded, or its process has ended |
    """

    ABSENT = "absent"
    LOADING = "loading"
    RESIDENT = "resident"
    DRAINING = "draining"
    UNLOADING = "unloading"
    SLEEPING = "sleeping"
    ASLEEP = "asleep"


RESERVATION_MOVES: dict[ReservationState, frozenset[ReservationState]] = {
    ReservationState.ABSENT: frozenset({ReservationState.LOADING, ReservationState.RESIDENT}),
    ReservationState.LOADING: frozenset({ReservationState.RESIDENT, ReservationState.ABSENT, ReservationState.ASLEEP}),
    ReservationState.RESIDENT: frozenset(
        {ReservationState.DRAINING, ReservationState.LOADING, ReservationState.ABSENT}
    ),
    ReservationState.DRAINING: frozenset(
        {
            ReservationState.RESIDENT,
            ReservationState.UNLOADING,
            ReservationState.SLEEPING,
            ReservationState.LOADING,
            ReservationState.ABSENT,
        }
    ),
    ReservationState.UNLOADING: frozenset({ReservationState.ABSENT}),
    ReservationState.SLEEPING: frozenset({ReservationState.ASLEEP, ReservationState.ABSENT}),
    ReservationState.ASLEEP: frozenset({ReservationState.LOADING, ReservationState.UNLOADING, ReservationState.ABSENT}),
}
