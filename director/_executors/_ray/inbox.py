"""What comes back from an actor, in any order, for the slot's thread, which wants it in the order of its calls.

`ring`, `told` and what Ray calls are for any thread; everything else is the slot's.
"""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any, TypeGuard

from director._executors._process.references import describe
from director._executors._ray import reply
from director._executors._ray.letter import unsendable
from director._executors._ray.reply import apart
from director._executors._ray.wire import Word

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._executors._ray.errand import Errand
    from director._executors._ray.wire import Answer

TAKEN_BACK = -1  # under which the actor's reply to `withdraw` is filed


class ActorLost(Exception):
    """The actor has ended, or can't be reached."""


class Inbox:
    """Answers by the numbers of their calls."""

    def __init__(self) -> None:
        self._posts: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._early: dict[int, Any] = {}  # an `Answer`, an error of Ray's, or a reply
        self.refused: set[int] = set()  # calls that were not begun, and never will
        self._age = 0  # how often the actor was lost

    def ring(self) -> None:
        """Have `wait` return."""
        self._posts.put(_nothing)

    def told(self, answers: bytes) -> None:
        """The actor has told some answers while it goes on."""
        self._posts.put(lambda: self._early.update(apart(answers)))

    def expect(self, numbers: tuple[int, ...], reference: Any) -> None:
        """Have what Ray answers filed under these numbers."""
        age = self._age
        reference.future().add_done_callback(lambda future: self._posts.put(lambda: self._sort(age, numbers, future)))

    def wait(self, seconds: float | None) -> None:
        """Wait for something, and file all that is there.

        Raises:
            ActorLost: Ray says so.
        """
        try:
            self._posts.get(timeout=seconds)()
            while True:
                self._posts.get_nowait()()
        except queue.Empty:
            return

    def has(self, number: int) -> bool:
        """Whether something is filed."""
        return number in self._early

    def take(self, number: int) -> Any:
        """What is filed, or `None`."""
        return self._early.pop(number, None)

    def forget_before(self, number: int) -> None:
        """The turn of the call `number` has come: nobody asks any more for those before it."""
        for early in [early for early in self._early if 0 < early < number]:
            del self._early[early]
        if self.refused:
            self.refused = {refused for refused in self.refused if refused >= number}

    def grow_older(self) -> None:
        """The actor was lost: what Ray has to say of that is known."""
        self._age += 1
        self._early.pop(TAKEN_BACK, None)

    def _sort(self, age: int, numbers: tuple[int, ...], future: Any) -> None:
        error = future.exception()
        if is_loss(error):
            if age == self._age:
                raise ActorLost(describe(error)) from None
        elif len(numbers) > 1 and error is not None:  # one of them can't be unpickled, so none has begun
            self.refused.update(numbers)
        elif error is not None:
            self._early[numbers[0]] = error
        else:
            self._file(numbers, future.result())

    def _file(self, numbers: tuple[int, ...], reply: Any) -> None:
        if reply is False:  # handed in when the call thread had left
            self.refused.update(numbers)
        elif type(reply) is bytes:
            self._early.update(apart(reply))
        elif reply is not True:  # an answer by itself, or what was taken back
            self._early[numbers[0]] = reply


def is_loss(error: BaseException | None) -> TypeGuard[BaseException]:
    """Whether Ray says that the actor, its node or the way to it is lost; else it could not carry this one call.

    A node that dies shows itself in many ways: as an actor's death, as a placement group that was removed, as an owner
    that is gone. So all is a loss that is not known to belong to the call.
    """
    from ray import exceptions

    own = (
        exceptions.RayTaskError,  # our own code there raises nothing: Ray could not (un)pickle something
        exceptions.RaySystemError,  # nor this process the answer
        exceptions.ObjectStoreFullError,
        exceptions.OutOfDiskError,
        exceptions.UnserializableException,
        exceptions.OufOfBandObjectRefSerializationException,
    )
    return isinstance(error, exceptions.RayError) and not isinstance(error, own)


def opened(errand: Errand, found: Any) -> Answer:
    """An answer, with Ray's errors as ours.

    Raises:
        PicklingError: The arguments, or what came of the call, could not be sent.
    """
    from ray.exceptions import RayTaskError

    if isinstance(found, BaseException):
        raised = isinstance(found, RayTaskError)
        what = "the arguments or the result of" if raised else "the result of"
        raise unsendable(f"{what} {errand.jobs[0].name}", found) from found
    try:
        answer = reply.opened(found)
    except Exception as error:
        raise unsendable(f"the result of {errand.jobs[0].name}", error) from error
    if answer.word == Word.UNSENDABLE:
        raise unsendable(f"the result of {errand.jobs[0].name}", RuntimeError(answer.value))
    return answer


def _nothing() -> None:
    """What wakes the thread without saying anything."""
