"""Jobs on the slot's own thread, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._executors._cuda_thread import CudaThread
from director._executors._replicas import Replicas

if TYPE_CHECKING:
    from director._core.chronicle import Chronicle
    from director._core.job import Job
    from director._core.slot import Slot
    from director._models import Residency


class ThreadSeat:
    """Calls functions right here."""

    __slots__ = ("_cuda", "_device", "_replicas", "_slot")

    def __init__(self, slot: Slot, replicas: Replicas) -> None:
        self._slot = slot
        self._device = slot.device
        self._replicas = replicas
        own_stream = len(slot.place.slots) > 1
        self._cuda = CudaThread(slot.device.index, own_stream) if slot.device.kind == "cuda" else None

    def run(self, job: Job[Any]) -> Any:
        """Make the call, in the context in which it was submitted."""
        if self._cuda is not None:
            return self._cuda.run(self._call, job)
        return self._call(job)

    def close(self) -> None:
        """Unload what this slot has loaded."""
        self._replicas.release(self._slot)

    def _call(self, job: Job[Any]) -> Any:
        model = job._options.model
        resource = self._device if model is None else self._replicas.get(model, self._slot)
        context = job._context
        assert context is not None
        return context.run(job._fn, resource, *job._args)


class ThreadExecutor:
    """Runs jobs on the slots' own threads; `Director(executor="thread")`."""

    def __init__(self) -> None:
        self._replicas: tuple[Residency, Replicas] | None = None

    def seat(self, slot: Slot, residency: Residency, chronicle: Chronicle) -> ThreadSeat:
        """A seat on the thread of `slot`; the seats of one Director share its replicas."""
        if self._replicas is None or self._replicas[0] is not residency:
            self._replicas = (residency, Replicas(residency, chronicle))
        return ThreadSeat(slot, self._replicas[1])
