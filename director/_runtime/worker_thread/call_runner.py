"""A user's `Runner` as the runtime needs it: each call as a `Call`, whatever its job calls."""

from __future__ import annotations

from asyncio import CancelledError
from contextvars import Context
from typing import TYPE_CHECKING, Any

from director._devices.device_errors import free_caches
from director._executors.base import refuse_coroutine
from director._jobs.calls import LocalCall, StreamCall
from director._jobs.job_runner import JobRunner
from director._jobs.runner import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._devices.device_errors import Fault
    from director._jobs.job import ScheduledJob
    from director._jobs.runner import Runner


class CallRunner(JobRunner):
    """Gives the jobs of one slot to a `Runner`.

    Args:
        runner: A user's.
        device: The slot's.
    """

    def __init__(self, runner: Runner, device: Device) -> None:
        self._runner = runner
        self._device = device
        self._call: Call | None = None  # that runs; written by the slot's thread, read by the event loop
        self._abandoned: Call | None = None  # the last one that was; the event loop's

    def run(self, job: ScheduledJob[Any]) -> Any:
        """Have the runner make the call of `job`."""
        fn: Any = job.fn
        if isinstance(fn, LocalCall):
            return fn.run_locally(self._device, lambda call: self._make([job], WithoutResource(call), ()))
        if isinstance(fn, StreamCall):
            return self._make([job], fn, job.payload, stream=fn)
        return self._make([job], fn, job.payload)

    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """Have the runner make one call for all of them."""
        return self._make(jobs, jobs[0].fn, (), [job.payload[0] for job in jobs])

    def recover(self, error: BaseException, fault: Fault) -> bool:
        """Free memory. A broken context can't be mended: one of another process is raised as `WorkerDied`."""
        if fault.kind == "memory":
            free_caches(error)
        return fault.kind == "memory"

    def close(self) -> None:
        """Close the runner."""
        self._runner.close()

    def abandon(self, job: ScheduledJob[Any]) -> None:
        """Tell the runner, once, when all callers of the call that runs have left."""
        call = self._call
        if call is not None and call is not self._abandoned and job in call.jobs and call.cancelled():
            self._abandoned = call
            self._runner.abandon(call)

    def abort(self) -> bool:
        """Have the runner end the call that runs."""
        return self._runner.abort()

    def _make(
        self,
        jobs: list[ScheduledJob[Any]],
        fn: Any,
        args: tuple[Any, ...],
        items: list[Any] | None = None,
        stream: StreamCall[Any] | None = None,
    ) -> Any:
        job = jobs[0]
        self._call = call = Call(
            fn,
            args,
            {},
            items=items,
            model=job.options.model,
            context=job.context or Context(),
            jobs=tuple(jobs),
            generator=None if stream is None else stream.func,
            put=None if stream is None else stream.channel.put,
        )
        try:
            if call.cancelled():  # since before `abandon` could tell
                raise CancelledError
            value = self._runner.run(call)
        finally:
            self._call = None
        refuse_coroutine(value, job)
        return value


class WithoutResource:
    """The call of an executor, which is made exactly as it was given.

    Args:
        call: Takes nothing.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    def __call__(self, _resource: Any) -> Any:
        return self._call()
