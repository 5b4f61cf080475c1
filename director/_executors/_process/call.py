"""What is sent of a job: its function by number once the child has met it, then only the arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._executors._process.references import name_of, pack, sendable
from director._executors._process.shelf import Recipe
from director._executors._process.wire import UNNUMBERED, Ask, Facts

if TYPE_CHECKING:
    from director._core.job import Job
    from director._executors._process.child import Child
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
        is_bare: It is called without the resource.
    """

    __slots__ = ("args", "fn", "is_bare", "jobs")

    def __init__(self, jobs: list[Job[Any]], fn: Any, args: tuple[Any, ...], *, is_bare: bool = False) -> None:
        self.jobs = jobs
        self.fn = fn
        self.args = args
        self.is_bare = is_bare

    def send(self, child: Child, models: Models, is_prompt: bool) -> None:
        """Send it.

        Args:
            child: To whom.
            models: Of the seat.
            is_prompt: Our main module can't be imported.

        Raises:
            PicklingError: It can't be sent.
            OSError: There is no memory, or no descriptor, for a large one.
        """
        job, args = self.jobs[0], self.args
        options = job._options
        number = UNNUMBERED if options.model is None else models.number(options.model)
        facts = Facts(job.id, options.priority, job.attempts, job.waited or 0.0)
        function = self._function()
        if function in child.met and (number == UNNUMBERED or number in child.loaded):
            child.ask(Ask.CALL, function, number, facts, pack(args, self._words, is_prompt) if args else None)
            return
        content = (
            sendable(self.fn),
            job.name,
            args,
            self.is_bare,
            None if options.model is None else recipe(options.model),
        )
        child.ask(Ask.MEET, function, number, facts, pack(content, self._words, is_prompt))

    def introduced(self, child: Child) -> None:
        """The child has made the call: it has met its function."""
        function = self._function()
        if function != UNNUMBERED:
            child.met.add(function)

    def _function(self) -> int:
        """The number of the function, if it has one and is called the usual way by its own name."""
        if self.is_bare or self.jobs[0]._options.name is not None:
            return UNNUMBERED
        name = name_of(self.fn)
        return UNNUMBERED if name is None else name.number

    def _words(self) -> str:
        return f"the call of {self.jobs[0].name}"


def recipe(model: Model[Any]) -> Recipe:
    """What a child needs of a model."""
    return Recipe(sendable(model.load), sendable(model.warmup), sendable(model.unload), model.name)
