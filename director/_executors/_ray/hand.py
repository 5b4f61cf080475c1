"""A slot's hold on its actor: what is sent to it, what comes back, who it is. The slot's thread's.

What comes of a letter is filed in the inbox, or had in Ray's own wait.
"""

from __future__ import annotations

import logging
import math
import pickle
import time
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from director._executors._process.call import ModelNumbers
from director._executors._process.references import describe
from director._executors._ray.ear import Ear
from director._executors._ray.errand import Errand
from director._executors._ray.inbox import ActorLost, Inbox, is_loss, opened
from director._executors._ray.letter import Sender, unsendable
from director._executors._ray.pickling import loads
from director._executors._ray.reply import apart
from director._executors._ray.wire import About

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._core.chronicle import Chronicle
    from director._core.slot import Slot
    from director._executors._ray.claim import Actor
    from director._executors._ray.fleet import Fleet
    from director._executors._ray.letter import Call
    from director._executors._ray.wire import Answer
    from director._models import Residency

logger = logging.getLogger("director")
_UNLOADING = 8.0  # seconds that a dismissed actor gets; the crew waits two longer
_ENDING = 5.0  # seconds in which an actor that was killed is gone
_GLANCE = 0.25  # seconds: Ray's own waits can't be woken
_WINDOW = 4  # values of a stream that are made, and that nobody has taken yet


