"""The actor of a slot, and the calls that were sent to it. For the slot's thread.

Each call has a reference of its own, so Ray itself assigns the answer to the call, and raises for each call that was
lost with the actor. Each wait ends after `_POLL` seconds, because Ray's waits can't be woken.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from director._devices.footprints import LoadSize
from director._executors.ray.encoding import CallEncoder
from director._executors.ray.messages import (
    Answer,
    AnswerKind,
    SideMessage,
    SideMessageKind,
    decode_answer,
    decode_messages,
)
from director._executors.ray.payload import pack
from director._executors.remote.calls import CallState
from director._untrusted.objects import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._executors.ray.actor_handle import ActorHandle
    from director._executors.ray.cluster.reservation import Reservation
    from director._executors.ray.options import RayOptions
    from director._executors.ray.pending_call import RayCall
    from director._executors.remote.loaded_models import LoadedModels
    from director._jobs.job_runner import SlotInfo
    from director._jobs.model import Model

logger = logging.getLogger("director")
_POLL = 0.25  # seconds
_ENDING = 5.0  # seconds in which a killed actor is dead, and a ready value is fetched
_UNLOADING = 8.0  # seconds that a dismissed actor gets; the runtime waits two longer


class ActorLost(Exception):
    """The actor is dead, can't be killed, or can't be reached."""


class ActorClient:
    """Owns the actor of a slot, and replaces it when it is lost."""

    def __init__(
        self,
        slot: SlotInfo,
        models: LoadedModels,
        time: Callable[[], float],
        options: RayOptions,
        reservation: Reservation,
        log: Callable[[SideMessage], None],
    ) -> None:
        self._slot = slot
        self._options = options
        self._log = log
        self.reservation = reservation
        self.actor: ActorHandle | None = None  # read by other threads too
        self.in_flight: dict[int, RayCall] = {}  # by number: sent, and without an answer
        self._previous: ActorHandle | None = None  # the last one, if it is dead and not replaced yet
        self._messages: Any = None  # the reference of the next side messages
        self._received = 0  # side messages of the actor
        self._incarnation = 0  # actors that were ended
        self._count = 0  # calls that were sent
        self._checked_at = 0.0  # when the fleet has last asked whether the actor is dead; written by the fleet's thread
        self._models = models
        self.encoder = CallEncoder(slot.device, models, time)

    # ---- to the actor

    def send(self, call: RayCall) -> None:
        """Send a call.

        Raises:
            PicklingError: It can't be sent; the call is still QUEUED.
            ActorLost: The cluster is gone.
        """
        number = self._count = self._count + 1
        message = self.encoder.message(call, number)
        actor = self._present_actor()
        call.number = number  # from here on other threads may send requests for it
        self.in_flight[number] = call
        call.move(CallState.SENT)
        call.sent_at = time.monotonic()
        try:
            call.reference = actor.call(message)
        except Exception as error:
            raise ActorLost(describe(error)) from error

    def has(self, model: Model[Any] | None) -> bool:
        """Whether there is an actor, and it has loaded `model` if one is given."""
        return self.actor is not None and (model is None or self._models.has(model))

    def request(self, call: RayCall, what: int) -> None:
        """From any thread: withdraw or notify a call that is in flight; see `CallQueue.request`."""
        actor, number = self.actor, call.number
        if actor is not None and number in self.in_flight:
            actor.request(number, what)

    def _present_actor(self) -> ActorHandle:
        """The actor, started if there is none."""
        if self.actor is None:
            if self.reservation.is_disconnected:
                raise ActorLost("the cluster is gone")
            self.actor, self._previous = self.reservation.start_actor(self._previous), None
            self._messages, self._received = self.actor.next_messages(), 0
        return self.actor

    # ---- from the actor

    def wait(self, until: float) -> None:
        """Wait for an answer or a side message, until a time or for `_POLL` seconds, and handle it.

        Raises:
            ActorLost: The actor is dead, or has broken the protocol.
        """
        import ray

        if self.reservation.is_disconnected:
            raise ActorLost
        calls = {call.reference: call for call in self.in_flight.values()}
        left = min(_POLL, max(0.0, until - time.monotonic()))
        try:
            ready, _ = ray.wait([*calls, self._messages], num_returns=1, timeout=left)
        except Exception as error:
            raise ActorLost(describe(error)) from error
        for reference in ready:
            if (call := calls.get(reference)) is not None:
                self._accept_answer(call, self._fetch(reference))
            else:
                self._fetch_messages()

    def silent_actor(self, seconds: float) -> ActorHandle | None:
        """From the fleet's thread: the actor, if a call is in flight for more than `seconds`; once in that time."""
        now = time.monotonic()
        sent = min((call.sent_at for call in list(self.in_flight.values())), default=now)
        if now < max(sent, self._checked_at) + seconds:
            return None
        self._checked_at = now
        return self.actor

    def check(self, call: RayCall) -> None:
        """Kill the actor when the call's time is up.

        Raises:
            ActorLost: It can't be killed, or no answer can arrive.
        """
        if self.reservation.is_disconnected or self.actor is None or self.actor.is_dead:
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
    def _fetch(reference: Any) -> Any:
        """The value of a ready reference, or an exception of Ray that concerns this value only.

        Raises:
            ActorLost: The exception concerns the actor.
        """
        import ray

        try:
            return ray.get(reference, timeout=_ENDING)
        except Exception as error:  # noqa: BLE001 - Ray raises many kinds
            if is_loss(error):
                raise ActorLost(describe(error)) from None
            return error

    def _accept_answer(self, call: RayCall, found: Any) -> None:
        number = call.number
        call.read_at = time.monotonic()
        if isinstance(found, Exception):  # the object store is full, or the like
            answer = Answer(number, AnswerKind.UNSENDABLE, payload=pack(describe(found)))
        else:
            answer = decode_answer(found)
        if answer.number != number:
            raise ActorLost(f"the actor has answered {answer.number} for call {number}")
        while self._received < answer.sent_before:
            self._fetch_messages()
        self._accept_messages(answer.messages)
        if call.taken + len(call.values) != answer.values:
            raise ActorLost(f"values of the stream {number} are missing")
        del self.in_flight[number]
        if answer.kind == AnswerKind.WITHDRAWN:
            call.return_to_queue()
        else:
            call.answer = answer
            call.move(CallState.ENDED)

    def _fetch_messages(self) -> None:
        found = self._fetch(self._messages)
        if isinstance(found, Exception):
            raise ActorLost(describe(found))
        self._accept_messages(decode_messages(found))
        assert self.actor is not None
        self._messages = self.actor.next_messages()

    def _accept_messages(self, messages: tuple[SideMessage, ...] | list[SideMessage]) -> None:
        """Assign side messages to their calls; those of calls that have ended are dropped."""
        self._received += len(messages)
        for message in messages:
            if message.kind in (SideMessageKind.LOGGED, SideMessageKind.DROPPED):
                self._log(message)
            elif (call := self.in_flight.get(message.number)) is not None:
                call.begin()
                if message.kind == SideMessageKind.YIELDED:
                    call.values[message.position] = message.payload
                elif message.position > call.last_report:
                    call.last_report, call.progress = message.position, message.payload

    # ---- its state, and its end

    def note_answer(self, call: RayCall, answer: Answer) -> None:
        """Note what the actor has by the answer of a call."""
        for number, seconds, size in answer.loaded:
            self._models.note_loaded(number, seconds, None if size is None else LoadSize(*size))
        if answer.kind != AnswerKind.UNSENDABLE or answer.began:
            self.encoder.confirm(call)

    def recover(self, ends_at: float) -> object:
        """Replace the actor, which is lost. Calls that had begun are LOST; the others are QUEUED again.

        The new actor tells which calls had begun.

        Args:
            ends_at: When the call that runs is to be ended, which bounds the wait for the new actor.

        Returns:
            The incarnation that was lost.
        """
        incarnation = (self._slot.number, self._incarnation)
        lost = [*self.in_flight.values()]
        self.end_actor()
        for call in lost:
            if call.is_ending or call.is_unwanted:  # whether it had begun makes no difference
                call.begin()
        begun: tuple[int, ...] | None = ()
        if any(call.state is CallState.SENT for call in lost):
            begun = self._await_replacement(min(time.monotonic() + self._options.start_timeout, ends_at + _ENDING))
        self._settle(lost, begun, incarnation)
        return incarnation

    def replace(self) -> None:
        """End the actor, which can't use its device and begins no more calls."""
        incarnation = (self._slot.number, self._incarnation)
        lost = [*self.in_flight.values()]
        self.end_actor()
        self._settle(lost, (), incarnation)

    def _settle(self, lost: list[RayCall], begun: tuple[int, ...] | None, incarnation: object) -> None:
        """The calls of a lost actor are LOST, if they had `begun` or that is unknown (`None`); else QUEUED again."""
        self.in_flight = {}
        for call in lost:
            if begun is None or call.number in begun or call.state is CallState.BEGUN:
                call.lose(incarnation)
            else:
                call.return_to_queue()

    def end_actor(self) -> None:
        """Kill the actor; its models are lost."""
        if self.actor is not None:
            self.actor.kill()
            self._previous, self.actor = self.actor, None
            self._incarnation += 1
        self._messages = None
        self.encoder.reset()
        self._models.lose()

    def _await_replacement(self, until: float) -> tuple[int, ...] | None:
        """Start a new actor; returns the calls that had begun in the one before, `None` if it can't tell."""
        import ray

        reason = ""
        while not self.reservation.is_lost and not self.reservation.is_disconnected and time.monotonic() < until:
            reference = self._present_actor().last_begun()
            while not ray.wait([reference], timeout=_POLL)[0]:
                if self.reservation.is_lost or self.reservation.is_disconnected or time.monotonic() >= until:
                    return None
            try:
                begun: tuple[int, ...] = ray.get(reference, timeout=_ENDING)
                return begun
            except Exception as error:  # noqa: BLE001 - Ray raises many kinds for an actor that can't start
                if not reason:  # log it once
                    reason = describe(error)
                    label = self._slot.device.label
                    logger.warning("%s: no actor can be started in place of the dead one: %s", label, reason)
                self.end_actor()
                time.sleep(_POLL)
        return None

    def dismiss(self) -> None:
        """Have the actor unload everything, and end it."""
        import ray

        actor = self.actor
        if actor is not None and not self.reservation.is_disconnected:
            if not self.reservation.is_lost:
                with suppress(Exception):  # it is dead, or takes too long
                    self._accept_messages(decode_messages(ray.get(actor.shut_down(), timeout=_UNLOADING)))
            self.end_actor()


def is_loss(error: BaseException) -> bool:
    """Whether an exception of Ray means that the actor, its node or its connection is lost; else it concerns one call.

    A dead node shows as the death of an actor, as a placement group that was removed, or as an owner that has died. So
    each exception is a loss that is not known to concern one call. The exceptions of jobs are not raised by Ray: the
    actor returns them.
    """
    from ray import exceptions

    of_one_call = (
        exceptions.RayTaskError,  # the arguments could not be read there
        exceptions.RaySystemError,  # the answer could not be read here
        exceptions.ObjectStoreFullError,
        exceptions.OutOfDiskError,
        exceptions.UnserializableException,
        exceptions.OufOfBandObjectRefSerializationException,
    )
    return isinstance(error, exceptions.RayError) and not isinstance(error, of_one_call)
