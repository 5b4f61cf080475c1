"""Events: what happened, as frozen dataclasses. `Director(hooks=[...])` takes callables that get one event each.

Hooks are called on the event loop of the Director, in order, never under a lock; one that raises is logged and changes
nothing. Without hooks no event is made. Times (`at`) are seconds of the Director's clock, `time.monotonic` unless a
test replaced it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable
    from contextvars import Context

    from director._device import Device


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened at the time `at`."""

    at: float


@dataclass(frozen=True, slots=True)
class DirectorOpened(Event):
    """The Director accepts jobs."""

    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class DirectorDrained(Event):
    """Everything accepted has ended, and nothing more is accepted."""


@dataclass(frozen=True, slots=True)
class JobEvent(Event):
    """Something happened to the job with number `job`, called `name`."""

    job: int
    name: str


@dataclass(frozen=True, slots=True)
class JobSubmitted(JobEvent):
    """The job was accepted and waits. `context`: its submitter's context variables, None if there were none."""

    priority: int
    tenant: Hashable = None
    context: Context | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class JobRejected(Event):
    """A job called `name` was not accepted; nothing of it ran."""

    name: str
    error: BaseException
    tenant: Hashable = None


@dataclass(frozen=True, slots=True)
class JobStarted(JobEvent):
    """The job runs on `slot` of `device`, `waited` seconds after its submission, one of `batch` items in its call."""

    device: Device
    slot: int
    waited: float
    batch: int = 1


@dataclass(frozen=True, slots=True)
class JobRetried(JobEvent):
    """Attempt number `attempt` on `device` ended with `error`; the job waits for another one."""

    device: Device | None
    attempt: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class JobProgressed(JobEvent):
    """The job called `director.report(progress)`."""

    progress: Any


@dataclass(frozen=True, slots=True)
class JobEnded(JobEvent):
    """The job is over for its caller after `waited` seconds of waiting and `ran` seconds of running.

    `device` is None if it never ran; `ran` is None too if its call still runs, or the event loop has not handled its
    end.
    """

    device: Device | None
    waited: float
    ran: float | None


@dataclass(frozen=True, slots=True)
class JobSucceeded(JobEnded):
    """The job has its result."""


@dataclass(frozen=True, slots=True)
class JobFailed(JobEnded):
    """The job ended with `error`."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class JobCancelled(JobEnded):
    """The job was cancelled."""


@dataclass(frozen=True, slots=True)
class WorkerHired(Event):
    """A worker began a shift on `slot` of `device`."""

    device: Device
    slot: int


@dataclass(frozen=True, slots=True)
class WorkerReaped(Event):
    """The worker's thread has left the slot, and its permit was released."""

    device: Device
    slot: int


@dataclass(frozen=True, slots=True)
class DeviceJoined(Event):
    """The device has joined an open Director and gets work."""

    device: Device


@dataclass(frozen=True, slots=True)
class DeviceQuarantined(Event):
    """The device gets no more work, for this `reason`."""

    device: Device
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceRestored(Event):
    """The device gets work again."""

    device: Device


@dataclass(frozen=True, slots=True)
class ModelEvent(Event):
    """Something happened to the replica of `model` on `device`."""

    model: str
    device: Device


@dataclass(frozen=True, slots=True)
class ModelLoaded(ModelEvent):
    """The replica is resident after `seconds` of loading and warming up."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ModelFailed(ModelEvent):
    """Loading or warming up raised `error`; the next job that needs the model loads it again."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class ModelEvicted(ModelEvent):
    """The replica, for which `bytes` are reserved, is about to be unloaded: `wanted`, a model or a call, needs room."""

    bytes: int
    wanted: str


@dataclass(frozen=True, slots=True)
class MemoryVeto(ModelEvent):
    """The replica, which needs `bytes`, is not loaded: only `free` bytes are, for others use the device."""

    bytes: int
    free: int


@dataclass(frozen=True, slots=True)
class ModelUnloaded(ModelEvent):
    """The replica was released, or sleeps in host memory."""


class Hook(Protocol):
    """What `Director(hooks=...)` takes: a callable of one event that returns at once and doesn't block."""

    def __call__(self, event: Event, /) -> None:
        """Handle `event`."""
