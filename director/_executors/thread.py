"""Jobs on the slot's own thread, in this process."""

from __future__ import annotations

from contextvars import Context
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from director._devices.device_errors import free_caches
from director._executors.base import refuse_coroutine
from director._executors.cuda_thread import CudaThread
from director._executors.replicas import Replicas
from director._jobs.calls import StreamCall
from director._jobs.job_runner import JobRunner

if TYPE_CHECKING:
    from director._devices.device_errors import Fault
    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import SlotInfo
    from director._jobs.runner import RunnerEvents


class ThreadRunner(JobRunner):
    """Calls functions on the slot's thread."""

    def __init__(self, slot: SlotInfo, replicas: Replicas) -> None:
        self._slot = slot
        self._device = slot.device
        self._replicas = replicas

    def run(self, job: ScheduledJob[Any]) -> Any:
        """Make the call, in the context of its submission."""
        model = job.options.model
        resource = self._device if model is None else self._replicas.get(model, self._slot)
        value = (job.context or Context()).run(job.fn, resource, *job.payload)  # type: ignore[arg-type]
        if type(value) is CoroutineType:
            refuse_coroutine(value, job)
        return value

    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """Make one call for all of them, in the context of the first one's submission."""
        first = jobs[0]
        model = first.options.model
        resource = self._device if model is None else self._replicas.get(model, self._slot)
        items = [job.payload[0] for job in jobs]
        value = (first.context or Context()).run(first.fn, resource, items)  # type: ignore[arg-type]
        if type(value) is CoroutineType:
            refuse_coroutine(value, first)
        return value

    def recover(self, error: BaseException, fault: Fault) -> bool:
        """Free memory; a broken CUDA context can't be repaired within its process."""
        if fault.kind == "memory":
            free_caches(error)
        return fault.kind == "memory"

    def close(self) -> None:
        """Unload what this slot has loaded."""
        self._replicas.release(self._slot)

    def abandon(self, job: ScheduledJob[Any]) -> None:
        """Nothing: `director.check_cancelled` reads the state of the job."""

    def abort(self) -> bool:
        """False: a thread can't be killed."""
        return False


class CudaRunner(ThreadRunner):
    """Calls functions here, with the thread bound to its GPU, and returns when the GPU has finished."""

    def __init__(self, slot: SlotInfo, replicas: Replicas) -> None:
        super().__init__(slot, replicas)
        self._cuda = CudaThread(slot.device.index, own_stream=slot.slots > 1)

    def run(self, job: ScheduledJob[Any]) -> Any:
        """Make the call, and wait for the stream."""
        if isinstance(job.fn, StreamCall):
            job.fn.settle = self._cuda.wait  # as each result, a value is put when the device has computed it
        return self._cuda.run(super().run, job)

    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """Make the call, and wait for the stream."""
        return self._cuda.run(super().run_batch, jobs)


class ThreadExecutor:
    """Runs jobs on the slots' own threads; `Director(executor="thread")`."""

    def __init__(self) -> None:
        self._replicas: tuple[RunnerEvents, Replicas] | None = None

    def runner(self, slot: SlotInfo, events: RunnerEvents) -> ThreadRunner:
        """A runner on the thread of `slot`; the runners of one Director share its replicas."""
        if self._replicas is None or self._replicas[0] is not events:
            events.share_replicas()
            self._replicas = (events, Replicas(events))
        runner = CudaRunner if slot.device.kind == "cuda" else ThreadRunner
        return runner(slot, self._replicas[1])
