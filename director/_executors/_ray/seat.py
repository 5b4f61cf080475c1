"""The driver's side of one slot: its thread sends each call to the slot's actor and waits for the answer.

Everything here is the slot's own thread's, but for `leave` and `abort`, which the event loop calls, and `hear`, which
the fleet's thread for notes does.
"""

from __future__ import annotations

import asyncio
import logging
import math
import pickle
import queue
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from director._core.beside import Beside
from director._core.states import JobState
from director._core.stream_call import StreamCall
from director._executors._base import LoadFailed, NotBegun
from director._executors._process import logs
from director._executors._process.board import Notice
from director._executors._process.call import Models
from director._executors._process.raised import error_of
from director._executors._process.references import describe
from director._executors._ray.ear import Ear
from director._executors._ray.errand import Errand
from director._executors._ray.letter import Call, Sender, unsendable
from director._executors._ray.pickling import loads
from director._executors._ray.wire import About, Answer, How, Word
from director._executors._replicas import bearable
from director.errors import WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._core.chronicle import Chronicle
    from director._core.job import Job
    from director._core.slot import Slot
    from director._core.supply import Supply
    from director._executors._ray.claim import Actor, Claim
    from director._executors._ray.fleet import Fleet
    from director._faults import Fault
    from director._models import Residency

logger = logging.getLogger("director")
_TRIES = 3  # actors that may end before they have begun a call: it is safe to send again then
_UNLOADING = 8.0  # seconds that a dismissed actor gets; the crew waits two longer
_ENDING = 5.0  # seconds in which an actor that was killed is gone
_GLANCE = 0.25  # seconds: Ray's own waits can't be woken
WINDOW = 4  # values of a stream that are made, and that nobody has taken yet
_LOOK = None  # what wakes the thread without saying anything


class ActorLost(Exception):
    """The actor has ended, or can't be reached."""


