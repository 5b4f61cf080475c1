"""The lifecycle of jobs: submission and end. On the event loop only, except `create_job`.

A job ends here exactly once: its future gets its outcome, its state changes, it is counted, and the hooks are called.
The outcome of a job that has ended before (it was cancelled, its time was up) is dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from asyncio import _get_running_loop, current_task
from collections import deque
from contextvars import copy_context
from functools import partial
from threading import get_ident
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from director._executors.base import LoadFailed, NeverStarted, is_loss
from director._jobs.job import Job, ScheduledJob
from director._jobs.requests import register, request
from director._jobs.state import JobState
from director._runtime.endings import Endings
from director._runtime.idle import IdleWaiters
from director._runtime.loop_channel import LoopChannel
from director._runtime.retries import Retries, RetryPolicy
from director._runtime.timers import DeadlineTimers
from director._scheduler.slots import Slot
from director._untrusted.objects import bearable, describe, is_a, log_error, set_cause
from director.errors import AdmissionError, DeviceLost, DirectorClosed, JobAborted, JobError, JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import Context

    from director._jobs.job import JobExtras
    from director._jobs.options import Options
    from director._runtime.endings import Withdraw
    from director._runtime.instrumentation import Instrumentation
    from director._runtime.job_queue import JobQueue
    from director._runtime.loop_channel import Post
    from director._system.clock import Clock
    from director.errors import DirectorError

T = TypeVar("T")
_Callback: TypeAlias = "tuple[Callable[..., object], Context, ScheduledJob[Any]]"
logger = logging.getLogger("director")
_QUEUED, _RUNNING, _SUCCEEDED = JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED
_Future: Any = Job.__mro__[1]  # asyncio's when `Job` was defined: nest_asyncio replaces it
_set_result = _Future.set_result  # `Job.set_result` raises
_set_exception = _Future.set_exception
_exception = _Future.exception
_TOGETHER = 32  # outcomes set before the first of their done-callbacks is called


class JobLifecycle:
    """Begins and ends jobs."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        scheduler: JobQueue,
        instrumentation: Instrumentation,
        worker_lost: Callable[[ScheduledJob[Any], BaseException], None],
        loop_lost: Callable[[], None],
        retry_policy: RetryPolicy | None = None,
    ) -> None:
        self.succeeded = self.failed = self.cancelled = self.rejected = 0
        self.is_closing = False  # running calls are asked to end
        self._loop = loop
        self._thread = get_ident()
        self._now = clock.time
        self._scheduler = scheduler
        self._worker_lost = worker_lost
        self.loop_channel = self._loop_channel = loop_channel = LoopChannel(loop, self.deliver_results, loop_lost)
        self.idle = self._idle = IdleWaiters(loop, scheduler, loop_channel)
        self._instrumentation = instrumentation
        self.ask_instrumentation()
        self.timers = self._timers = DeadlineTimers(clock, scheduler, loop_channel, self.end_failed)
        self.endings = Endings(loop_channel)
        policy = retry_policy or RetryPolicy(clock.time, scheduler)
        self.retries = Retries(policy, clock, scheduler, instrumentation)
        self._wakes = False  # a delivery is in progress that calls done-callbacks itself
        self._callbacks: deque[_Callback] = deque()  # taken off jobs that have ended, and not called yet
        self._exit: BaseException | None = None  # raised by a callback to stop the event loop
        self._numbers = itertools.count(1)

    def create_job(
        self,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        options: Options,
        wait_for_room: bool,
        extra: JobExtras | None = None,
        prepare: Callable[[ScheduledJob[Any]], None] | None = None,
    ) -> ScheduledJob[T]:
        """Make a job, call `prepare` with it, and queue it; from any thread.

        Raises:
            QueueFull: There is no room, and not `wait_for_room`.
            DeadlineUnreachable: It would miss its deadline.
        """
        job: ScheduledJob[T] = ScheduledJob(loop=self._loop)
        job.id = next(self._numbers)
        job.owner = self
        job.fn = fn
        job.payload = args
        job.extras = extra
        job.options = options
        job.context = copy_context() or None  # the runner makes a new one for an empty one
        job.state = _QUEUED
        job.started_at = job.finished_at = job.reported = None
        job.submitted_at = self._now()
        if prepare is not None:
            prepare(job)
        if self._is_watched:
            self._instrumentation.submitting(job)
        try:
            if (wake := self._scheduler.admit(job, wait_for_room)) is not None:
                wake()
            if options.timed:
                self._loop_channel.on_loop(self._timers.start, job)
        except (AdmissionError, DeviceLost) as error:
            self.rejected += 1
            self._instrumentation.rejected(job, error)
            raise
        except BaseException:  # of a signal handler: repeat the wake-ups
            self._scheduler.wake_again()
            self._loop_channel.call(self._timers.check)
            self._loop_channel.notify()
            raise
        if self._is_noted:
            self._note_submission(job)
        return job

    def ask_instrumentation(self) -> None:
        """The hooks have changed: what they want is read once, not for each job."""
        instrumentation = self._instrumentation
        self._is_watched, self._is_recorded = instrumentation.listening, instrumentation.recording
        self._is_noted = register(self) or instrumentation.listening
        self._reports_ends = instrumentation.listening or instrumentation.recording

    def follow_requests(self) -> None:
        """Add each job to the request of its context from now on."""
        self._is_noted = True

    def _note_submission(self, job: ScheduledJob[Any]) -> None:
        if (context := job.context) is not None and (of := context.get(request)) is not None:
            self._loop_channel.on_loop(of.add, job)
        if self._is_watched:
            self._instrumentation.submitted(job)

    def deliver_results(self) -> None:
        """End the jobs whose outcomes have arrived, and make the calls posted with them."""
        try:
            self._deliver()
        finally:
            self._wakes = False
        if self._idle.waiters:
            self._idle.check()
        if self._exit is not None:
            error, self._exit = self._exit, None
            raise error

    def _deliver(self) -> None:
        # Done-callbacks of jobs are called here, not each by another call of the event loop: a seventh of a burst. Not
        # within a task (our own close), for one task can't be stepped within another; nor with nest_asyncio, where a
        # task may run the event loop from within this call; nor with hooks for events, which come first.
        is_in_task = current_task(self._loop) is not None
        self._wakes = wakes = not (self._is_watched or is_in_task or hasattr(self._loop, "_nest_patched"))
        settle = self._settle if wakes else _set_result
        loop_channel, posts, value = self._loop_channel, self._loop_channel.entries, None
        while loop_channel.left:
            loop_channel.left -= 1
            # Each post in a `try` of its own: an exception must not keep the others from delivery. There is no call
            # between the two lines that take a post, because a signal handler may run, and raise, after a call.
            try:
                post = posts[0]
                del posts[0]
                if not isinstance(post, ScheduledJob):
                    post[0](*post[1])
                    continue
                value = post.payload
                fn = post.fn
                if type(fn) is FunctionType and type(name := fn.__name__) is str:  # `drop_inputs`, inlined
                    post.fn, post.payload, post.context = name, None, None
                else:
                    post.drop_inputs()
                if post.state is not _RUNNING:  # it was cancelled, or its time was up
                    if self._reports_ends:
                        self._instrumentation.returned(post)
                    continue
                if post.options.timed and not (self._was_in_time(post) and post.state is _RUNNING):
                    continue
                post.state = _SUCCEEDED
                self.succeeded += 1
                if self._is_recorded:  # before a callback may look for it
                    self._instrumentation.record_success(post)
                settle(post, value)
                if self._is_watched:
                    self._instrumentation.succeeded(post)
            except BaseException as error:  # noqa: BLE001
                self._complete(post, value, error)
        if self._callbacks:
            if wakes:
                self._call_back()
            else:  # an interrupted delivery, or the one around this, has left them
                while self._callbacks:
                    callback, context, job = self._callbacks.popleft()
                    self._loop.call_soon(callback, job, context=context)

    def _complete(self, post: Post, value: Any, error: BaseException) -> None:
        """A delivery was interrupted by `error`: the job of the post ends all the same.

        Raises:
            SystemExit, KeyboardInterrupt: `error` itself.
        """
        if not isinstance(post, tuple) and not post.done():
            if post._callbacks and self._callbacks and self._callbacks[-1][2] is post:
                self._callbacks.pop()  # the job has it still
            if post.state is _SUCCEEDED:
                _set_result(post, value)
                if self._is_watched:
                    self._instrumentation.succeeded(post)
            else:
                self._end_broken(post, error)
        if is_a(error, (SystemExit, KeyboardInterrupt)):
            raise error
        log_error(logger, error, "delivering %s raised", post[0] if isinstance(post, tuple) else post)

    def _settle(
        self, job: ScheduledJob[Any], outcome: Any, set_outcome: Callable[[Any, Any], None] = _set_result
    ) -> None:
        """Set the result or exception; a single done-callback, the usual case, is called by this delivery.

        After the outcomes of some more jobs, for a task that awaits one job after the other is then resumed once.
        """
        callbacks = job._callbacks
        if callbacks is None or len(callbacks) != 1:
            set_outcome(job, outcome)
            return
        [(callback, context)] = callbacks
        self._callbacks.append((callback, context, job))  # first: an exception between two lines must not lose it
        job.remove_done_callback(callback)
        set_outcome(job, outcome)
        if len(self._callbacks) >= _TOGETHER:
            self._call_back()

    def _call_back(self) -> None:
        """Call the done-callbacks that were taken off their jobs, as the event loop would."""
        callbacks = self._callbacks
        while callbacks:
            entry = callbacks[0]
            del callbacks[0]
            callback, context, job = entry
            try:
                context.run(callback, job)
            except (SystemExit, KeyboardInterrupt) as error:
                self._exit = error  # raised when all is delivered
            except BaseException as error:  # noqa: BLE001 - the other outcomes must be delivered
                report = {"message": f"a callback of {job!r} raised", "exception": error, "future": job}
                job.get_loop().call_exception_handler(report)

    def cancel(self, job: ScheduledJob[Any], msg: Any) -> bool:
        """Cancel a job that has not ended; see `Job.cancel`."""
        if get_ident() != self._thread or _get_running_loop() not in (self._loop, None):
            # None: asyncio.run() cancels what is left after its loop has stopped.
            raise RuntimeError(
                "Job.cancel() belongs to the event loop of its Director; "
                "from another thread use loop.call_soon_threadsafe(job.cancel)"
            )
        return self.end_cancelled(job, msg)

    def end_cancelled(self, job: ScheduledJob[Any], msg: Any) -> bool:
        """As `cancel`, without the check of the thread."""
        if job.done():
            return False
        if self._scheduler.is_deciding:
            self._loop_channel.call(self.cancel, job, msg)
            return True
        try:
            if self._scheduler.remove(job, JobState.CANCELLED):
                if isinstance(job.location, Slot):  # it was prefetched
                    job.location.runner.abandon(job)
            elif job.state is not _RUNNING:
                return False  # it is being ended, by a failed load or by a step that a signal handler has interrupted
            self._end_cancelled(job, msg)
        except BaseException:  # of a signal handler: a job that was moved must end
            if job.state is JobState.CANCELLED and not job.done():
                self._loop_channel.call(self._end_cancelled, job, msg)
            raise
        return True

    def end_waiting(self) -> None:
        """The Director runs no more jobs: fail every job that waits."""
        self.endings.withdraw(partial(self._scheduler.remove_all, state=JobState.FAILED), self.end_closed)

    def abort_running(self, grace: float) -> None:
        """Fail every job whose call has not ended after `grace` seconds; the calls go on."""
        running: Withdraw = lambda jobs: jobs.extend(self._scheduler.running())  # noqa: E731
        self.endings.withdraw(running, lambda job: self.end_closed(job, JobAborted(grace)))

    def end_closed(self, job: ScheduledJob[Any], error: DirectorError | None = None) -> None:
        """Fail a job because the Director closes; without `error` one that never ran.

        It counts as retrieved: the jobs that were left when a block was left by an exception must not be logged, each
        with a traceback, beside that exception.
        """
        self.end_failed(job, error or DirectorClosed("closed"))
        if job.done():
            _exception(job)

    def end_returned(self, job: ScheduledJob[Any]) -> None:
        """A prefetched job was given back after `stop_admission`, FAILED by the scheduler."""
        if job.state is JobState.FAILED and not job.done():
            self.end_closed(job)

    def end_failed(self, job: ScheduledJob[Any], error: BaseException) -> None:
        """End a running job, or one withdrawn as FAILED, with `error`."""
        if (moved := self._move(job, JobState.FAILED)) is None:
            return
        is_left, started = moved
        self.failed += 1
        if self._wakes:  # in order with those that succeed
            self._settle(job, error, _set_exception)
        else:
            _set_exception(job, error)
        self._clear(job, is_left, started)
        if self._reports_ends:
            self._instrumentation.failed(job, error, started)

    def handle_error(self, job: ScheduledJob[Any], error: BaseException) -> None:
        """The call of a job has raised, or its model could not be loaded."""
        try:
            self._raised(job, error)
        except BaseException as problem:
            self._end_broken(job, problem)
            raise

    def _raised(self, job: ScheduledJob[Any], error: BaseException) -> None:
        if is_a(error, LoadFailed):
            if self.retries.retry(job, error):
                return
            error = self._give_up(job, error)
        options, never_started = job.options, is_a(error, NeverStarted)
        if not never_started and isinstance(job.location, Slot) and is_loss(error, job.location.device):
            self._worker_lost(job, error)
        if (options.retries or options.batch_rule is not None or never_started) and self.retries.retry(job, error):
            return
        if is_a(error, NeverStarted):  # which is internal
            error = DirectorClosed("closed") if job.owner.is_closing else DeviceLost(error.device, error.reason)
        job.drop_inputs()
        if job.done():  # it was cancelled, or its time was up
            if self._reports_ends:
                self._instrumentation.returned(job)
            return
        if is_a(error, asyncio.CancelledError):
            if self.is_closing:  # nothing has cancelled it: a task that awaits it must not take itself for cancelled
                self.end_closed(job, JobAborted())
            else:
                self._end_cancelled(job, None)
        else:
            self.end_failed(job, bearable(error))

    def handle_batch(self, jobs: list[ScheduledJob[Any]], values: Sequence[Any], ended: float) -> None:
        """The call of a batch has returned: within a delivery, which takes its jobs next."""
        try:
            for job, value in zip(jobs, values, strict=True):
                job.payload, job.finished_at = value, ended
            self._loop_channel.unpack(jobs)
        except BaseException as problem:
            self.endings.withdraw(lambda left: left.extend(jobs), partial(self._end_broken, problem=problem))
            raise

    def _give_up(self, job: ScheduledJob[Any], failure: LoadFailed) -> BaseException:
        """Fail what waits with no better hope than `job`, for which a load has failed; returns the loader's error."""
        if job.state is _RUNNING and self._scheduler.can_load(job):
            withdraw = partial(self._scheduler.fail_unloadable, model=failure.model, hopeless=job)
            self.endings.withdraw(withdraw, partial(self.end_failed, error=bearable(failure.error)))
        return failure.error

    def stop(self) -> None:
        """Stop all timers of deadlines and retries."""
        self._timers.stop()
        self.retries.stop()

    def admit_deferred(self, job: ScheduledJob[Any], wait_for_room: bool) -> None:
        """On the event loop: queue a job that a finalizer or signal handler has submitted during a decision."""
        if self._scheduler.is_deciding:
            self._loop_channel.call(self.admit_deferred, job, wait_for_room)
            return
        try:
            if (wake := self._scheduler.admit_deferred(job, wait_for_room)) is not None:
                wake()
        except (AdmissionError, DeviceLost) as error:
            self.end_failed(job, error)

    def _was_in_time(self, job: ScheduledJob[Any]) -> bool:
        """Whether the call ended in time by the clock: the outcome and the timer may come in either order."""
        due, finished = job.due_at(), job.finished_at
        if due is not None and finished is not None and finished > due:
            self.end_failed(job, job.overdue(finished) or JobTimeout("running"))
            return False
        self._timers.drop(job)
        return True

    def _end_cancelled(self, job: ScheduledJob[Any], msg: Any) -> None:
        if (moved := self._move(job, JobState.CANCELLED)) is None:
            return
        is_left, started = moved
        self.cancelled += 1
        _Future.cancel(job, msg)
        self._clear(job, is_left, started)
        if self._reports_ends:
            self._instrumentation.cancelled(job, started)

    def _end_broken(self, job: ScheduledJob[Any], problem: BaseException) -> None:
        """End a job whose outcome could not be delivered, by a bug of ours, unless it has ended."""
        if job.done():
            return
        self._scheduler.remove(job, JobState.FAILED)  # it may be held for retry
        job.state = JobState.FAILED
        error = JobError(f"the Director could not deliver the outcome of {job!r}: {describe(problem)}")
        set_cause(error, problem)
        self.end_failed(job, error)

    def _move(self, job: ScheduledJob[Any], state: JobState) -> tuple[bool, float | None] | None:
        """Move a job to its last state; `None` if it is in another one, set by a signal handler before.

        Returns whether its runner has to abandon it, and its start time, which is read once: it may start now.
        """
        if is_inside := job.state is _RUNNING:
            job.state = state  # first: a signal handler that comes after this finds it ended
        elif job.state is not state:  # a waiting job was moved by the scheduler
            return None
        is_left, started = is_inside and job.finished_at is None, job.started_at
        if started is None:  # it never ran
            job.finished_at = self._now()
        return is_left, started

    def _clear(self, job: ScheduledJob[Any], is_left: bool, started: float | None) -> None:
        """Release what a job needed that has ended. Its future has its outcome already, whatever this raises."""
        if started is None:
            job.drop_inputs()
        if is_left:
            job.location.runner.abandon(job)  # type: ignore[union-attr]  # it ran in a slot
        if job.options.timed:
            self._timers.drop(job)
        if job.options.retries:
            self.retries.drop(job)
        if self._idle.waiters:
            self._idle.check()
