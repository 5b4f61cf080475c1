"""The protocols of executors. The worker is the same for all: it runs on the slot's thread and calls its runner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from director._jobs.runner import RunnerEvents
from director._untrusted.objects import attribute_of, full_name, is_a
from director.errors import DeviceLost, JobError, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._devices.discovery import DeviceSpec
    from director._devices.footprints import LoadSize
    from director._jobs.job_runner import JobRunner, SlotInfo
    from director._jobs.model import Model
    from director._jobs.runner import Runner


class LoadFailed(Exception):
    """A replica could not be loaded; carries the loader's exception to the worker, never further."""

    def __init__(self, model: Model[Any], error: BaseException) -> None:
        super().__init__(model, error)
        self.model = model
        self.error = error


class NeverStarted(DeviceLost):
    """A call has not begun: another slot may make it, whatever its `retries`. For the worker, never raised further.

    Raised by `JobRunner.run` and `run_batch` when the thread, process or actor that would make the call can't be
    started, or was lost before the call had begun. The slot then backs off.
    """


class NotSent(Exception):
    """A batch could not be sent, or not be unpickled there; its function was not called. For the worker only.

    Raised by `JobRunner.run_batch` for more than one job: the argument of one of them may be the cause.
    """


def is_loss(error: BaseException, device: Device) -> bool:
    """Whether a call has lost its worker, or `device` itself.

    The function may use another Director and raise such an error of that one: an error like any other.
    """
    return is_a(error, (WorkerDied, DeviceLost)) and attribute_of(error, "device") is device


def stands_for(error: BaseException, kinds: tuple[type, ...]) -> bool:
    """Whether an exception is in the place of one of `kinds` that could not be sent.

    By the names of its classes, which are those of the process where it was raised.
    """
    names = error._kinds if is_a(error, JobError) else ()
    return bool(names) and any(full_name(kind) in names for kind in kinds)


class MemoryEvents(RunnerEvents, Protocol):
    """What runners of this package report besides, of the memory of devices; on any thread."""

    def is_accounted(self, model: Model[Any]) -> bool:
        """Whether the memory of a model is accounted for; else nothing is to be measured."""

    def process_ended(self, slot: SlotInfo) -> None:
        """The process of a slot is gone, with all that it had of the device."""

    def kept(self, model: Model[Any], slot: SlotInfo, allocated: int, replica: Callable[[], Any]) -> None:
        """The unload of which `unloaded` is called next has left so many bytes allocated in this process.

        `replica` returns the replica, as long as something refers to it.
        """

    def missing(self, model: Model[Any], slot: SlotInfo, freed: int | None) -> int:
        """Bytes that an unload, of which `unloaded` is called next, has not given back; 0 if enough are back."""

    def measured(self, model: Model[Any], slot: SlotInfo, taken: LoadSize | None) -> None:
        """The load of which `loaded` is called next has taken so much; `None`: nothing here can tell."""


@runtime_checkable
class Executor(Protocol):
    """Says how calls are made: ``Director(executor=...)`` takes one. See docs/how-to/executors.md."""

    def runner(self, slot: SlotInfo, events: RunnerEvents) -> Runner | JobRunner:
        """A runner for `slot`; called on the event loop, before the slot's first job, each time a Director starts.

        Args:
            slot: The slot whose calls it makes.
            events: Takes the reports of runners, on any thread; one object for each open Director.

        Returns:
            A `Runner`. (The executors of this package return a `JobRunner`, to which the runtime gives jobs.)
        """


class Fleet(Executor, Protocol):
    """An executor of one open Director, with devices of its own."""

    def gather(self, spec: DeviceSpec) -> tuple[Device, ...]:
        """The devices; called once, before there are runners. Blocks, not on the event loop.

        Raises:
            NoDevices: There are none.
            DiscoveryError: They can't be listed.
        """

    def watch(self, joined: Callable[[Device], None], left: Callable[[Device, str], None]) -> None:
        """Begin to report devices that join and leave.

        Args:
            joined: Called with the device; on any thread.
            left: Called with the device and the reason; on any thread.
        """

    def disband(self) -> None:
        """Release the devices: the Director has closed. Blocks, not on the event loop; doesn't raise."""


@runtime_checkable
class FleetExecutor(Protocol):
    """What a user passes to a Director that gets the devices of a fleet."""

    def fleet(self) -> Fleet:
        """A fleet for one start of a Director."""