class RaySeat:
    """Makes the calls of a slot in an actor.

    Args:
        slot: Whose calls.
        residency: Is told what the actor has loaded.
        chronicle: Takes events and tells the time.
        fleet: Knows the device's claim, and whether its node is there.
    """

    def __init__(self, slot: Slot, residency: Residency, chronicle: Chronicle, fleet: Fleet) -> None:
        self._slot = slot
        self._device = slot.device
        self._residency = residency
        self._chronicle = chronicle
        self._fleet = fleet
        self._claim: Claim = fleet.claim_of(slot.device)
        self._actor: Actor | None = None
        self._life = ""  # of the actor that has answered last
        self._models = Models()
        self._loaded: set[int] = set()
        self._sender = Sender(self._device, self._models, chronicle.time)
        self._ear: Ear | None = None
        self._inbox: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        self._count = 0  # of calls
        self._errand: Errand | None = None

    def run(self, job: Job[Any]) -> Any:
        """Have the actor make the call; see `Seat.run`.

        Raises:
            PicklingError: The call, or what came of it, can't be sent.
            WorkerDied: The actor, or its node, was lost in the midst of the call.
            DeviceLost: The node was lost before the call had begun.
        """
        fn: Any = job._fn
        if isinstance(fn, Beside):
            return fn.run_beside(self._device, lambda call: self._make(Call([job], call, (), How.BARELY)))
        if isinstance(fn, StreamCall):
            return self._make(Call([job], fn.func, job._cargo, How.AS_STREAM))
        return self._make(Call([job], fn, job._cargo))

    def run_batch(self, jobs: list[Job[Any]]) -> Any:
        """Have the actor make one call for all of them; see `run`."""
        return self._make(Call(jobs, jobs[0]._fn, tuple(job._cargo[0] for job in jobs), How.AS_BATCH))

    def recover(self, _error: BaseException, _fault: Fault) -> bool:
        """It is done by now: an actor has freed its memory itself, one that can't use its device any more is gone."""
        return True

    def close(self) -> None:
        """Let the actor unload its models, and end it."""
        actor, self._actor = self._actor, None
        if actor is None:
            return
        if not self._claim.is_lost:
            with suppress(Exception):  # it has ended, or takes too long
                for number, content in actor.farewell().future().result(_UNLOADING):
                    self.hear(number, loads(content))
        actor.kill(for_good=True)
        self._be_replaced("")

    def supply(self, supply: Supply) -> None:
        """It takes no jobs ahead of their turn yet."""

    def recall(self) -> None:
        """It holds none."""

    def leave(self, job: Job[Any]) -> None:
        """On the event loop: nobody waits any more for `job`, which runs here.

        When that is so for all that share the call, it is told; if a timeout has passed, its actor is ended.
        """
        errand, actor = self._errand, self._actor
        if errand is None or job not in errand.jobs or any(mate._stage is JobState.RUNNING for mate in errand.jobs):
            return
        is_cancelled = any(mate._stage is JobState.CANCELLED for mate in errand.jobs)
        if actor is not None:
            actor.notice(errand.number, Notice.CANCELLED if is_cancelled else Notice.TIME_IS_UP)
        ends = [end for mate in errand.jobs if (end := _end_of(mate)) is not None]
        if ends:
            left = max(ends) - self._chronicle.time()  # a deadline may have passed before
            errand.end(time.monotonic() + max(0.0, left) + self._fleet.terms.grace)
            self._inbox.put(_LOOK)

    def abort(self) -> bool:
        """On the event loop: end the call that runs; False if there is none that could be ended."""
        errand = self._errand
        if errand is None:
            return False
        errand.end(time.monotonic())
        self._inbox.put(_LOOK)
        return True

    # ---- one call

    def _make(self, call: Call) -> Any:
        for tries_left in reversed(range(_TRIES)):
            if self._claim.is_lost:
                raise NotBegun(self._device)
            self._count += 1
            errand = self._errand = Errand(call, self._count)
            try:
                answer = self._run_stream(errand) if call.how == How.AS_STREAM else self._run_call(errand)
                if answer.word != Word.STRANGER:
                    return self._result(errand, answer)
                self._be_replaced(answer.life)
            except ActorLost:
                begun = self._last_begun(errand)  # as the actor tells that Ray has started in its place
                if begun is None or begun >= errand.number or not tries_left:
                    raise WorkerDied(None, self._device) from None
            finally:
                self._errand = None
        raise WorkerDied(None, self._device)

    def _run_call(self, errand: Errand) -> Answer:
        """Send a call and wait for its end."""
        actor = self._present_actor()
        if all(job._stage is not JobState.RUNNING for job in errand.jobs):  # before we could be told
            raise asyncio.CancelledError
        letter = self._sender.letter(errand.call, errand.number)
        try:
            reference = actor.call(letter, errand.call.args)
        except (TypeError, pickle.PicklingError) as error:
            raise unsendable(errand.call.words(), error) from error
        self._post_when_done(errand.number, reference)
        while True:
            future = self._await(errand, actor)
            if future is not None:
                return self._opened(errand, future.result)

    def _run_stream(self, errand: Errand) -> Answer:
        """Have a generator run, and hand its values over as they come."""
        import ray

        actor = self._present_actor()
        letter = self._sender.letter(errand.call, errand.number)
        try:
            values = actor.stream(letter, errand.call.args, WINDOW)
        except (TypeError, pickle.PicklingError) as error:
            raise unsendable(errand.call.words(), error) from error
        while True:
            ready, _ = ray.wait([values], timeout=min(_GLANCE, max(0.0, errand.ends_at - time.monotonic())))
            if not ready:
                self._end_if_due(errand, actor)
                continue
            answer = self._opened(errand, lambda: ray.get(next(values)))
            if answer.word != Word.YIELDED:
                return answer
            self._hand_over(errand, actor, answer)

    def _hand_over(self, errand: Errand, actor: Actor, answer: Answer) -> None:
        """Give a value of a stream to its reader, who may have left or be too slow: the actor then ends the stream."""
        stream: Any = errand.jobs[0]._fn
        if errand.refusal is None and isinstance(stream, StreamCall):
            try:
                stream.bridge.put(answer.value)
            except BaseException as refusal:  # noqa: BLE001 - raised when the stream has ended
                errand.refusal = refusal
                actor.notice(errand.number, Notice.CANCELLED)

    def _await(self, errand: Errand, actor: Actor) -> Any:
        """The answer of the call that runs, as a future; `None` if there was something else."""
        left = errand.ends_at - time.monotonic()
        try:
            post = self._inbox.get(timeout=None if left == math.inf else max(0.0, left))
        except queue.Empty:
            post = _LOOK
        self._end_if_due(errand, actor)
        return post[1] if post is not None and post[0] == errand.number else None

    def _end_if_due(self, errand: Errand, actor: Actor) -> None:
        """End the actor, and what it does, when its time has come; then it has a while to be gone.

        Raises:
            ActorLost: It is not gone.
        """
        now = time.monotonic()
        if now < errand.ends_at:
            return
        if errand.is_ended:
            raise ActorLost
        errand.is_ended = True
        errand.ends_at = now + _ENDING
        actor.kill(for_good=False)

    def _opened(self, errand: Errand, read: Callable[[], Any]) -> Answer:
        """An answer, with Ray's errors as ours.

        Raises:
            ActorLost: The actor has ended.
            PicklingError: The arguments, or what came of the call, could not be sent.
        """
        from ray.exceptions import RayActorError, RayError, RayTaskError

        try:
            return Answer(*read())
        except (RayActorError, StopIteration) as error:
            raise ActorLost(describe(error)) from None
        except RayTaskError as error:  # our own code there raises nothing: Ray could not (un)pickle something
            raise unsendable(f"the arguments or the result of {errand.jobs[0].name}", error) from error
        except RayError as error:
            raise unsendable(f"the result of {errand.jobs[0].name}", error) from error

    def _result(self, errand: Errand, answer: Answer) -> Any:
        if answer.life != self._life and answer.word != Word.WITHDRAWN:
            self._be_replaced(answer.life)
        self._note_loaded(answer.loaded)
        self._sender.introduced(errand.call)
        self._note_progress(errand, answer.progress)
        if errand.refusal is not None:
            raise errand.refusal
        if answer.word == Word.RETURNED:
            return answer.value
        (error, fault), model = error_of(answer.value, self._device.label), errand.jobs[0]._options.model
        if fault is not None and fault.kind == "sticky" and self._actor is not None:
            self._actor.kill(for_good=False)  # it can't use its device any more; Ray starts another one
            self._be_replaced("")
        if answer.word == Word.NOT_LOADED and model is not None:
            self._chronicle.not_loaded(model, self._device, error)
            raise LoadFailed(model, bearable(model, error))
        raise error

    # ---- what is heard beside answers

    def _post_when_done(self, number: int, reference: Any) -> None:
        reference.future().add_done_callback(lambda future: self._inbox.put((number, future)))

    def hear(self, number: int, content: Any) -> None:
        """On the thread that listens: something that the actor tells beside its answers."""
        if not number:
            logs.relay(content, self._device.label)
        elif number < 0:
            logger.warning("%s had more to log than could be sent: %d records are lost", self._device.label, content)
        elif (errand := self._errand) is not None and errand.number == number:
            self._note_progress(errand, content)

    def _note_progress(self, errand: Errand, told: tuple[int, Any] | None) -> None:
        """Told twice, as it comes and with the answer, for either may be first."""
        if told is None or not errand.is_news(told[0]):
            return
        for job in errand.jobs:
            job._progress = told[1]
            if self._chronicle.listening:
                self._chronicle.progressed(job, told[1])

    def _note_loaded(self, loaded: tuple[tuple[int, float], ...]) -> None:
        for number, seconds in loaded:
            self._loaded.add(number)
            model = self._models.by_number(number)
            self._residency.add(model, self._slot)
            self._slot.note_load(seconds)
            self._chronicle.loaded(model, self._device, seconds)

    # ---- the actor

    def _present_actor(self) -> Actor:
        if self._actor is None:
            self._actor = self._claim.hire()
            self._ear = Ear(self._actor, self.hear, self._fleet.aside)
        assert self._ear is not None
        self._ear.listen()
        return self._actor

    def _last_begun(self, errand: Errand) -> int | None:
        """Wait for the actor that Ray starts in the place of a lost one; the last call that had begun there.

        Returns:
            `None` if none comes.
        """
        self._be_replaced("")
        actor, until = self._actor, time.monotonic() + self._fleet.terms.patience
        assert actor is not None
        while not self._claim.is_lost and time.monotonic() < min(until, errand.ends_at + _ENDING):
            with suppress(Exception):  # whatever Ray says of an actor that is not there yet
                return About(*actor.about().future().result(_GLANCE)).begun
            time.sleep(_GLANCE / 5)  # Ray answers at once while it knows of no other
        return None

    def _be_replaced(self, life: str) -> None:
        """The actor that was here is gone, and everything that it had loaded."""
        self._life = life
        self._sender.forget()
        for number in self._loaded:
            model = self._models.by_number(number)
            self._residency.remove(model, self._slot)
            self._chronicle.unloaded(model, self._device)
        self._loaded.clear()


def _end_of(job: Job[Any]) -> float | None:
    """The moment at which the timeout of a job has passed; `None` if nothing says when its call must end."""
    timeout = job._options.timeout
    if timeout is None or job._started is None or job._stage is JobState.CANCELLED:
        return None
    return job._started + timeout
