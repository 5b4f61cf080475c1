"""Every error that `director` itself raises.

Exceptions of a user's function reach the caller unwrapped; the errors here say what the Director did with the job.
Each keeps its facts as attributes and in ``args`` (so that it can be pickled) and makes its message in ``__str__``.
"""

from __future__ import annotations

from contextlib import suppress
from signal import Signals
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Hashable

    from director._device import Device


_HINTS = {
    "SIGKILL": ", as the system does when memory runs out",
    "SIGSEGV": ", a fault in native code",
    "SIGABRT": ", as native code does that gives up",
    "SIGBUS": ", a fault in native code or a full disk",
}


class DirectorError(Exception):
    """Base of every error of this package."""


class AdmissionError(DirectorError):
    """The job was not accepted, or the Director closed while it waited; nothing of it ran."""


class QueueFull(AdmissionError):
    """As many jobs wait as `max_queue` allows, or as many of one tenant as `max_queue_per_tenant` allows.

    Args:
        limit: The bound that was reached.
        waiting: Jobs waiting when this one was refused; only those of the tenant if `tenant` is given.
        retry_after: Seconds that the jobs waiting now need at the measured pace of the slots; `None` while nothing has
            been measured.
        tenant: The tenant whose bound it is; `None` for the bound of the whole queue.
    """

    def __init__(self, limit: int, waiting: int, retry_after: float | None, tenant: Hashable = None) -> None:
        super().__init__(limit, waiting, retry_after, tenant)
        self.limit = limit
        self.waiting = waiting
        self.retry_after = retry_after
        self.tenant = tenant

    def __str__(self) -> str:
        bound = f"max_queue is {self.limit}"
        if self.tenant is not None:
            bound = f"max_queue_per_tenant is {self.limit} for {self.tenant!r}"
        retry = "To" if self.retry_after is None else f"Retry in about {self.retry_after:.3g} s. To"
        return f"{self.waiting} jobs wait and {bound}. {retry} wait for room, pass when_full='wait'."


class DeadlineUnreachable(AdmissionError):
    """The job was refused because it would miss its deadline; only with ``Director(admission="predict")``.

    Args:
        deadline: The deadline in seconds from the submission.
        predicted: Seconds until it would have finished, by the jobs ahead of it and the measured pace of the slots.
    """

    def __init__(self, deadline: float, predicted: float) -> None:
        super().__init__(deadline, predicted)
        self.deadline = deadline
        self.predicted = predicted

    @property
    def retry_after(self) -> float:
        """Seconds after which the jobs that are now ahead will have left enough room."""
        return self.predicted - self.deadline

    def __str__(self) -> str:
        return (
            f"The job would finish in about {self.predicted:.3g} s and its deadline is {self.deadline:.3g} s. "
            f"Retry in about {self.retry_after:.3g} s, or give it more time."
        )


class DirectorClosed(AdmissionError):
    """The Director does not accept jobs in its present state, or it closed while the job waited.

    Args:
        state: The state it was in, a `DirectorState` value such as ``"new"`` or ``"closed"``.
    """

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state

    def __str__(self) -> str:
        if self.state == "new":
            return (
                "The Director has not been started: use `async with director:` or `await director.start()`; in a web "
                "application its lifespan, such as FastAPI(lifespan=director.fastapi.lifespan(director))."
            )
        if self.state == "closed":
            return "The Director is closed; nothing of the job ran."
        return f"The Director is {self.state} and accepts no more jobs."


class PlacementError(DirectorError):
    """The job can never run on the devices of this Director."""


class JobError(DirectorError):
    """The job was accepted and has no result."""

    _kinds: tuple[str, ...] = ()  # names of the classes of an exception that could not be sent, which this stands for


