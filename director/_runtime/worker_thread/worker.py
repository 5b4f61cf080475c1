"""A worker: runs jobs on its slot's thread, until it finds no more.

At the end of each job the worker asks `scheduler` for the next one itself; the event loop only gets the outcome.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from director._devices.device_errors import fault_of
from director._executors.base import LoadFailed, NeverStarted, NotSent, is_loss
from director._jobs.current import NO_REPLICA, here
from director._jobs.state import JobState
from director._runtime.worker_thread.batch_call import BatchCall
from director._system.forks import copied, leave_copy
from director._untrusted.objects import is_a, strip
from director.errors import JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director._device import Device
    from director._jobs.job import ScheduledJob
    from director._runtime.instrumentation import Instrumentation
    from director._runtime.job_lifecycle import JobLifecycle
    from director._runtime.loop_channel import LoopChannel, Post
    from director._runtime.worker_thread.room import Room
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import Slot
    from director._scheduler.wakeups import WakeCall

    NextWork: TypeAlias = Callable[[Slot], tuple[ScheduledJob[Any] | None, WakeCall]]

_RUNNING = JobState.RUNNING


class Worker:
    """The worker of one slot; the Director runs `run` on the slot's thread.

    Args:
        slot: Its slot, whose counters it alone writes.
        scheduler: Gives the jobs.
        loop_channel: Takes outcomes.
        instrumentation: Makes events; has the clock.
        job_lifecycle: Takes jobs that have started with a timeout, errors, and results of batches.
        lose: Called on the event loop with a slot whose device this process can't use any more, and the reason.
        room: Unloads models.
        guard: Returns what the worker calls instead of `Scheduler.next_work`. Its argument has to be called before a
            wait for the slot.
    """

    def __init__(
        self,
        slot: Slot,
        scheduler: Scheduler,
        loop_channel: LoopChannel,
        instrumentation: Instrumentation,
        job_lifecycle: JobLifecycle,
        lose: Callable[[Slot, str], None],
        room: Room,
        guard: Callable[[Callable[[], None]], NextWork],
    ) -> None:
        self._next_work = guard(self._note_wait)
        self._slot = slot
        self._scheduler = scheduler
        self._loop_channel = loop_channel
        self._instrumentation = instrumentation
        self._start_timer = job_lifecycle.timers.start  # these three are called on the event loop
        self._raised = job_lifecycle.handle_error
        self._returned = job_lifecycle.handle_batch
        self._lose = lose
        self._room = room
        self._time = instrumentation.time
        self._now = 0.0  # the end of the last job
        self._call = slot.runner.run
        self._is_watched = instrumentation.observing
        self._is_loading = False  # a model, before the call that needs it

    def run(self) -> None:
        """Run jobs until there has been none for `Scheduler.linger` seconds.

        Raises:
            NeverStarted: The runner can't start calls now; the last job has not begun, and returns to the queue.
        """
        here.running = self
        slot, next_work, run, loop_channel = self._slot, self._next_work, self._run, self._loop_channel
        self._now = self._time()
        has_posted = False
        while True:
            job, wake = next_work(slot)
            if slot.missed_deadline:
                self._post_late()
                has_posted = True
            # An outcome is delivered after the next job has been taken: a caller that submits another job in response
            # finds this slot WORKING or PARKED, and does not wake a second worker for nothing.
            if has_posted:
                has_posted = False  # or the next job, at its start, would wake the event loop for nothing
                if not loop_channel.ringing:
                    loop_channel.notify()
            if wake is not None:
                wake()
            if job is not None:
                if slot.batch is None:
                    loop_channel.entries.append(run(job))
                else:
                    loop_channel.entries.extend(self._run_batch(slot.batch))
                has_posted = True
                job = None  # nothing of it is kept alive while the worker waits
            elif slot.unloads:
                self._unload()
            elif not slot.wake_signal.acquire(timeout=self._scheduler.linger):
                if self._scheduler.leave(slot):
                    return
                slot.wake_signal.acquire()  # woken just before: `wake` is about to be called

    def _unload(self) -> None:
        """Unload what the scheduler has chosen, to make room."""
        unloads, self._slot.unloads = self._slot.unloads, []
        self._room.unload(self._slot, unloads)
        self._note_wait()

    def _note_wait(self) -> None:
        """On its thread, before a wait for the slot: the next job does not begin at the end of the last."""
        self._now = -math.inf

    def _run(self, job: ScheduledJob[Any]) -> Post:
        """Run a job; returns its outcome for the loop channel."""
        now = self._now  # the end of the job before it: saves a read of the clock, and times add up
        call, is_timed = self._call, job.options.timed
        if now < job.submitted_at or is_timed:
            now = self._time()
        began = now
        if is_timed or job.options.model is not None:
            failed = self._load([job])
            job.started_at = now = self._time()
            late = self._check_in_time(job) if is_timed else None
            if late is not None or job.state is not _RUNNING:
                self._slot.busy_seconds += now - began
                post = _never_begun(job, now) if late is None else (self._raised, (job, late))
                return self._end_unwanted([post], failed)[0]
            if failed is not None:
                call = partial(_fail, failed)
                del failed
        else:
            job.started_at = now
            if job.state is not _RUNNING:
                return _never_begun(job, now)
        if is_timed or self._is_watched:
            self._report_start(job, now)
        try:
            job.payload = call(job)
        except NeverStarted as error:
            return self._return([(self._raised, (job, error))], error)[0]
        except BaseException as error:  # noqa: BLE001 - all errors belong to the caller
            if copied:
                leave_copy(error)
            self._slot.lost += is_loss(error, self._slot.device) or is_a(error, LoadFailed)
            try:
                return self._raised, (job, self._owned(error))
            finally:
                self._note_end(job, began)
                del job, call  # the error's traceback refers to this frame
        if copied:
            leave_copy()
        # `_note_end`, inlined.
        ended = job.finished_at
        if ended is None:
            job.finished_at = ended = self._time()
        self._now = ended
        slot = self._slot
        slot.jobs = jobs = slot.jobs + 1
        slot.busy_seconds += ended - began
        if jobs >= slot.mark_at:
            slot.mark()
        return job

    def _note_end(self, job: ScheduledJob[Any], began: float) -> None:
        ended = job.finished_at  # set by a runner that knows when the call has ended
        if ended is None:
            job.finished_at = ended = self._time()
        self._now = ended
        slot = self._slot
        slot.jobs += 1
        slot.busy_seconds += ended - began
        if slot.jobs >= slot.mark_at:
            slot.mark()

    def _run_batch(self, jobs: list[ScheduledJob[Any]]) -> list[Post]:
        """Run jobs that share one call; returns their outcomes for the loop channel."""
        timed = [job.options for job in jobs if job.options.timed]
        has_limits = bool(timed)
        began = now = self._time()
        failed = None
        if has_limits or jobs[0].options.model is not None:
            failed = self._load(jobs)
            now = self._time()
        posts: list[Post] = []
        ready: list[ScheduledJob[Any]] = []
        are_timed = False
        for job in jobs:
            is_timed = has_limits and job.options.timed
            job.started_at = now
            if (job.state is _RUNNING and not is_timed) or self._is_ready(job, now, posts):
                ready.append(job)
                are_timed |= is_timed
        if not ready:
            self._slot.busy_seconds += now - began
            return self._end_unwanted(posts, failed)
        if self._is_watched or are_timed:
            for job in ready:
                self._report_start(job, now, len(ready))
        rule = ready[0].options.batch_rule
        assert rule is not None
        batch = BatchCall(self._slot.runner, rule, lambda: self._room.make_for_call(self._slot, rule.name))
        errors = batch.run(ready, failed)
        unable = [error for error in errors.values() if is_a(error, NeverStarted)]
        self._note_batch_end(len(ready) - len(unable), batch, began)
        if are_timed or batch.values is None:  # whether a deadline was kept is ours to say
            for job in ready:
                job.finished_at = self._now
        if batch.values is not None:
            # As one post, and the loop hands out: to touch each job takes time, and the device has nothing to do now.
            posts.append((self._returned, (ready, batch.values, self._now)))
        else:
            posts += self._failures(ready, errors) if errors else ready
        return self._return(posts, unable[0]) if unable else posts

    def _return(self, posts: list[Post], error: NeverStarted) -> list[Post]:
        """The runner can't start calls now: post, then end the worker, unless it has prefetched jobs."""
        strip(error)
        self._now = self._time()
        if self._slot.prefetched:
            return posts
        self._loop_channel.entries.extend(posts)
        self._loop_channel.notify()
        raise error

    def _end_unwanted(self, posts: list[Post], failed: BaseException | None) -> list[Post]:
        """The outcomes of jobs that have ended while their model was loaded, whose load has perhaps failed."""
        if failed is None:
            return posts
        if is_a(failed, NeverStarted):
            return self._return(posts, failed)
        self._slot.lost += is_loss(failed, self._slot.device) or is_a(failed, LoadFailed)
        self._owned(failed)
        return posts

    def _note_batch_end(self, count: int, batch: BatchCall, began: float) -> None:
        self._now = ended = self._time()
        slot = self._slot
        if (usage := slot.usage) is not None:
            usage.size, usage.is_typical = count, batch.is_typical and usage.is_typical
            usage.fits = None if batch.oom_fault is None else batch.largest_fit
        slot.jobs += count
        slot.busy_seconds += ended - began
        if slot.jobs >= slot.mark_at:
            slot.mark()

    def _failures(
        self, jobs: list[ScheduledJob[Any]], errors: dict[ScheduledJob[Any], BaseException]
    ) -> Iterator[Post]:
        """The outcomes of jobs, in their order, when some have failed."""
        owned: dict[int, BaseException] = {}  # an error that many share is stripped once
        for job in jobs:
            if (error := errors.get(job)) is None:
                yield job
                continue
            is_lost = is_loss(error, self._slot.device) and not is_a(error, NeverStarted)
            self._slot.lost += is_lost or is_a(error, LoadFailed)
            if id(error) not in owned:
                owned[id(error)] = self._owned(error)
            yield self._raised, (job, owned[id(error)])

    def _is_ready(self, job: ScheduledJob[Any], now: float, posts: list[Post]) -> bool:
        """Whether a job of a batch still has to run; posts its outcome if not."""
        if job.state is not _RUNNING:
            posts.append(_never_begun(job, now))
            return False
        if job.options.timed and (late := self._check_in_time(job)) is not None:
            posts.append((self._raised, (job, late)))
            return False
        return True

    def _check_in_time(self, job: ScheduledJob[Any]) -> JobTimeout | None:
        """The error of a job that must not begin any more, whose start was set just now and is taken back; else `None`.

        The event loop reads the clock first and then the start; the worker writes the start first and then reads the
        clock. So a job whose time is up for the event loop before it has a start is never called.
        """
        if (now := self._time()) < job.start_by():
            return None
        job.started_at = None
        return job.overdue(now)

    def _load(self, jobs: list[ScheduledJob[Any]]) -> BaseException | None:
        """Load the model of a call before the call begins; returns what that raised."""
        self._is_loading = True
        try:
            self._slot.runner.prepare(jobs)
        except NotSent:  # one of several jobs is the cause: the call finds out which
            return None
        except BaseException as error:  # noqa: BLE001 - raised again by the call, if that begins
            return error
        finally:
            self._is_loading = False
        return None

    def _post_late(self) -> None:
        """Post the jobs that were not taken, for their time was up, or too short for their deadlines."""
        now = self._time()
        for job in self._slot.missed_deadline:
            error = job.overdue(now) or JobTimeout("queued", "deadline", job.options.deadline)
            self._loop_channel.entries.append((self._raised, (job, error)))
        self._slot.missed_deadline = []  # last: each of them is always here or on its way

    def _report_start(self, job: ScheduledJob[Any], now: float, size: int = 1) -> None:
        """Report the start, after `started_at` was set."""
        if job.options.timeout is not None:  # the timer of its deadline is set since submission
            self._loop_channel.call(self._start_timer, job)
        if self._is_watched:
            self._instrumentation.started(job, self._slot, now, size)

    def _owned(self, error: BaseException) -> BaseException:
        """The caller's own error, without the frames of this package."""
        strip(error)
        if is_a(error, NeverStarted):
            return error
        cause = error
        if is_a(error, LoadFailed):
            cause = error.error
            strip(cause)
            self._fail_waiting(error)
        if (fault := fault_of(cause)) is None:
            return error
        if not self._slot.runner.recover(cause, fault):
            self._loop_channel.call(self._lose, self._slot, fault.reason)
        elif fault.kind == "memory" and cause is error and (job := self._slot.job) is not None and job.options.retries:
            self._room.make_for_call(self._slot, job.name)  # for the next attempt
        return error

    def _fail_waiting(self, failure: LoadFailed) -> None:
        """Fail the jobs that wait for a model which no slot has, or may still load, with the loader's error."""
        jobs: list[ScheduledJob[Any]] = []
        self._scheduler.fail_unloadable(jobs, failure.model)
        for job in jobs:
            self._loop_channel.call(self._raised, job, failure.error)

    # ---- `CurrentCall` of director._jobs.current

    def job(self) -> ScheduledJob[Any] | None:
        """The job that runs; of a batch the first."""
        return self._slot.job

    def jobs(self) -> list[ScheduledJob[Any]]:
        """All jobs that share the call that runs; none during a load, which other jobs need too."""
        return [] if self._is_loading else self._slot.current_jobs()

    def device(self) -> Device:
        """Its device."""
        return self._slot.device

    def replica(self) -> Any:
        """The replica of its model."""
        job = self._slot.job
        model = None if job is None else job.options.model
        return NO_REPLICA if model is None else self._slot.runner.replica(model)

    def time(self) -> float:
        """Seconds of the Director's clock."""
        return self._time()

    def report(self, progress: Any, told: Any) -> None:
        """Set `Job.progress` and call the hooks."""
        for job in self.jobs():
            job.reported = progress
            self._instrumentation.progressed(job, told)


def _fail(error: BaseException, _job: ScheduledJob[Any]) -> NoReturn:
    raise error


def _never_begun(job: ScheduledJob[Any], now: float) -> ScheduledJob[Any]:
    """A job that ended for its caller before its call began.

    The event loop writes the state first and then reads the start; the worker writes the start first and then reads
    the state. So a job that has never run for the event loop, which has dropped its arguments, is never called.
    """
    job.started_at = None
    if job.finished_at is None:
        job.finished_at = now
    return job
