"""Makes the calls of a slot in another process, a child or an actor, and tells the functions about their job there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pickle import PicklingError, loads
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from director._executors.cuda_thread import CudaThread
from director._executors.remote.replicas import WorkerReplicas
from director._ipc.protocol import UNNUMBERED, Facts, Notice
from director._jobs.current import NO_REPLICA
from director._jobs.state import JobState

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._devices.footprints import LoadSize
    from director._executors.remote.replicas import ModelSpec

_ELSEWHERE = "belongs to the event loop of its Director, which is in another process"
_STATES = {Notice.NONE: JobState.RUNNING, Notice.CANCELLED: JobState.CANCELLED, Notice.TIME_IS_UP: JobState.FAILED}


class Notices(Protocol):
    """The notices of the parent."""

    def look(self, number: int) -> int:
        """The `Notice` for the call with this number."""


class CallInfo(NamedTuple):
    """What is known of the call that runs.

    Args:
        number: Its number.
        model: The number of its model.
        name: The job's name.
        facts: Its other facts.
        tenant: As `packed_tenant` returns it; empty for none.
    """

    number: int
    model: int
    name: str
    facts: Facts
    tenant: bytes


class WorkerJob:
    """What `director.current_job()` returns: the facts of a job whose result and callbacks are in another process.

    Args:
        notices: Has the parent's notices.
        device: The device.
        call: The call.
    """

    def __init__(self, notices: Notices, device: Device, call: CallInfo) -> None:
        self._notices = notices
        self._number = call.number
        self.device = device
        self.name = call.name
        self.id, self.priority, self.attempts, self.waited = call.facts
        self.ran: float | None = None
        self.progress: Any = None
        self._tenant = call.tenant

    @cached_property
    def tenant(self) -> Any:
        """The option `tenant`.

        Raises:
            BaseException: It can't be pickled, or be unpickled here.
        """
        if not self._tenant:
            return None
        tenant, *reason = loads(self._tenant)  # noqa: S301 - from our parent
        if reason:
            raise PicklingError(reason[0])
        return tenant

    @property
    def state(self) -> JobState:
        """RUNNING until the parent has posted a notice."""
        return _STATES[Notice(self._notices.look(self._number))]

    def done(self) -> bool:
        """Whether it has ended for its caller."""
        return self.state is not JobState.RUNNING

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.state is JobState.CANCELLED

    def cancel(self, _msg: Any = None) -> NoReturn:
        """It belongs to the event loop of the Director."""
        raise RuntimeError(f"Job.cancel() {_ELSEWHERE}")

    def add_done_callback(self, _callback: Any, **_context: Any) -> NoReturn:
        """It belongs to the event loop of the Director."""
        raise RuntimeError(f"Job.add_done_callback() {_ELSEWHERE}")

    def result(self) -> NoReturn:
        """There is none while the call runs."""
        from asyncio import CancelledError, InvalidStateError  # a child imports it when needed

        raise CancelledError if self.cancelled() else InvalidStateError("Result is not set.")

    exception = result

    # For `director.check_cancelled`:

    @property
    def is_wanted(self) -> bool:
        """Whether the parent has posted no notice."""
        return self.state is JobState.RUNNING

    def due_at(self) -> None:
        """None: the parent watches the time, and posts a notice."""

    def overdue(self, _now: float) -> None:
        """None: the parent has failed the job before it posts the notice."""

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.name!r} {self.state.value} on {self.device.label}>"


class RemoteWorker(ABC):
    """Makes the calls of one slot, on one thread; also the `CurrentCall` of their jobs (`director._jobs.current`).

    Args:
        notices: Has the parent's notices.
    """

    _device: Device
    _replicas: WorkerReplicas

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._cuda: CudaThread | None = None
        self._job: WorkerJob | None = None  # made when needed, for one call

    def _set_device(self, device: Device, loaded: Callable[[int, float, LoadSize | None], None]) -> None:
        """The device is known; `loaded` is called as by `WorkerReplicas`."""
        self._device = device
        self._replicas = WorkerReplicas(device, loaded)
        self._cuda = CudaThread(0, own_stream=False) if device.kind == "cuda" else None

    @abstractmethod
    def _call_info(self) -> CallInfo | None:
        """The call that runs; `None` between two calls."""

    def _check_wanted(self, number: int) -> None:
        """Raise `CancelledError` if the call was cancelled, or is out of time."""
        if self._notices.look(number) != Notice.NONE:
            from asyncio import CancelledError  # a child imports it when needed

            raise CancelledError

    def _call_function(
        self, number: int, fn: Any, args: tuple[Any, ...], model: int, spec: ModelSpec | None, is_plain: bool
    ) -> Any:
        """Call a function, with its resource unless it `is_plain`, and wait for the device."""
        self._check_wanted(number)
        resource = self._device if model == UNNUMBERED else self._replicas.get(model, spec)
        if not is_plain:
            args = (resource, *args)
        return fn(*args) if self._cuda is None else self._cuda.run(lambda _: fn(*args), None)

    # ---- `CurrentCall`

    def job(self) -> WorkerJob | None:
        """The job that runs."""
        if self._job is None and (call := self._call_info()) is not None:
            self._job = WorkerJob(self._notices, self._device, call)
        return self._job

    def jobs(self) -> list[WorkerJob]:
        """The job that runs; of a batch one for all, because notices are for the whole call."""
        job = self.job()
        return [] if job is None else [job]

    def device(self) -> Device:
        """The device."""
        return self._device

    def replica(self) -> Any:
        """The replica of the job's model."""
        call = self._call_info()
        return NO_REPLICA if call is None or call.model == UNNUMBERED else self._replicas.get(call.model, None)

    def time(self) -> float:
        """Seconds of the machine's clock."""
        return monotonic()

    def report(self, progress: Any, told: Any) -> None:
        """Set the job's progress here, and send `told` to the parent, which sets `Job.progress`."""
        if (job := self.job()) is not None:
            self._send_report(told)
            job.progress = progress

    @abstractmethod
    def _send_report(self, told: Any) -> None:
        """Send it to the parent."""
