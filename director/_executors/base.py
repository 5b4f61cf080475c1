"""The door for ways to run a call. The worker is the same for all: it runs on the slot's thread and asks its runner."""

from __future__ import annotations

from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from director._untrusted.objects import attribute_of, is_a
from director.errors import DeviceLost, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._devices.discovery import DeviceSpec
    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import JobRunner, SlotInfo
    from director._jobs.model import Model
    from director._jobs.runner import Runner, RunnerEvents


class LoadFailed(Exception):
    """A replica could not be made; carries the loader's own error to the worker, never further."""

    def __init__(self, model: Model[Any], error: BaseException) -> None:
        super().__init__(model, error)
        self.model = model
        self.error = error


class NeverStarted(DeviceLost):
    """Nothing of a call ran: it may go elsewhere, whatever its `retries`. Carried to the worker, never further.

    Raised by `JobRunner.run` and `run_batch` when the thread, process or actor that would make the call can't be
    started, or was lost before the call had begun. The slot then rests for a while.
    """


class NotSent(Exception):
    """A batch could not be sent, or not be read there; its function was not called. For the worker alone.

    Raised by `JobRunner.run_batch` for more than one job: what is wrong may be the argument of one of them.
    """


def is_loss(error: BaseException, device: Device) -> bool:
    """Whether a call has lost its worker, or `device` itself.

    A function may raise such an error of another Director, which it uses: that is an error like any other.
    """
    return is_a(error, (WorkerDied, DeviceLost)) and attribute_of(error, "device") is device


def refuse_coroutine(value: Any, job: ScheduledJob[Any]) -> None:
    """Raise `TypeError` if the function of `job` has returned a coroutine."""
    if type(value) is CoroutineType:
        value.close()
        raise TypeError(f"{job.name} is a coroutine function: await it yourself, or give the Director a blocking one")


@runtime_checkable
class Executor(Protocol):
    """Says how calls are made: ``Director(executor=...)`` takes one. See docs/how-to/executors.md."""

    def runner(self, slot: SlotInfo, events: RunnerEvents) -> Runner | JobRunner:
        """A runner for `slot`; called on the event loop, before the slot's first job, each time a Director starts.

        Args:
            slot: Whose calls it will make.
            events: Takes what runners tell, on any thread; one object for one running Director.

        Returns:
            A `Runner`. (The executors of this package return a `JobRunner`, to which the runtime gives jobs.)
        """


class Fleet(Executor, Protocol):
    """An executor of one running Director, that brings devices of its own."""

    def gather(self, spec: DeviceSpec) -> tuple[Device, ...]:
        """The devices that there are; called once, before there are runners. Blocks, off the loop.

        Args:
            spec: The Director's ``devices=``.

        Raises:
            NoDevices: There are none.
            DiscoveryError: They can't be listed.
        """

    def watch(self, joined: Callable[[Device], None], left: Callable[[Device, str], None]) -> None:
        """Begin to tell of devices that come and go.

        Args:
            joined: Takes a device that has come; on any thread.
            left: Takes the device, and the reason; on any thread.
        """

    def disband(self) -> None:
        """Let go of the devices: the Director has closed. Blocks, off the loop; doesn't raise."""


@runtime_checkable
class FleetExecutor(Protocol):
    """What a user gives a Director that is to have the devices of a fleet."""

    def fleet(self) -> Fleet:
        """A fleet for one start of a Director."""
