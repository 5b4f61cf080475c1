"""What is sent of a job: its function by number once the child has met it, then only the arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from director._executors._process import program
from director._executors._process.references import name_of, pack, sendable
from director._executors._process.shelf import Recipe
from director._executors._process.wire import NOBODY, ROOM_IN_REQUEST, UNNUMBERED, Ask, Facts, How

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._core.job import Job
    from director._executors._process.child import Child
    from director._executors._process.parcels import Parcel
    from director._models import Model


class Models:
    """The numbers by which children know models. The slot's thread's."""

    def __init__(self) -> None:
        self._models: list[Model[Any]] = []
        self._numbers: dict[Model[Any], int] = {}

    def number(self, model: Model[Any]) -> int:
        """The number of a model, the same ever after."""
        number = self._numbers.get(model)
        if number is None:
            number = self._numbers[model] = len(self._models)
            self._models.append(model)
        return number

    def by_number(self, number: int) -> Model[Any]:
        """The model again."""
        return self._models[number]


class Call:
    """One call, to be made in a child.

    Args:
        jobs: Whose; with several of them it is a batch.
        fn: The function.
        args: Its arguments but for the resource.
        how: In which way.
    """

    __slots__ = ("args", "fn", "function", "how", "jobs")

    def __init__(self, jobs: list[Job[Any]], fn: Any, args: tuple[Any, ...], how: How = How.USUALLY) -> None:
        self.jobs = jobs
        self.fn = fn
        self.args = args
        self.how = how
        self.function = self._function()  # its number, if it has one and is called the usual way by its own name

    def introduced(self, child: Child) -> None:
        """The child has made the call: it has met its function."""
        if self.function != UNNUMBERED:
            child.met.add(self.function)

    def _function(self) -> int:
        if self.how or not self.jobs or self.jobs[0]._options.name is not None:
            return UNNUMBERED
        name = name_of(self.fn)
        return UNNUMBERED if name is None else name.number

    def words(self) -> str:
        """How errors name it."""
        return f"the call of {self.jobs[0].name}"


_CALL, _MEET = Ask.CALL, Ask.MEET  # an enum's member takes a search each time


class Letter(NamedTuple):
    """A call as it is sent.

    Args:
        kind: Whether the child has met the function.
        function, model: Their numbers.
        facts: Of the job.
        parcel: The content; `None` for none.
    """

    kind: Ask
    function: int
    model: int
    facts: Facts
    parcel: Parcel | None

    @property
    def fits(self) -> bool:
        """Whether a frame takes all of it."""
        parcel = self.parcel
        return parcel is None or (not parcel.buffers and len(parcel.stream) <= ROOM_IN_REQUEST)

    @property
    def introduces(self) -> bool:
        """Whether the child meets the function by it, and may have to import its module first."""
        return self.kind is _MEET and self.function != UNNUMBERED


GOODBYE = Letter(Ask.GO, UNNUMBERED, UNNUMBERED, NOBODY, None)


class Sender:
    """Knows what the children of a seat know.

    Args:
        models: Their numbers.
        time: The Director's clock.
    """

    def __init__(self, models: Models, time: Callable[[], float]) -> None:
        self._models = models
        self._time = time
        self._is_prompt = program.origin() is None  # our main module can't be imported

    def letter(self, call: Call, child: Child) -> Letter:
        """What to send of a call.

        Raises:
            PicklingError: It can't be sent.
        """
        job, args, options = call.jobs[0], call.args, call.jobs[0]._options
        number = UNNUMBERED if options.model is None else self._models.number(options.model)
        facts = self._facts(job)
        function = call.function
        if function in child.met and (number == UNNUMBERED or number in child.loaded):
            parcel = pack(args, call.words, self._is_prompt) if args else None
            return Letter(_CALL, function, number, facts, parcel)
        made_by = None if options.model is None else recipe(options.model)
        content = sendable(call.fn), job.name, args, int(call.how), made_by
        return Letter(_MEET, function, number, facts, pack(content, call.words, self._is_prompt))

    def _facts(self, job: Job[Any]) -> Facts:
        started = job._started
        if started is None:  # it is sent ahead of its turn
            return Facts(job.id, job._options.priority, job.attempts + 1, self._time() - job._submitted)
        return Facts(job.id, job._options.priority, job.attempts, started - job._submitted)


def recipe(model: Model[Any]) -> Recipe:
    """What a child needs of a model."""
    return Recipe(sendable(model.load), sendable(model.warmup), sendable(model.unload), model.name)
