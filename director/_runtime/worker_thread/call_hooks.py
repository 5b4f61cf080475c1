"""A runner that makes its calls within the context managers of hooks."""

from __future__ import annotations

import logging
import sys
from contextvars import Context
from typing import TYPE_CHECKING, Any, cast

from director._executors.base import LoadFailed
from director._jobs.job_runner import JobRunner
from director._system.forks import leave_copy
from director._untrusted.objects import is_a, log_error, provides, traceback_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from director._devices.device_errors import Fault
    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import PrefetchSource
    from director._jobs.model import Model
    from director.events import Hook
    from director.hooks import CallHook

logger = logging.getLogger("director")


def hooked(runner: JobRunner, hooks: tuple[Hook, ...]) -> JobRunner:
    """`runner`, or a `HookedRunner` around it if some hooks are call hooks."""
    if not hooks:
        return runner
    call_hooks = tuple(cast("CallHook", hook) for hook in hooks if provides(hook, "around_call"))
    return HookedRunner(runner, call_hooks) if call_hooks else runner


class HookedRunner(JobRunner):
    """Enters the call hooks around each call of another runner.

    Args:
        runner: Makes the calls.
        call_hooks: Entered in this order, exited in reverse.
    """

    def __init__(self, runner: JobRunner, call_hooks: tuple[CallHook, ...]) -> None:
        self._runner = runner
        self._call_hooks = call_hooks

    def run(self, job: ScheduledJob[Any]) -> Any:
        """Make the call of `job`, enclosed by the hooks."""
        return self._enclose((job,), self._runner.run, job)

    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """Make one call for all of them, enclosed by the hooks."""
        return self._enclose(jobs, self._runner.run_batch, jobs)

    def prepare(self, jobs: list[ScheduledJob[Any]]) -> None:
        """As the runner does: a load is no call."""
        self._runner.prepare(jobs)

    def recover(self, error: BaseException, fault: Fault) -> bool:
        """As the runner does."""
        return self._runner.recover(error, fault)

    @property
    def can_unload(self) -> bool:  # type: ignore[override]
        """As the runner."""
        return self._runner.can_unload

    def unload(self, model: Model[Any]) -> None:
        """As the runner does; no call is made."""
        self._runner.unload(model)

    @property
    def can_sleep(self) -> bool:  # type: ignore[override]
        """As the runner."""
        return self._runner.can_sleep

    def sleep(self, model: Model[Any]) -> tuple[bool, int | None]:
        """As the runner does; no call is made."""
        return self._runner.sleep(model)

    def free_caches(self) -> None:
        """As the runner does."""
        self._runner.free_caches()

    def replica(self, model: Model[Any]) -> Any:
        """As the runner does."""
        return self._runner.replica(model)

    def close(self) -> None:
        """Close the runner."""
        self._runner.close()

    def set_prefetch(self, source: PrefetchSource) -> None:
        """As the runner does."""
        self._runner.set_prefetch(source)

    def recall_prefetched(self) -> None:
        """As the runner does."""
        self._runner.recall_prefetched()

    def abandon(self, job: ScheduledJob[Any]) -> None:
        """As the runner does."""
        self._runner.abandon(job)

    def abort(self) -> bool:
        """As the runner does."""
        return self._runner.abort()

    def _enclose(self, jobs: Sequence[ScheduledJob[Any]], call: Callable[[Any], Any], what: Any) -> Any:
        # The job's context is a copy made at submission: variables set in it are seen by this call only.
        context = jobs[0].context = jobs[0].context or Context()
        entered = [manager for hook in self._call_hooks if (manager := context.run(_enter, hook, jobs)) is not None]
        try:
            value = call(what)
        except BaseException:
            error = sys.exc_info()[1]
            for manager in reversed(entered):
                context.run(_leave, manager, error)
            raise
        for manager in reversed(entered):
            context.run(_leave, manager, None)
        return value


def _enter(hook: CallHook, jobs: Sequence[ScheduledJob[Any]]) -> AbstractContextManager[object] | None:
    try:
        manager = hook.around_call(jobs)
        manager.__enter__()
        leave_copy()
    except BaseException as error:  # noqa: BLE001 - an error of a hook does not fail the call
        log_error(logger, error, "the call hook %s raised before %s", hook, jobs)
        return None
    return manager


def _leave(manager: AbstractContextManager[object], error: BaseException | None) -> None:
    if error is not None and is_a(error, LoadFailed):
        error = error.error
    try:
        if error is None:
            manager.__exit__(None, None, None)
        else:
            manager.__exit__(type(error), error, traceback_of(error))
    except BaseException as raised:  # noqa: BLE001 - as in `_enter`
        if raised is not error:  # a `@contextmanager` generator raises the call's error again
            log_error(logger, raised, "the call hook's %s raised after a call", manager)
