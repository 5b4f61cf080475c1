"""Jobs on the slot's own thread, in this process."""

from __future__ import annotations

import logging
import sys
from contextvars import Context
from typing import TYPE_CHECKING, Any

from director._devices.device_errors import free_caches
from director._executors.cuda_thread import CudaThread
from director._executors.replicas import Replicas
from director._jobs.calls import LocalCall, StreamCall, context_of
from director._jobs.job_runner import JobRunner
from director._untrusted.callables import SUSPENDED, explain_resource, refuse_suspended
from director._untrusted.objects import attribute_of

if TYPE_CHECKING:
    from director._devices.device_errors import Fault
    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import SlotInfo
    from director._jobs.model import Model
    from director._jobs.runner import RunnerEvents

logger = logging.getLogger("director")


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
        context = Context() if job.context is None else context_of(job)
        try:
            value = context.run(job.fn, resource, *job.payload)  # type: ignore[arg-type]
        except TypeError as error:
            if not isinstance(job.fn, LocalCall):
                explain_resource(error, job.fn, "device" if model is None else "replica")
            raise
        if type(value) in SUSPENDED:
            refuse_suspended(value, job.name)
        return value

    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """Make one call for all of them, in the context of the first one's submission."""
        first = jobs[0]
        model = first.options.model
        resource = self._device if model is None else self._replicas.get(model, self._slot)
        items = [job.payload[0] for job in jobs]
        try:
            value = context_of(first).run(first.fn, resource, items)  # type: ignore[arg-type]
        except TypeError as error:
            explain_resource(error, first.fn, "device" if model is None else "replica", is_batch=True)
            raise
        if type(value) in SUSPENDED:
            refuse_suspended(value, first.name)
        return value

    def replica(self, model: Model[Any]) -> Any:
        """The replica, which is loaded."""
        return self._replicas.get(model, self._slot)

    can_unload = True

    def unload(self, model: Model[Any]) -> None:
        """Unload it here: any slot's thread of the device may."""
        self._replicas.unload(model, self._slot)

    can_sleep = True

    def sleep(self, model: Model[Any]) -> tuple[bool, int | None]:
        """Put it to sleep here."""
        return self._replicas.sleep(model, self._slot)

    def free_caches(self) -> None:
        """Empty them here."""
        free_caches(device=self._device)

    def prepare(self, jobs: list[ScheduledJob[Any]]) -> None:
        """Load the model."""
        if (model := jobs[0].options.model) is not None:
            self._replicas.get(model, self._slot)

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

    def unload(self, model: Model[Any]) -> None:
        """Unload it, and give its memory back to the device."""
        self._cuda.run(super().unload, model)

    def sleep(self, model: Model[Any]) -> tuple[bool, int | None]:
        """Put it to sleep, and give its memory back to the device."""
        return self._cuda.run(super().sleep, model)

    def prepare(self, jobs: list[ScheduledJob[Any]]) -> None:
        """Load the model, and wait for the stream."""
        self._cuda.run(super().prepare, jobs)


class ThreadExecutor:
    """Runs jobs on the slots' own threads; `Director(executor="thread")`."""

    def __init__(self) -> None:
        self._replicas: tuple[RunnerEvents, Replicas] | None = None

    def runner(self, slot: SlotInfo, events: RunnerEvents) -> ThreadRunner:
        """A runner on the thread of `slot`; the runners of one Director share its replicas."""
        if self._replicas is None or self._replicas[0] is not events:
            events.share_replicas()
            reports: Any = events  # `RunnerReports` is all of it
            self._replicas = (events, Replicas(reports, reports))
        runner = CudaRunner if slot.device.kind == "cuda" else ThreadRunner
        return runner(slot, self._replicas[1])


def advise(slots: int) -> None:
    """Warn if the slots that compute on the CPU, by torch, would use more threads than there are cores."""
    torch: Any = sys.modules.get("torch")
    threads = attribute_of(torch, "get_num_threads")
    if slots < 2 or not callable(threads):
        return
    from director._devices.host import usable_cores  # few programs need it

    each, cores = threads(), usable_cores()
    if each > 1 and slots * each > cores:
        most = max(1, int(cores) // slots)
        logger.warning(
            "%d slots compute on %g cores, and torch starts %d threads in each: they slow each other down. Call "
            "torch.set_num_threads(%d), or set OMP_NUM_THREADS=%d before the program starts",
            slots,
            cores,
            each,
            most,
            most,
        )
