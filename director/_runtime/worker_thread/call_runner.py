"""A user's `Runner` as the runtime needs it: each call as a `Call`, whatever its job calls."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from director._devices.device_errors import free_caches
from director._executors.remote.replicas import only_load
from director._jobs.calls import LocalCall, StreamCall, context_of
from director._jobs.job_runner import JobRunner
from director._jobs.runner import Call
from director._untrusted.callables import SUSPENDED, refuse_suspended
from director._untrusted.objects import log_error, provides

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._devices.device_errors import Fault
    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._jobs.runner import Runner

    class Unloading(Protocol):
        """A runner that can unload one model."""

        def unload(self, model: Model[Any]) -> None:
            """On the slot's thread, while no call uses it; reported with `RunnerEvents.unloaded`."""


logger = logging.getLogger("director")


class CallRunner(JobRunner):
    """Gives the jobs of one slot to a `Runner`."""

    def __init__(self, runner: Runner, device: Device, is_loaded: Callable[[Model[Any]], bool]) -> None:
        self._runner = runner
        self._device = device
        self._is_loaded = is_loaded
        self._call: Call | None = None  # that runs; written by the slot's thread, read by the event loop
        self._abandoned: Call | None = None  # the last one that was; the event loop's

    def run(self, job: ScheduledJob[Any]) -> Any:
        """Have the runner make the call of `job`."""
        fn: Any = job.fn
        if isinstance(fn, LocalCall):
            return fn.run_locally(self._device, lambda call: self._make([job], WithoutResource(call), ()))
        if isinstance(fn, StreamCall):
            return self._make([job], fn, job.payload, stream=fn)
        if type(fn) is partial and not fn.args:
            return self._make([job], fn.func, job.payload, kwargs=fn.keywords)
        return self._make([job], fn, job.payload)

    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """Have the runner make one call for all of them."""
        return self._make(jobs, jobs[0].fn, (), [job.payload[0] for job in jobs])

    def prepare(self, jobs: list[ScheduledJob[Any]]) -> None:
        """Have the runner load the model, by a call that does nothing else, if a job has a limit that depends on it."""
        model = jobs[0].options.model
        if model is not None and any(job.options.timed for job in jobs) and not self._is_loaded(model):
            self._make(jobs, only_load, ())

    def recover(self, error: BaseException, fault: Fault) -> bool:
        """Free memory. A broken context can't be mended: one of another process is raised as `WorkerDied`."""
        if fault.kind == "memory":
            free_caches(error)
        return fault.kind == "memory"

    def free_caches(self) -> None:
        """Empty those of this process."""
        free_caches(device=self._device)

    @property
    def can_unload(self) -> bool:  # type: ignore[override]
        """Whether the user's runner has a method `unload`."""
        return provides(self._runner, "unload")

    def unload(self, model: Model[Any]) -> None:
        """Have the runner unload a model."""
        cast("Unloading", self._runner).unload(model._itself())

    def close(self) -> None:
        """Close the runner."""
        self._runner.close()

    def abandon(self, job: ScheduledJob[Any]) -> None:
        """Tell the runner, once, when all callers of the call that runs have left, or the Director closes."""
        call = self._call
        if call is not None and call is not self._abandoned and job in call.jobs and call.cancelled():
            self._abandoned = call
            try:
                self._runner.abandon(call)
            except Exception as error:  # noqa: BLE001 - the job has ended all the same, and others are to follow
                log_error(logger, error, "abandon() of %s raised", self._runner)

    def abort(self) -> bool:
        """Have the runner end the call that runs."""
        try:
            return self._runner.abort()
        except Exception as error:  # noqa: BLE001 - the Director closes all the same
            log_error(logger, error, "abort() of %s raised", self._runner)
            return False

    def _make(
        self,
        jobs: list[ScheduledJob[Any]],
        fn: Any,
        args: tuple[Any, ...],
        items: list[Any] | None = None,
        stream: StreamCall[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        job = jobs[0]
        self._call = call = Call(
            fn,
            args,
            kwargs or {},
            items=items,
            model=job.options.model,
            context=context_of(job),
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
        if type(value) in SUSPENDED and not isinstance(job.fn, LocalCall):
            refuse_suspended(value, job.name)
        return value


class WithoutResource:
    """The call of an executor, which is made exactly as it was given."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    def __call__(self, _resource: Any) -> Any:
        return self._call()
