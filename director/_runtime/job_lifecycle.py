"""The job lifecycle of jobs: how each one ends, and how many ended how. On the event loop only, except `open_job`.

A job ends here exactly once: its future is settled, its state moves on, it is counted and its end is told to the hooks.
An outcome that arrives for a job that is over (its caller has left, its time was up) is dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from asyncio import _get_running_loop, current_task
from contextvars import copy_context
from functools import partial
from threading import get_ident
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from director._executors.base import NeverStarted, is_loss
from director._jobs.job import Job, ScheduledJob
from director._jobs.state import JobState
from director._runtime.endings import Endings
from director._runtime.idle import IdleWaiters
from director._runtime.loop_channel import LoopChannel
from director._runtime.retries import RetryPolicy
from director._runtime.timers import DeadlineTimers, RetryTimers
from director._scheduler.slots import Slot
from director._untrusted.objects import bearable, describe, is_a, log_error, repr_of, set_cause
from director.errors import AdmissionError, DeviceLost, JobError, JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director._clock import Clock
    from director._jobs.job import JobExtras
    from director._jobs.options import Options
    from director._runtime.instrumentation import Instrumentation
    from director._runtime.loop_channel import Post
    from director._scheduler.scheduler import Scheduler

T = TypeVar("T")
logger = logging.getLogger("director")
_QUEUED, _RUNNING, _SUCCEEDED = JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED
_Future: Any = Job.__mro__[1]  # asyncio's, as it was when Job was made: nest_asyncio puts another in its place
_set_result = _Future.set_result  # a Job refuses its own
_set_exception = _Future.set_exception


class JobLifecycle:
    """Begins and ends jobs.

    Args:
        loop: The event loop of the Director.
        clock: Tells the time.
        scheduler: Queues and withdraws jobs.
        instrumentation: Takes events.
        worker_lost: Called with a job whose worker or device was lost, and the error.
        loop_lost: Called if the loop is closed under the Director; see `LoopChannel`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        scheduler: Scheduler,
        instrumentation: Instrumentation,
        worker_lost: Callable[[ScheduledJob[Any], BaseException], None],
        loop_lost: Callable[[], None],
    ) -> None:
        self.succeeded = self.failed = self.cancelled = self.rejected = 0
        self._loop = loop
        self._thread = get_ident()
        self._now = clock.time
        self._scheduler = scheduler
        self._worker_lost = worker_lost
        self.loop_channel = self._loop_channel = loop_channel = LoopChannel(loop, self.deliver_results, loop_lost)
        self.idle = self._idle = IdleWaiters(loop, scheduler, loop_channel)
        self._instrumentation = instrumentation
        self._is_watched, self._is_recorded = instrumentation.listening, instrumentation.recording
        self._tells_ends = instrumentation.listening or instrumentation.recording
        self.timers = self._timers = DeadlineTimers(clock, scheduler, loop_channel, self.end_failed)
        self.endings = Endings(loop_channel)
        self._retry_policy = RetryPolicy(clock.time, scheduler.slots, scheduler.open_slots)
        self._retry_timers = RetryTimers(clock, self._requeue)
        self._wakes = False  # a delivery is going on that wakes who awaits the jobs by itself
        self._exit: BaseException | None = None  # what a callback has raised to stop the loop
        self._numbers = itertools.count(1)

    def create_job(
        self,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        options: Options,
        wait_for_room: bool,
        extra: JobExtras | None = None,
    ) -> ScheduledJob[T]:
        """Make a job and queue it; from any thread.

        Raises:
            QueueFull: There is no room and the caller is not `wait_for_room`.
            DeadlineUnreachable: It would miss its deadline.
            TypeError: `fn` can't be called.
        """
        if not callable(fn):
            raise TypeError(f"a job needs a function to call, not {repr_of(fn)}")
        job: ScheduledJob[T] = ScheduledJob(loop=self._loop)
        job.id = next(self._numbers)
        job.owner = self
        job.fn = fn
        job.payload = args
        job.extras = extra
        job.options = options
        job.context = copy_context() or None  # an empty one is made anew by who runs the job
        job.state = _QUEUED
        job.started_at = job.finished_at = job.reported = None
        job.submitted_at = self._now()
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
        except BaseException:  # a signal handler has raised: what was to be called, is called again
            self._scheduler.wake_again()
            self._loop_channel.call(self._timers.check)
            self._loop_channel.notify()
            raise
        if self._is_watched:
            self._instrumentation.submitted(job)
        return job

    def deliver_results(self) -> None:
        """End the jobs whose outcomes have arrived, and make the calls that came with them."""
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
        # Who awaits a job is woken right here, not by one more call of the loop for each: a seventh of a burst. Inside
        # of a task (our own close) that is not possible: one task can't be stepped within another. Hooks come first.
        # Nor where loops may be entered again: a task would do so from within the loop's call of us.
        self._wakes = not self._is_watched and current_task() is None and not hasattr(self._loop, "_nest_patched")
        settle = self._settle if self._wakes else _set_result
        loop_channel, posts, value = self._loop_channel, self._loop_channel.entries, None
        while loop_channel.left:
            loop_channel.left -= 1
            # Each post by itself: what one raises must not keep the others. No call between the two lines that take it:
            # a signal's handler, which may raise, runs after calls.
            try:
                post = posts[0]
                del posts[0]
                if isinstance(post, tuple):
                    post[0](*post[1])
                    continue
                value = post.payload
                fn = post.fn
                if type(fn) is FunctionType and type(name := fn.__name__) is str:  # what `_let_go` does then
                    post.fn, post.payload, post.context = name, None, None
                else:
                    post.drop_inputs()
                if post.state is not _RUNNING:  # its caller has left, or its time was up
                    if self._tells_ends:
                        self._instrumentation.returned(post)
                    continue
                if post.options.timed and not (self._was_in_time(post) and post.state is _RUNNING):
                    continue
                post.state = _SUCCEEDED
                self.succeeded += 1
                if self._is_recorded:  # before anybody is woken who may look for it
                    self._instrumentation.record_success(post)
                settle(post, value)
                if self._is_watched:
                    self._instrumentation.succeeded(post)
            except BaseException as error:  # noqa: BLE001
                self._complete(post, value, error)

    def _complete(self, post: Post, value: Any, error: BaseException) -> None:
        """A delivery was interrupted by `error`: the job of the post ends all the same.

        Raises:
            SystemExit: It was that, which is for the loop.
            KeyboardInterrupt: The same.
        """
        if not isinstance(post, tuple) and not post.done():
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
        """Set the result or the exception, and call the one callback that there usually is, as the loop would."""
        callbacks = job._callbacks
        if callbacks is None or len(callbacks) != 1:
            set_outcome(job, outcome)
            return
        [(callback, context)] = callbacks
        job.remove_done_callback(callback)
        set_outcome(job, outcome)
        try:
            context.run(callback, job)
        except (SystemExit, KeyboardInterrupt) as error:
            self._exit = error  # for the loop, when all is delivered
        except BaseException as error:  # noqa: BLE001 - whatever it is, the others must be told of theirs
            report = {"message": f"a callback of {job!r} raised", "exception": error, "future": job}
            job.get_loop().call_exception_handler(report)

    def cancel(self, job: ScheduledJob[Any], msg: Any) -> bool:
        """Cancel a job that is not over; see `Job.cancel`."""
        if get_ident() != self._thread or _get_running_loop() not in (self._loop, None):
            # None: asyncio.run() cancels what is left after its loop has stopped.
            raise RuntimeError(
                "Job.cancel() belongs to the event loop of its Director; "
                "from another thread use loop.call_soon_threadsafe(job.cancel)"
            )
        return self.end_cancelled(job, msg)

    def end_cancelled(self, job: ScheduledJob[Any], msg: Any) -> bool:
        """The same, for who need not be asked where he is."""
        if job.done():
            return False
        if self._scheduler.is_deciding:
            self._loop_channel.call(self.cancel, job, msg)
            return True
        try:
            if self._scheduler.remove(job, JobState.CANCELLED):
                if isinstance(job.location, Slot):  # which holds it ahead of its turn
                    job.location.runner.abandon(job)
            elif job.state is not _RUNNING:
                return False  # its end is on its way: of a failed load, or of the step that a handler has interrupted
            self._end_cancelled(job, msg)
        except BaseException:  # a signal handler has raised: what is moved must end
            if job.state is JobState.CANCELLED and not job.done():
                self._loop_channel.call(self._end_cancelled, job, msg)
            raise
        return True

    def cancel_waiting(self) -> None:
        """Cancel every job that waits."""
        end = partial(self._end_cancelled, msg="the Director closed")
        self.endings.withdraw(partial(self._scheduler.remove_all, state=JobState.CANCELLED), end)

    def end_failed(self, job: ScheduledJob[Any], error: BaseException) -> None:
        """End a job that runs, or that was withdrawn as FAILED, with `error`."""
        if (moved := self._move(job, JobState.FAILED)) is None:
            return
        is_left, started = moved
        self.failed += 1
        if self._wakes:  # in their order with those that succeed
            self._settle(job, error, _set_exception)
        else:
            _set_exception(job, error)
        self._clear(job, is_left, started)
        if self._tells_ends:
            self._instrumentation.failed(job, error, started)

    def handle_error(self, job: ScheduledJob[Any], error: BaseException) -> None:
        """The call of a job has raised, or its model could not be loaded."""
        try:
            self._raised(job, error)
        except BaseException as problem:
            self._end_broken(job, problem)
            raise

    def _raised(self, job: ScheduledJob[Any], error: BaseException) -> None:
        options, never_started = job.options, is_a(error, NeverStarted)
        if not never_started and isinstance(job.location, Slot) and is_loss(error, job.location.device):
            self._worker_lost(job, error)
        if (options.retries or options.batch_rule is not None or never_started) and self._retry(job, error):
            return
        if is_a(error, NeverStarted):
            error = DeviceLost(error.device, error.reason)  # the other name is ours
        job.drop_inputs()
        if job.done():  # its caller has left, or its time was up
            if self._tells_ends:
                self._instrumentation.returned(job)
            return
        if is_a(error, asyncio.CancelledError):
            self._end_cancelled(job, None)
        else:
            self.end_failed(job, bearable(error))

    def handle_batch(self, jobs: list[ScheduledJob[Any]], values: Sequence[Any], ended: float) -> None:
        """A call for all of these has returned; part of a delivery, which goes on with them."""
        try:
            for job, value in zip(jobs, values, strict=True):
                job.payload, job.finished_at = value, ended
            self._loop_channel.unpack(jobs)
        except BaseException as problem:
            self.endings.withdraw(lambda left: left.extend(jobs), partial(self._end_broken, problem=problem))
            raise

    def _retry(self, job: ScheduledJob[Any], error: BaseException) -> bool:
        """Have a job that has just failed tried again, now or later; False if it is not worth it, or it is over."""
        retry = self._retry_policy.plan(job, error)
        if retry is None or not self._scheduler.hold_for_retry(job):
            return False
        if self._is_recorded:
            self._instrumentation.tried(job, retry.slot, error)
        job.reset(retry.options, retry.is_counted)
        if self._is_watched:
            self._instrumentation.retry_scheduled(job, retry.slot.device, error)
        if retry.delay:
            self._retry_timers.set(job, retry.delay)
        else:
            self._requeue(job)
        return True

    def _requeue(self, job: ScheduledJob[Any]) -> None:
        if (wake := self._scheduler.requeue(job)) is not None:
            wake()

    def stop(self) -> None:
        """Ring for no deadline and try nothing again any more."""
        self._timers.stop()
        self._retry_timers.stop()

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
        """The clock decides, not whether the loop looks at the outcome or at the alarm first."""
        due, finished = job.due_at(), job.finished_at
        if due is not None and finished is not None and finished > due:
            self.end_failed(job, JobTimeout("running"))
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
        if self._tells_ends:
            self._instrumentation.cancelled(job, started)

    def _end_broken(self, job: ScheduledJob[Any], problem: BaseException) -> None:
        """End a job whose outcome could not be delivered, for a fault of ours; does nothing if it is over."""
        if job.done():
            return
        self._scheduler.remove(job, JobState.FAILED)  # it may have been set aside for another try
        job.state = JobState.FAILED
        error = JobError(f"the Director could not deliver the outcome of {job!r}: {describe(problem)}")
        set_cause(error, problem)
        self.end_failed(job, error)

    def _move(self, job: ScheduledJob[Any], state: JobState) -> tuple[bool, float | None] | None:
        """Move a job to its last state; `None` if it is in another one, for a signal handler has come before.

        Returns whether the slot that has it is to be told, and when it has started: asked once, as it may start now.
        """
        if is_inside := job.state is _RUNNING:
            job.state = state  # at once: a signal handler that comes after this finds it over, and leaves the rest
        elif job.state is not state:  # the scheduler has moved it already if it was waiting
            return None
        is_left, started = is_inside and job.finished_at is None, job.started_at
        if started is None:  # it never ran, and never will
            job.finished_at = self._now()
        return is_left, started

    def _clear(self, job: ScheduledJob[Any], is_left: bool, started: float | None) -> None:
        """Let go of what a job needed that has just ended. It is settled by now, whatever this may raise."""
        if started is None:
            job.drop_inputs()
        if is_left:
            job.location.runner.abandon(job)  # type: ignore[union-attr]  # what ran is in a slot
        if job.options.timed:
            self._timers.drop(job)
        if job.options.retries:
            self._retry_timers.drop(job)
        if self._idle.waiters:
            self._idle.check()
