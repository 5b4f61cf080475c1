"""What is known of a model, and its replicas. Guarded by `scheduler`'s lock."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from director._jobs.model import Model
    from director._scheduler.slots import DeviceSlots


class ReservationState(Enum):
    """What the ledger says of a replica: what the scheduler has decided. `Residency` has what runners have reported.

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


_ABSENT, _RESIDENT, _ASLEEP = ReservationState.ABSENT, ReservationState.RESIDENT, ReservationState.ASLEEP
_UNLOADING = ReservationState.UNLOADING
_LEARN = 0.3  # weight of a new measurement


class Waiting(Protocol):
    """Jobs that wait for a model: a lane."""

    @property
    def allowed(self) -> frozenset[int] | None:
        """Numbers of the slots that may run them; `None` for all."""

    @property
    def waiting(self) -> int:
        """How many there are."""

    @property
    def memory(self) -> int:
        """Bytes that a call of theirs takes."""

    @property
    def highest(self) -> int:
        """The highest priority of them."""


class Replica:
    """A model on one device, or on one slot where slots don't share."""

    __slots__ = (
        "foreign",
        "free",
        "in_host",
        "is_alone",
        "is_requested",
        "known",
        "measured",
        "numbers",
        "peak",
        "place",
        "size",
        "state",
        "used_at",
        "wanted_by",
        "worth",
    )

    def __init__(self, known: KnownModel, place: DeviceSlots, numbers: frozenset[int], size: int) -> None:
        self.known = known
        self.place = place
        self.numbers = numbers
        self.state = _ABSENT
        self.size = size
        self.measured: int | None = None  # what its load was measured to take
        self.peak: int | None = None  # the most that it has had during that, with what the warm-up has freed again
        self.foreign = 0  # bytes that others had of the device when its load has begun
        self.free: int | None = None  # bytes that were free then, if that was sampled since the last change
        self.is_alone = True  # nothing else was loaded or unloaded on the device since its load has begun
        self.worth = 0.0  # of eviction: the smallest goes first
        self.used_at = 0.0
        self.is_requested = False  # it is unloaded because the user has said so
        self.in_host = False  # it has memory of the host: SLEEPING, ASLEEP, or LOADING or UNLOADING from there
        self.wanted_by = ""  # what its memory is needed for, while it leaves: a model, or a call

    @property
    def taken(self) -> int:
        """Bytes that come back when it is unloaded: those that it took, not those that it declares."""
        return self.size if self.measured is None else min(self.size, self.measured)

    @property
    def has_left(self) -> bool:
        """Whether it has nothing of its device any more: it is in host memory alone."""
        return self.state is _ASLEEP or (self.in_host and self.state is _UNLOADING)

    def move(self, state: ReservationState) -> None:
        """Change the state.

        Raises:
            RuntimeError: It is no legal move, by a bug of this package.
        """
        if state not in RESERVATION_MOVES[self.state]:
            raise RuntimeError(f"{self!r} can't become {state.value}")
        self.state = state
        self.in_host = self.in_host and state not in (_ABSENT, _RESIDENT)
        self.known.recount()

    def __repr__(self) -> str:
        return f"<Replica of {self.known.model.name!r} on {self.place.device.label}: {self.state.value}>"


