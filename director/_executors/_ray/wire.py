"""What goes between a slot's thread and its actor, beside the arguments and results that Ray carries. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from director._executors._process.wire import NO_FACTS, UNNUMBERED, Facts

if TYPE_CHECKING:
    from director._device import Device

__all__ = ["NO_FACTS", "UNNUMBERED", "WITHDRAWN", "About", "Answer", "Facts", "Head", "How", "Introduction", "Word"]


class How(IntEnum):
    """How a function is called."""

    USUALLY = 0  # with its resource first
    BARELY = 1  # without
    AS_STREAM = 2  # it makes a generator
    AS_BATCH = 3  # with its resource and a list of the arguments


class Word(IntEnum):
    """What an actor says of a call."""

    RETURNED = 1
    RAISED = 2
    NOT_LOADED = 3
    YIELDED = 4
    STRANGER = 5  # it has not begun: the function, or the model, was introduced to an actor before this one
    WITHDRAWN = 6  # it has not begun, and was taken back
    UNSENDABLE = 7  # it has returned something that can't be sent; why not, is the value


class Introduction(NamedTuple):
    """What an actor must have once.

    Args:
        device: As its jobs know it.
        function: Pickled; empty if it is known.
        recipe: How to load the model, pickled; empty if there is none, or it is known.
    """

    device: Device
    function: bytes
    recipe: bytes


class Head(NamedTuple):
    """One call, but for its arguments.

    Args:
        number: Counts the calls of a slot.
        function, model: Their numbers.
        name: The job's.
        facts: Of the job.
        how: In which way; a `How`.
        introduction: If the actor may need one.
        life: Of the actor that it is for; empty for any.
        arguments: How many it has.
    """

    number: int
    function: int
    model: int
    name: str
    facts: Facts
    how: int
    introduction: Introduction | None
    life: str
    arguments: int


class Answer(NamedTuple):
    """What came of a call.

    Args:
        word: A `Word`.
        life: Of the actor; Ray gives one that it starts again another.
        began, ended: Seconds of the actor's clock.
        loaded: The models that it has loaded for the call: their numbers, and the seconds that each took.
        progress: The last that was reported, with its number in the order of reports.
        value: Result, value of a stream, or a `Raised`.
    """

    word: int
    life: str
    began: float = 0.0
    ended: float = 0.0
    loaded: tuple[tuple[int, float], ...] = ()
    progress: tuple[int, Any] | None = None
    value: Any = None


WITHDRAWN = Answer(Word.WITHDRAWN, "")


class About(NamedTuple):
    """What an actor says of itself.

    Args:
        life: See `Answer`.
        begun: The number of the last call that was begun in its slot, in this life or one before.
        process: Its id.
        accelerators: The numbers of those that Ray has given it, on its node.
        devices: The GPUs that it sees.
    """

    life: str
    begun: int
    process: int
    accelerators: tuple[str, ...]
    devices: tuple[Device, ...]
