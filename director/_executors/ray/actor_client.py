"""A slot's side of its actor: sends calls, files what comes back under the number of its call. The slot's thread's.

Each call has a reference of its own, so that Ray itself binds the answer to the call, and tells of each call that was
lost with the actor. Every wait here ends after a glance, whatever the other side does.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from director._executors.process.encoding import ModelNumbers
from director._executors.ray.encoding import CallEncoder
from director._executors.ray.messages import Answer, AnswerKind, Note, NoteKind, decode_answer, decode_notes
from director._executors.ray.payload import pack
from director._executors.remote.runner import CallState
from director._untrusted.objects import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._executors.ray.allocation import Actor, Reservation
    from director._executors.ray.pending_call import RayCall
    from director._executors.ray.terms import RayTerms
    from director._jobs.job_runner import SlotInfo
    from director._jobs.runner import RunnerEvents

logger = logging.getLogger("director")
_GLANCE = 0.25  # seconds: Ray's own waits can't be woken
_ENDING = 5.0  # seconds in which an actor that was killed is gone, and what is ready is here
_UNLOADING = 8.0  # seconds that a dismissed actor gets; the runtime waits two longer


class ActorLost(Exception):
    """The actor has ended, does not end, or can't be reached."""


class ActorClient:
    """Holds the actor of a slot, and those that come in its place.

    Args:
        slot: Whose.
        events: Is told what the actor has loaded, and tells the time.
        terms: Of all actors.
        claim: What is held for the device.
        log: Takes log records, and the number of those that were dropped.
    """

    def __init__(
        self,
        slot: SlotInfo,
        events: RunnerEvents,
        terms: RayTerms,
        claim: Reservation,
        log: Callable[[Note], None],
    ) -> None:
        self._slot = slot
        self._events = events
        self._terms = terms
        self._log = log
        self.claim = claim
        self.actor: Actor | None = None  # read by other threads too
        self.in_flight: dict[int, RayCall] = {}  # sent, and their answers are not here
        self._former: Actor | None = None  # the last one, if it is gone and has no successor yet
        self._notes: Any = None  # the reference of the next ones
        self._told = 0  # notes that the actor has told
        self._lives = 0  # actors that are gone
        self._count = 0  # calls that were sent
        self._asked_at = 0.0  # when the fleet has last looked whether the actor is there; the fleet's thread's
        self._models = ModelNumbers()
        self._loaded: set[int] = set()
        self.encoder = CallEncoder(slot.device, self._models, events.time)

    # ---- to the actor

    def send(self, call: RayCall) -> None:
        """Send a call, under a number of its own.

        Raises:
            PicklingError: It can't be sent; nothing has happened.
            ActorLost: The cluster is gone.
        """
        number = self._count = self._count + 1
        message = self.encoder.message(call, number)
        actor = self._present()
        call.number = number  # from here on other threads may speak of it
        self.in_flight[number] = call
        call.move(CallState.SENT)
        call.sent_at = time.monotonic()
        try:
            call.reference = actor.call(message)
        except Exception as error:
            raise ActorLost(describe(error)) from error

    def request(self, call: RayCall, what: int) -> None:
        """From any thread: say something about a call that is on its way."""
        actor, number = self.actor, call.number
        if actor is not None and number in self.in_flight:
            actor.request(number, what)

    def _present(self) -> Actor:
        if self.actor is None:
            if self.claim.is_cut:
                raise ActorLost("the cluster is gone")
            self.actor, self._former = self.claim.hire(self._former), None
            self._notes, self._told = self.actor.listen(), 0
        return self.actor

    # ---- from the actor

    def wait(self, until: float) -> None:
        """Wait for something, at most until a time or for a glance, and file what has come.

        Raises:
            ActorLost: The actor has ended, or has broken a rule of the wire.
        """
        import ray

        if self.claim.is_cut:
            raise ActorLost
        calls = {call.reference: call for call in self.in_flight.values()}
        left = min(_GLANCE, max(0.0, until - time.monotonic()))
        try:
            ready, _ = ray.wait([*calls, self._notes], num_returns=1, timeout=left)
        except Exception as error:
            raise ActorLost(describe(error)) from error
        for reference in ready:
            if (call := calls.get(reference)) is not None:
                self._file(call, self._fetched(reference))
            else:
                self._fetch_notes()

    def silent_actor(self, seconds: float) -> Actor | None:
        """From any thread: the actor, if it was asked for something more than so many seconds ago, for each of them.

        It is asked for once in that time.
        """
        now = time.monotonic()
        sent = min((call.sent_at for call in list(self.in_flight.values())), default=now)
        if now < max(sent, self._asked_at) + seconds:
            return None
        self._asked_at = now
        return self.actor

    def check(self, call: RayCall) -> None:
        """End the actor, and what it does, when its time has come.

        Raises:
            ActorLost: It does not end, or what was found elsewhere says that no answer will come.
        """
        if self.claim.is_cut or self.actor is None or self.actor.is_dead:
            raise ActorLost
        now = time.monotonic()
        if now < call.ends_at:
            return
        if call.is_ending:
            raise ActorLost
        call.is_ending = True
        call.ends_at = now + _ENDING
        self.actor.kill()

    @staticmethod
    def _fetched(reference: Any) -> Any:
        """What a reference that is ready stands for, or an exception of Ray's that concerns nothing else.

        Raises:
            ActorLost: Ray says so.
        """
        import ray

        try:
            return ray.get(reference, timeout=_ENDING)
        except Exception as error:  # noqa: BLE001 - all that Ray raises
            if is_loss(error):
                raise ActorLost(describe(error)) from None
            return error

    def _file(self, call: RayCall, found: Any) -> None:
        number = call.number
        call.read_at = time.monotonic()
        if isinstance(found, Exception):  # the object store is full, or the like
            answer = Answer(number, AnswerKind.UNSENDABLE, payload=pack(describe(found)))
        else:
            answer = decode_answer(found)
        if answer.number != number:
            raise ActorLost(f"the actor has answered {answer.number} for call {number}")
        while self._told < answer.told:  # they were sent before the answer
            self._fetch_notes()
        self._hear(answer.notes)
        if call.taken + len(call.values) != answer.values:
            raise ActorLost(f"values of the stream {number} are missing")
        del self.in_flight[number]
        if answer.kind == AnswerKind.WITHDRAWN:
            call.return_to_queue()
        else:
            call.answer = answer
            call.move(CallState.ENDED)

    def _fetch_notes(self) -> None:
        found = self._fetched(self._notes)
        if isinstance(found, Exception):
            raise ActorLost(describe(found))
        self._hear(decode_notes(found))
        assert self.actor is not None
        self._notes = self.actor.listen()

    def _hear(self, notes: tuple[Note, ...] | list[Note]) -> None:
        """File notes under their calls; those of calls that are over are dropped."""
        self._told += len(notes)
        for note in notes:
            if note.kind in (NoteKind.LOGGED, NoteKind.DROPPED):
                self._log(note)
            elif (call := self.in_flight.get(note.number)) is not None:
                call.begin()
                if note.kind == NoteKind.YIELDED:
                    call.values[note.place] = note.payload
                elif note.place > call.heard:
                    call.heard, call.progress = note.place, note.payload

    # ---- who it is

    def learn(self, call: RayCall, answer: Answer) -> None:
        """From the answer of a call: what is loaded now."""
        for number, seconds in answer.loaded:
            self._loaded.add(number)
            model = self._models.by_number(number)
            self._events.loaded(model, self._slot, seconds)
        if answer.kind != AnswerKind.UNSENDABLE or answer.began:
            self.encoder.introduced(call)

    def recover(self, ends_at: float) -> object:
        """The actor is lost: have another one, and see which of the calls that were sent had begun.

        Those are LOST; the others are QUEUED again.

        Args:
            ends_at: When to wait no longer.

        Returns:
            Which life of the slot's actors was lost.
        """
        life = (self._slot.number, self._lives)
        lost = [*self.in_flight.values()]
        self.give_up()
        for call in lost:
            if call.is_ending or call.is_unwanted:  # nothing depends on whether it had begun
                call.begin()
        begun: tuple[int, ...] | None = ()
        if any(call.state is CallState.SENT for call in lost):
            begun = self._await_successor(min(time.monotonic() + self._terms.start_timeout, ends_at + _ENDING))
        self._sort(lost, begun, life)
        return life

    def replace(self) -> None:
        """End an actor that begins nothing more, for it can't use its device."""
        life = (self._slot.number, self._lives)
        lost = [*self.in_flight.values()]
        self.give_up()
        self._sort(lost, (), life)

    def _sort(self, lost: list[RayCall], begun: tuple[int, ...] | None, life: object) -> None:
        self.in_flight = {}
        for call in lost:
            if begun is None or call.number in begun or call.state is CallState.BEGUN:
                call.lose(life)
            else:
                call.return_to_queue()

    def give_up(self) -> None:
        """End the actor; everything that it had loaded goes with it."""
        if self.actor is not None:
            self.actor.kill()
            self._former, self.actor = self.actor, None
            self._lives += 1
        self._notes = None
        self.encoder.forget()
        for number in self._loaded:
            model = self._models.by_number(number)
            self._events.unloaded(model, self._slot)
        self._loaded.clear()

    def _await_successor(self, until: float) -> tuple[int, ...] | None:
        """The calls that have begun in the actor that is gone; `None` if that can't be found out."""
        import ray

        reason = ""
        while not self.claim.is_lost and not self.claim.is_cut and time.monotonic() < until:
            asked = self._present().begun()
            while not ray.wait([asked], timeout=_GLANCE)[0]:
                if self.claim.is_lost or self.claim.is_cut or time.monotonic() >= until:
                    return None
            try:
                begun: tuple[int, ...] = ray.get(asked, timeout=_ENDING)
                return begun
            except Exception as error:  # noqa: BLE001 - whatever Ray says of an actor that could not start
                if not reason:  # for each death once
                    reason = describe(error)
                    label = self._slot.device.label
                    logger.warning("%s: no actor can be started in place of the one that is gone: %s", label, reason)
                self.give_up()
                time.sleep(_GLANCE)
        return None

    def dismiss(self) -> None:
        """Let the actor unload everything, and end it."""
        import ray

        actor = self.actor
        if actor is not None and not self.claim.is_cut:
            if not self.claim.is_lost:
                with suppress(Exception):  # it has ended, or takes too long
                    self._hear(decode_notes(ray.get(actor.farewell(), timeout=_UNLOADING)))
            self.give_up()


def is_loss(error: BaseException) -> bool:
    """Whether Ray says that the actor, its node or the way to it is lost; else it could not carry this one call.

    A node that dies shows itself in many ways: as an actor's death, as a placement group that was removed, as an owner
    that is gone. So all is a loss that is not known to belong to the call. What a job raises never comes as an error of
    Ray's, whatever its class.
    """
    from ray import exceptions

    own = (
        exceptions.RayTaskError,  # our own code there raises nothing
        exceptions.RaySystemError,  # nor this process the answer
        exceptions.ObjectStoreFullError,
        exceptions.OutOfDiskError,
        exceptions.UnserializableException,
        exceptions.OufOfBandObjectRefSerializationException,
    )
    return isinstance(error, exceptions.RayError) and not isinstance(error, own)
