"""Every error that `director` itself raises.

What a user's function raises reaches the caller unwrapped; these say what the Director did with the job.
Each keeps its facts as attributes and in ``args`` (so it survives pickling) and writes its message in ``__str__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from director._device import Device


class DirectorError(Exception):
    """Base of every error of this package."""


class AdmissionError(DirectorError):
    """The job was not accepted; nothing of it ran."""


class QueueFull(AdmissionError):
    """As many jobs wait as `max_queue` allows.

    Args:
        limit: The bound, `Director(max_queue=...)`.
        waiting: Jobs waiting when this one was refused.
        retry_after: Seconds that the jobs waiting now need at the measured pace of the slots; `None` while nothing has
            been measured.
    """

    def __init__(self, limit: int, waiting: int, retry_after: float | None) -> None:
        super().__init__(limit, waiting, retry_after)
        self.limit = limit
        self.waiting = waiting
        self.retry_after = retry_after

    def __str__(self) -> str:
        retry = "" if self.retry_after is None else f" Retry in about {self.retry_after:.3g} s, or"
        remedy = f"{retry or ' To wait for room,'} use `await director.run(...)`."
        return f"{self.waiting} jobs wait and max_queue is {self.limit}.{remedy}"


class DirectorClosed(AdmissionError):
    """The Director does not accept jobs in its present state.

    Args:
        state: The state it was in, a `DirectorState` value such as ``"new"`` or ``"closed"``.
    """

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state

    def __str__(self) -> str:
        if self.state == "new":
            return "The Director has not been started: use `async with director:` or `await director.start()`."
        return f"The Director is {self.state} and accepts no more jobs."


class PlacementError(DirectorError):
    """The job can never run on the devices of this Director."""


class JobError(DirectorError):
    """The job was accepted and has no result."""


class JobTimeout(JobError, TimeoutError):
    """The job's deadline or timeout passed.

    Args:
        phase: ``"queued"``: it never ran; ``"running"``: it was running, and its thread may still be.
    """

    def __init__(self, phase: Literal["queued", "running"]) -> None:
        super().__init__(phase)
        self.phase = phase

    def __str__(self) -> str:
        if self.phase == "queued":
            return "The deadline passed while the job waited; it never ran."
        return "Time was up while the job ran; its slot stays taken until the call has ended."


class WorkerDied(JobError):
    """The worker that ran the job died.

    Args:
        exitcode: Exit code of the process, negative for a signal, `None` if unknown.
        device: The device it worked on.
    """

    def __init__(self, exitcode: int | None, device: Device) -> None:
        super().__init__(exitcode, device)
        self.exitcode = exitcode
        self.device = device

    def __str__(self) -> str:
        return f"The worker on {self.device.name} died (exit code {self.exitcode})."


class DeviceError(DirectorError):
    """Something is wrong with the devices."""


class NoDevices(DeviceError):
    """No device of the wanted kind is visible to this process."""


class DiscoveryError(DeviceError):
    """The devices of this machine could not be listed.

    Args:
        reason: What is wrong and what helps.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DeviceLost(DeviceError):
    """A device stopped working.

    Args:
        device: The device that was lost.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.device = device

    def __str__(self) -> str:
        return f"Device {self.device.name} ({self.device.uuid}) was lost."
