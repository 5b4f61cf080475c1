"""What makes the calls of one slot, as the runtime sees it: it gets the jobs, so that no object is made for a call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director._device import Device
    from director._devices.device_errors import Fault
    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model

    class PrefetchSource(Protocol):
        """Jobs to prefetch for one slot, in the order in which it will get them."""

        @property
        def is_short(self) -> bool:
            """Whether there is none; read without a lock, so it may be outdated."""

        def take(self) -> ScheduledJob[Any] | None:
            """One more, if there are enough."""

        def return_prefetched(self, jobs: Iterable[ScheduledJob[Any]]) -> None:
            """Put jobs that have not begun back into the queue."""


class SlotInfo:
    """A slot, as executors know it.

    Args:
        number: Number of the slot within its Director.
        device: The device of its calls.
        position: Of the device among those of the Director: slots with the same one share the device.
        slots: How many slots the device has.
    """

    __slots__ = ("device", "number", "position", "slots")

    def __init__(self, number: int, device: Device, position: int = 0, slots: int = 1) -> None:
        self.number: int = number
        self.device: Device = device
        self.position: int = position
        self.slots: int = slots

    def __repr__(self) -> str:
        return f"<Slot {self.number} of {self.device.label}>"


class JobRunner(ABC):
    """Makes the calls of one slot's jobs, on the slot's thread or driven by it."""

    @abstractmethod
    def run(self, job: ScheduledJob[Any]) -> Any:
        """Make the call of `job` and return what it returns. May set `finished_at` of the job.

        Raises:
            LoadFailed: Its model could not be loaded.
            NeverStarted: Nothing of it ran.
            BaseException: What the call raised.
        """

    @abstractmethod
    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """Make one call for several jobs of one function, with the list of their items, and return what it returns.

        Raises:
            LoadFailed: Their model could not be loaded.
            NeverStarted: Nothing of it ran.
            BaseException: What the call raised.
        """

    @abstractmethod
    def prepare(self, jobs: list[ScheduledJob[Any]]) -> None:
        """Load the model of a call, if it is not loaded, so that `run` or `run_batch` begins with the function.

        Called before the call of a job that has a model or a time limit. `abandon` does not end it.

        Raises:
            LoadFailed: It could not be loaded.
            NeverStarted: Nothing of it was done.
            BaseException: What prevented it.
        """

    @abstractmethod
    def recover(self, error: BaseException, fault: Fault) -> bool:
        """Recover from a fault of the last call: free memory, replace a process.

        Returns:
            False if this process can't use the device any more.
        """

    def replica(self, model: Model[Any]) -> Any:
        """In a call, on the slot's thread: the replica of its model.

        Raises:
            RuntimeError: The runner has none on this thread.
        """
        raise RuntimeError(f"the replica of {model.name} is not on this thread: the executor makes its calls elsewhere")

    @abstractmethod
    def close(self) -> None:
        """Release all resources; no job comes after."""

    can_unload = False
    """Whether it can unload one model; else what it has loaded stays until it is closed."""

    def unload(self, model: Model[Any]) -> None:
        """On the slot's thread: unload a model that no call uses, and report it."""
        raise NotImplementedError(f"{type(self).__name__} unloads nothing before it is closed")

    can_sleep = False
    """Whether it can move one model to host memory, and back when it is next needed."""

    def sleep(self, model: Model[Any]) -> tuple[bool, int | None]:
        """On the slot's thread: put a model to sleep that no call uses.

        Returns:
            Whether it sleeps, else it was unloaded; and the bytes of the device that are back, if that was measured.
        """
        raise NotImplementedError(f"{type(self).__name__} puts nothing to sleep")

    def free_caches(self) -> None:  # noqa: B027 - what makes its calls elsewhere may have none
        """On the slot's thread, between calls: give memory back to the device that frameworks keep for later calls."""

    def set_prefetch(self, source: PrefetchSource) -> None:  # noqa: B027 - threads don't prefetch
        """Where to get jobs to prefetch; called on the event loop, before the first job."""

    def recall_prefetched(self) -> None:  # noqa: B027 - the same
        """From any thread: give back prefetched jobs that have not begun."""

    # These two are called on the event loop, at any time:

    @abstractmethod
    def abandon(self, job: ScheduledJob[Any]) -> None:
        """The running `job` was cancelled or is out of time, or the Director closes: ask the call to end."""

    @abstractmethod
    def abort(self) -> bool:
        """The Director closes: end the call that runs; False if that can't be done."""
