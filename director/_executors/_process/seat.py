"""The parent's side of one slot: its thread sends each call to the slot's child and waits for the answer.

Everything here is the slot's own thread's, but for `leave` and `abort`, which the event loop calls.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import time
from types import FunctionType
from typing import TYPE_CHECKING, Any

from director._core.states import JobState
from director._executors._base import LoadFailed
from director._executors._process import logs, program
from director._executors._process.board import Notice
from director._executors._process.call import Call, Models
from director._executors._process.child import Child, ChildGone
from director._executors._process.errand import Errand
from director._executors._process.faults import error_of
from director._executors._process.ladder import Ladder, Lost
from director._executors._process.references import describe
from director._executors._process.wire import NOBODY, UNNUMBERED, Answer, Ask, Tell
from director._executors._replicas import bearable
from director.errors import WorkerDied

if TYPE_CHECKING:
    from director._core.chronicle import Chronicle
    from director._core.job import Job
    from director._core.slot import Slot
    from director._executors._process.executor import ProcessExecutor
    from director._models import Residency

logger = logging.getLogger("director")
_TRIES = 3  # children that may end before they have taken a call; it has not begun then, and is safe to send again
_UNLOADING = 8.0  # seconds that a dismissed child gets before it is told to end; the crew waits two longer
_FINAL = frozenset({Tell.RETURNED, Tell.RAISED, Tell.NOT_LOADED})


class ProcessSeat:
    """Makes the calls of a slot in a child, which is started when there is one to make.

    Args:
        slot: Whose calls.
        residency: Is told what the child has loaded.
        chronicle: Takes events and tells the time.
        terms: Of all children.
    """

    def __init__(self, slot: Slot, residency: Residency, chronicle: Chronicle, terms: ProcessExecutor) -> None:
        self._slot = slot
        self._device = slot.device
        self._residency = residency
        self._chronicle = chronicle
        self._terms = terms
        self._is_prompt = program.origin() is None
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._child: Child | None = None
        self._errand: Errand | None = None
        self._models = Models()

    def run(self, job: Job[Any]) -> Any:
        """Have the child make the call; see `Seat.run`.

        Raises:
            PicklingError: The call, or what came of it, can't be sent.
            WorkerDied: The child ended in the midst of the call.
        """
        fn: Any = job._fn
        if type(fn) is not FunctionType and hasattr(fn, "run_beside"):
            return fn.run_beside(self._device, lambda call: self._make(Call([job], call, (), is_bare=True)))
        return self._make(Call([job], fn, job._cargo))

    def run_batch(self, jobs: list[Job[Any]]) -> Any:
        """Have the child make one call for all of them; see `Seat.run_batch`.

        Raises:
            PicklingError: The call, or what came of it, can't be sent.
            WorkerDied: The child ended in the midst of the call.
        """
        return self._make(Call(jobs, jobs[0]._fn, ([job._cargo[0] for job in jobs],)))

    def close(self) -> None:
        """Let the child unload its models and end."""
        if self._child is not None:
            self._dismiss(self._child)

    def leave(self, job: Job[Any]) -> None:
        """On the event loop: nobody waits any more for `job`, which runs here.

        When that is so for all that share the call, it is told; if a timeout has passed, it is ended.
        """
        errand = self._errand
        if errand is None or job not in errand.jobs or any(mate._stage is JobState.RUNNING for mate in errand.jobs):
            return
        is_cancelled = any(mate._stage is JobState.CANCELLED for mate in errand.jobs)
        errand.notify(Notice.CANCELLED if is_cancelled else Notice.TIME_IS_UP)
        ends = [end for mate in errand.jobs if (end := _end_of(mate)) is not None]
        if ends:
            left = max(ends) - self._chronicle.time()  # a deadline may have passed before
            grace = self._terms.grace
            errand.end(time.monotonic() + max(0.0, left) + grace, grace)
            os.eventfd_write(self._bell, 1)

    def abort(self) -> bool:
        """On the event loop: end the call that runs; False if there is none that could be ended."""
        errand = self._errand
        if errand is None:
            return False
        errand.end(time.monotonic(), self._terms.grace)
        os.eventfd_write(self._bell, 1)
        return True

    def __del__(self) -> None:
        # Not in `close`: the event loop may be about to ring.
        if hasattr(self, "_bell"):
            os.close(self._bell)

    # ---- one call

    def _make(self, call: Call) -> Any:
        jobs = call.jobs
        for tries_left in reversed(range(_TRIES)):
            child = self._present_child()
            errand = self._errand = Errand(jobs, child)
            try:
                if all(job._stage is not JobState.RUNNING for job in jobs):  # before we could be told
                    raise asyncio.CancelledError
                call.send(child, self._models, self._is_prompt)
                value = self._outcome(errand)
                call.introduced(child)
                return value
            except (ChildGone, Lost):
                has_begun = child.has_taken()
                code = self._bury(child)
                if has_begun or not tries_left:
                    raise WorkerDied(code, self._device) from None
            finally:
                self._errand = None
        raise AssertionError("unreachable")

    def _outcome(self, errand: Errand) -> Any:
        """Wait for the end of the call, and take note of what comes before it."""
        child = errand.child
        while True:
            answer = child.answer(errand.patience())
            if answer is None:
                errand.hurry()
            elif answer.kind not in _FINAL:
                self._note(child, errand.jobs, answer)
            elif answer.number == errand.number:
                return self._result(child, errand.jobs[0], answer)

    def _result(self, child: Child, job: Job[Any], answer: Answer) -> Any:
        try:
            content = child.content(answer)
        except Exception as refusal:
            what = "result" if answer.kind == Tell.RETURNED else "exception"
            raise pickle.PicklingError(f"the {what} of {job.name} can't be unpickled: {describe(refusal)}") from refusal
        if answer.kind == Tell.RETURNED:
            return content
        error, model = error_of(content, self._device.label), job._options.model
        if answer.kind == Tell.NOT_LOADED and model is not None:
            self._chronicle.not_loaded(model, self._device, error)
            raise LoadFailed(model, bearable(model, error))
        raise error

    def _note(self, child: Child, jobs: list[Job[Any]], answer: Answer) -> None:
        """Take in what a child says beside its outcomes; it must not harm the call that runs."""
        try:
            content = child.content(answer)
            if answer.kind == Tell.READY:
                child.is_ready = True
            elif answer.kind == Tell.LOGGED:
                logs.relay(content, self._device.label)
            elif answer.kind == Tell.LOADED:
                self._note_loaded(child, *content)
            else:
                self._note_progress(jobs, content)
        except Exception:
            logger.exception("what the process of %s says can't be understood", self._device.label)

    def _note_loaded(self, child: Child, number: int, seconds: float) -> None:
        child.loaded.add(number)
        model = self._models.by_number(number)
        self._residency.add(model, self._slot)
        self._chronicle.loaded(model, self._device, seconds)

    def _note_progress(self, jobs: list[Job[Any]], progress: Any) -> None:
        for job in jobs:
            job._progress = progress
            if self._chronicle.listening:
                self._chronicle.progressed(job, progress)

    # ---- the child

    def _present_child(self) -> Child:
        child = self._child
        most = self._terms.max_jobs_per_worker
        if child is not None and most is not None and child.calls >= most:
            self._dismiss(child)
        if self._child is None:
            self._child = Child(self._device, self._bell)
        return self._child

    def _dismiss(self, child: Child) -> None:
        ladder = Ladder(self._terms.grace)
        ladder.begin(time.monotonic() + _UNLOADING)
        try:
            child.ask(Ask.GO, UNNUMBERED, UNNUMBERED, NOBODY, None)
            while True:
                answer = child.answer(ladder.patience(time.monotonic()))
                if answer is not None:
                    self._note(child, [], answer)
                ladder.climb(time.monotonic(), child.signal)
        except (ChildGone, Lost):
            self._bury(child)

    def _bury(self, child: Child) -> int | None:
        """The child is gone, and everything that it had loaded."""
        self._child = None
        for number in child.loaded:
            model = self._models.by_number(number)
            self._residency.remove(model, self._slot)
            self._chronicle.unloaded(model, self._device)
        return child.bury()


def _end_of(job: Job[Any]) -> float | None:
    """The moment at which the timeout of a job has passed; `None` if nothing says when its call must end."""
    timeout = job._options.timeout
    if timeout is None or job._started is None or job._stage is JobState.CANCELLED:
        return None
    return job._started + timeout