class JobTimeout(JobError, TimeoutError):
    """A time limit of the job passed.

    Args:
        phase: ``"queued"``: it never ran; ``"running"``: it was running, and its thread may still be.
        option: The option that set the limit; `None` if it was no option of the job.
        seconds: The value of that option.
    """

    def __init__(
        self,
        phase: Literal["queued", "running"],
        option: Literal["deadline", "start_within", "timeout"] | None = None,
        seconds: float | None = None,
    ) -> None:
        super().__init__(phase)  # of three arguments an `OSError` would make an error number, a text and a file's name
        if option is not None:
            self.args: tuple[Any, ...] = (phase, option, seconds)
        self.phase = phase
        self.option = option
        self.seconds = seconds

    def __str__(self) -> str:
        if self.phase == "running":
            return "Time was up while the job ran; its slot stays taken until the call has ended."
        if self.option == "start_within" and self.seconds is not None:
            return (
                f"The job did not begin in time (start_within={self.seconds:g}); it never ran. Try again later, or let "
                "it wait for longer."
            )
        return "The deadline passed while the job waited; it never ran."


class BatchMismatch(JobError, ValueError):
    """A function of batches did not return one result for each item; the whole batch fails.

    Args:
        name: The function's.
        size: Items in the batch.
        returned: What it returned: ``"3 results"``, or a description of another value.
    """

    def __init__(self, name: str, size: int, returned: str) -> None:
        super().__init__(name, size, returned)
        self.name = name
        self.size = size
        self.returned = returned

    def __str__(self) -> str:
        return (
            f"{self.name} got a batch of {self.size} items and returned {self.returned}: it has to return a list "
            "of the same length, with an Exception in the place of an item that failed."
        )


class SlowReader(JobError):
    """A stream was cut because its reader was so slow that the device had to wait, or never took the first value.

    Args:
        seconds: How long the reader took no value.
        buffer: How many values waited.
    """

    def __init__(self, seconds: float, buffer: int) -> None:
        super().__init__(seconds, buffer)
        self.seconds = seconds
        self.buffer = buffer

    def __str__(self) -> str:
        values = "1 value" if self.buffer == 1 else f"{self.buffer} values"
        return (
            f"The reader took nothing for {self.seconds:g} s while {values} waited, so the stream was cut to free its "
            "slot. Read sooner, or give a larger `buffer` or `slow_reader_timeout`; with on_slow_reader='wait' the "
            "limit holds for the first value, and while the Director drains."
        )


class WorkerDied(JobError):
    """The worker process or actor that ran the job died.

    Args:
        exitcode: Exit code of the process, negative for a signal, `None` if unknown.
        device: The device it worked on.
    """

    def __init__(self, exitcode: int | None, device: Device) -> None:
        super().__init__(exitcode, device)
        self.exitcode = exitcode
        self.device = device
        # Identifies the worker, because several errors may report the same one.
        self._life = object()

    _server: str | None = None
    """The name of the server process that was lost, if that is what has happened."""

    def __str__(self) -> str:
        if self._server is not None:
            return f"The server process {self._server!r} was lost before the job had ended."
        if self.exitcode is None and self.device.node is not None:
            return f"The actor on {self.device.label}, or its node, was lost in the midst of a job."
        return f"The worker process on {self.device.label} {_end_of_process(self.exitcode)}"


class JobAborted(JobError):
    """The Director closed while the job ran; what became of the call is not known.

    Args:
        grace: Seconds for which the close has waited for the call, which had not ended then; `None`: the call has
            ended without a result, because `director.check_cancelled` told it to.
    """

    def __init__(self, grace: float | None = None) -> None:
        super().__init__(grace)
        self.grace = grace

    def __str__(self) -> str:
        if self.grace is None:
            return "The Director closed while the job ran, and the call ended early, as it was asked to."
        return (
            f"The Director closed while the job ran, and the call had not ended {self.grace:g} s later. "
            "Whether it still runs, and what it has done, is not known."
        )


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
        reason: What is wrong and what helps, if that is known.
    """

    def __init__(self, device: Device, reason: str | None = None) -> None:
        super().__init__(device, reason)
        self.device = device
        self.reason = reason

    def __str__(self) -> str:
        lost = f"Device {self.device.name} ({self.device.uuid}) was lost"
        return f"{lost}." if self.reason is None else f"{lost}: {self.reason}"


def _end_of_process(code: int | None) -> str:
    if code is None:
        return "does not end, not even when it is killed: it waits for a driver."
    if code >= 0:
        return f"ended with exit code {code} in the midst of a job."
    name = f"signal {-code}"
    with suppress(ValueError):
        name = Signals(-code).name
    hint = _HINTS.get(name, "")
    return f"was ended by {name}{hint} (exit code {code})."