class Hand:
    """Holds the actor of a slot, and those that Ray starts in its place.

    Args:
        slot: Whose.
        residency: Is told what the actor has loaded.
        chronicle: Takes events and tells the time.
        fleet: Knows the device's claim.
        hear: Takes what the actor tells beside its answers: the number of a call, and the content; on another thread.
    """

    def __init__(
        self, slot: Slot, residency: Residency, chronicle: Chronicle, fleet: Fleet, hear: Callable[[int, Any], None]
    ) -> None:
        self._slot = slot
        self._residency = residency
        self._chronicle = chronicle
        self._fleet = fleet
        self._hear = hear
        self.claim = fleet.claim_of(slot.device)
        self.actor: Actor | None = None
        self.life = ""  # of the actor that has answered last; empty if that is gone
        self._ear: Ear | None = None
        self._models = ModelNumbers()
        self._loaded: set[int] = set()
        self._sender = Sender(slot.device, self._models, chronicle.time)
        self.inbox = Inbox()
        self._count = 0
        self._may_block = fleet.is_driver  # a worker of Ray's that waits in Ray is taken to be at rest

    # ---- to the actor

    def errand(self, call: Call) -> Errand:
        """The next call, with its number."""
        self._count += 1
        return Errand(call, self._count)

    def post(self, errands: list[Errand], *, is_handed: bool = False) -> None:
        """Send calls, all in one letter.

        Args:
            errands: The calls.
            is_handed: Past Ray's queue, to be gone on with; else they wait in it.

        Raises:
            PicklingError: One of them can't be sent.
        """
        letter = pickle.dumps([self._sender.head(errand.call, errand.number, self.life) for errand in errands])
        args = tuple(chain.from_iterable(errand.call.args for errand in errands))
        actor = self.present()
        send = actor.hand_in if is_handed else actor.call
        reference = self._sent(errands[0], lambda: send(letter, args))
        sent = time.monotonic()
        for errand in errands:
            errand.sent = sent
            errand.is_handed = is_handed
        errands[0].reference = reference

    def open_stream(self, errand: Errand) -> Any:
        """Send a call that makes a generator; what Ray gives for its values.

        Raises:
            PicklingError: It can't be sent.
        """
        letter = pickle.dumps([self._sender.head(errand.call, errand.number, self.life)])
        return self._sent(errand, lambda: self.present().stream(letter, errand.call.args, _WINDOW))

    def watch(self, errands: list[Errand]) -> None:
        """Have what comes of a letter that was sent filed in the inbox."""
        reference, errands[0].reference = errands[0].reference, None
        self.inbox.expect(tuple(errand.number for errand in errands), reference)

    def present(self) -> Actor:
        """The actor, which listens and is listened to."""
        if self.actor is None:
            self.actor = self.claim.hire()
            self._ear = Ear(self.actor, self._hear, self.inbox.told, self._fleet.aside)
        assert self._ear is not None
        self._ear.listen()
        return self.actor

    @staticmethod
    def _sent(errand: Errand, send: Callable[[], Any]) -> Any:
        try:
            return send()
        except (TypeError, pickle.PicklingError) as error:  # of Ray: an argument can't be pickled
            raise unsendable(errand.call.words(), error) from error

    # ---- from the actor

    def await_answer(self, errand: Errand, until: float, *, is_alone: bool) -> Answer | None:
        """The answer of a call; `None` at the moment `until`, or when something else has come.

        Args:
            errand: The call.
            until: A moment.
            is_alone: Nothing else is under way that could be of more interest.

        Raises:
            ActorLost: The actor has ended, or does not end.
            PicklingError: The arguments, or what came of the call, could not be sent.
        """
        if errand.reference is not None:
            if is_alone and self._may_block and not errand.jobs[0]._options.timed:
                return self._get(errand, until)
            self.watch([errand])
        found = self.inbox.take(errand.number)
        if found is None:
            left = min(until, errand.ends_at) - time.monotonic()
            self.inbox.wait(None if left == math.inf else max(0.0, left))
            self._end_if_due(errand)
            found = self.inbox.take(errand.number)
            if found is None:
                if self.claim.is_cut:
                    raise ActorLost
                return None
        errand.read = time.monotonic()
        return opened(errand, found)

    def _get(self, errand: Errand, until: float) -> Answer | None:
        """The answer of a call, had in Ray's own wait: it can't be woken, and takes half of what a callback does."""
        import ray
        from ray.exceptions import GetTimeoutError

        left = min(until, errand.ends_at) - time.monotonic()
        try:
            reply = ray.get(errand.reference, timeout=min(_GLANCE, max(0.0, left)))
        except GetTimeoutError:
            self._end_if_due(errand)
            if self.claim.is_cut:
                raise ActorLost from None
            return None
        except Exception as error:  # noqa: BLE001 - of Ray, or what unpickling raises
            if is_loss(error):
                raise ActorLost(describe(error)) from None
            reply = error
        errand.read = time.monotonic()
        errand.reference = None
        return opened(errand, apart(reply)[0][1] if type(reply) is bytes else reply)

    def await_value(self, errand: Errand, values: Any) -> Answer | None:
        """The next value of a stream, or its end; `None` if there is none yet.

        Raises:
            ActorLost: The actor has ended, or does not end.
            PicklingError: A value could not be sent.
        """
        import ray

        left = max(0.0, errand.ends_at - time.monotonic())
        ready, _ = ray.wait([values], timeout=min(_GLANCE, left))
        if not ready:
            self._end_if_due(errand)
            if self.claim.is_cut:
                raise ActorLost
            return None
        try:
            value = ray.get(next(values))
        except Exception as error:  # noqa: BLE001 - the same
            if is_loss(error) or isinstance(error, StopIteration):
                raise ActorLost(describe(error)) from None
            value = error
        return opened(errand, value)

    def _end_if_due(self, errand: Errand) -> None:
        """End the actor, and what it does, when its time has come; then it has a while to be gone."""
        now = time.monotonic()
        if now < errand.ends_at or self.actor is None:
            return
        if errand.is_ended:
            raise ActorLost
        errand.is_ended = True
        errand.ends_at = now + _ENDING
        self.actor.kill(for_good=False)

    # ---- who it is

    def learn(self, errand: Errand, answer: Answer) -> None:
        """From the answer of a call: who has made it, and what is loaded now."""
        if answer.life != self.life:
            self.replace(answer.life)
        for number, seconds in answer.loaded:
            self._loaded.add(number)
            model = self._models.by_number(number)
            self._residency.add(model, self._slot)
            self._slot.note_load(seconds)
            self._chronicle.loaded(model, self._slot.device, seconds)
        self._sender.introduced(errand.call)

    def replace(self, life: str = "") -> None:
        """The actor that was here is gone, and everything that it had loaded."""
        self.life = life
        self._sender.forget()
        for number in self._loaded:
            model = self._models.by_number(number)
            self._residency.remove(model, self._slot)
            self._chronicle.unloaded(model, self._slot.device)
        self._loaded.clear()

    def await_successor(self, errand: Errand, numbers: list[int]) -> set[int] | None:
        """After a loss: wait for the actor that Ray starts, or for the same one if only the way to it was broken.

        Args:
            errand: What was lost.
            numbers: Of calls that were sent.

        Returns:
            Those of `numbers` that have begun; the others never will. `None` if no actor comes.
        """
        actor = self.actor
        self.inbox.grow_older()
        self.replace()
        if actor is None or self.claim.is_cut:
            return None
        until = time.monotonic() + self._fleet.terms.patience
        while not self.claim.is_lost and time.monotonic() < min(until, errand.ends_at + _ENDING):
            with suppress(Exception):  # whatever Ray says of an actor that is not there yet
                about = About(*actor.about().future().result(_GLANCE))
                # Whichever it is, it may have them still before it: what it has not begun by now it never will.
                taken = set(actor.withdraw(numbers).future().result(_ENDING))
                return {number for number in numbers if number <= about.begun or number not in taken}
            time.sleep(_GLANCE / 5)  # Ray answers at once while it knows of no other
        return None

    def give_up(self) -> None:
        """The actor can't use its device any more: Ray is to start another one."""
        if self.actor is not None:
            self.actor.kill(for_good=False)
        self.replace()

    def dismiss(self) -> None:
        """Let the actor unload everything, and end it."""
        actor, self.actor = self.actor, None
        if actor is None:
            return
        if self.claim.is_cut:
            return
        if not self.claim.is_lost:
            with suppress(Exception):  # it has ended, or takes too long
                for number, content in actor.farewell().future().result(_UNLOADING):
                    self._hear(number, loads(content))
        actor.kill(for_good=True)
        self.replace()