class KnownModel:
    """A model whose memory is accounted for, and what was learned of it."""

    __slots__ = (
        "_asleep",
        "_by_number",
        "call_seconds",
        "calls",
        "footprints",
        "is_apart",
        "lanes",
        "load_seconds",
        "loads",
        "model",
        "replicas",
        "serving",
        "wake_seconds",
        "wakes",
    )

    def __init__(self, model: Model[Any], is_apart: bool) -> None:
        self.model = model
        self.is_apart = is_apart
        self.footprints = Footprints(model.memory)
        self.replicas: list[Replica] = []
        self._by_number: dict[int, Replica] = {}  # by the slots that use them
        self._asleep: dict[int, Replica] = {}  # in host memory, the same
        self.lanes: list[Waiting] = []  # of its jobs; those that are empty are dropped now and then
        self.serving: frozenset[int] = frozenset()  # slots with a RESIDENT replica
        self.loads = self.wakes = self.calls = 0
        self.load_seconds = self.wake_seconds = self.call_seconds = 0.0

    def on(self, number: int) -> Replica | None:
        """The replica that a slot uses; `None` if it has none on its device, not even one that is loading."""
        return self._by_number.get(number)

    def asleep_on(self, number: int) -> Replica | None:
        """The replica that a slot would wake."""
        return self._asleep.get(number)

    @property
    def return_seconds(self) -> float:
        """What it takes to have a replica again after it has left."""
        return self.wake_seconds if self.wakes else self.load_seconds

    def add(self, replica: Replica) -> None:
        """There is a new replica."""
        self.replicas.append(replica)
        self._by_number |= dict.fromkeys(replica.numbers, replica)

    def recount(self) -> None:
        """Find the slots that serve it by the states of the replicas."""
        self.replicas = [replica for replica in self.replicas if replica.state is not _ABSENT]
        by_state: tuple[dict[int, Replica], dict[int, Replica]] = {}, {}
        for replica in self.replicas:
            by_state[replica.state is _ASLEEP].update(dict.fromkeys(replica.numbers, replica))
        self._by_number, self._asleep = by_state
        serving = (replica.numbers for replica in self.replicas if replica.state is _RESIDENT)
        self.serving = frozenset().union(*serving)

    def add_lane(self, lane: Waiting) -> None:
        """There is a new lane for its jobs."""
        self.lanes = [*(other for other in self.lanes if other.waiting), lane]

    def note_load(self, seconds: float) -> None:
        """A load has taken `seconds`."""
        self.loads += 1
        self.load_seconds += (seconds - self.load_seconds) * max(_LEARN, 1 / self.loads)

    def note_wake(self, seconds: float) -> None:
        """A wake has taken `seconds`."""
        self.wakes += 1
        self.wake_seconds += (seconds - self.wake_seconds) * max(_LEARN, 1 / self.wakes)

    def note_call(self, seconds: float) -> None:
        """A call has taken `seconds`, without a load."""
        self.calls += 1
        self.call_seconds += (seconds - self.call_seconds) * max(_LEARN / 3, 1 / self.calls)


class Charge:
    """What a call has been charged with, until its slot asks for more work.

    Args:
        memory: Bytes of the call itself.
        replica: The one that the call uses; `None` without a model.
        before: Seconds that the slot had spent in calls and, of these, in loads.
    """

    __slots__ = ("before", "memory", "replica")

    def __init__(self, memory: int, replica: Replica | None, before: tuple[float, float]) -> None:
        self.memory = memory
        self.replica = replica
        self.before = before


class Footprints:
    """What one model takes of devices, as it declares and as its loads were measured.

    Kept by the names of devices, for equal GPUs take equally much. More than was declared is believed at once; less is
    not, for the next input may need it.

    Args:
        declared: Bytes of a replica as its `Model` says; `None` if it says nothing.
    """

    __slots__ = ("_tried", "declared", "resident")

    def __init__(self, declared: int | None) -> None:
        self.declared = declared
        self.resident: dict[str, int] = {}  # by the name of the device: what the last load took that was measured
        self._tried: set[str] = set()  # names of devices on which nothing could measure a load

    def measured(self, name: str) -> int | None:
        """What a replica was measured to take on devices of this name."""
        return self.resident.get(name)

    def size(self, name: str) -> int:
        """Bytes that a load is charged with there; 0 if nothing is known."""
        known = self.resident.get(name)
        if known is None and self.declared is None:
            known = max(self.resident.values(), default=0)  # another GPU is the better guess than nothing
        return max(self.declared or 0, known or 0)

    def is_unknown(self, name: str) -> bool:
        """Whether the next load there goes alone, for what it takes is to be found out."""
        return self.declared is None and name not in self.resident and name not in self._tried

    def learn(self, name: str, resident: int) -> None:
        """A load has taken so many bytes."""
        self.resident[name] = resident

    def give_up(self, name: str) -> None:
        """Nothing on such devices can measure a load."""
        self._tried.add(name)
