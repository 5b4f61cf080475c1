"""What is sent of a call beside its arguments. The slot's thread's."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

from director._executors._process.references import describe, name_of
from director._executors._process.shelf import Recipe
from director._executors._ray.pickling import dumps, goes_by_value
from director._executors._ray.wire import UNNUMBERED, Facts, How, Introduction

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._core.job import Job
    from director._device import Device
    from director._executors._process.call import ModelNumbers
    from director._models import Model


class Call:
    """One call, to be made in an actor.

    Args:
        jobs: Whose; with several of them it is a batch.
        fn: The function.
        args: Its arguments but for the resource; of a batch its items.
        how: In which way.
    """

    __slots__ = ("args", "fn", "how", "jobs")

    def __init__(self, jobs: list[Job[Any]], fn: Any, args: tuple[Any, ...], how: How = How.USUALLY) -> None:
        self.jobs = jobs
        self.fn = fn
        self.args = args
        self.how = how

    def words(self) -> str:
        """How errors name it."""
        return f"the call of {self.jobs[0].name}"


class Sender:
    """Knows what the actor of a slot has been told.

    Args:
        device: The slot's.
        models: Their numbers.
        time: The Director's clock.
    """

    def __init__(self, device: Device, models: ModelNumbers, time: Callable[[], float]) -> None:
        self._device = replace(device, index=0) if device.kind == "cuda" else device  # the only one that it sees
        self._models = models
        self._time = time
        self._met: set[int] = set()
        self._known: set[int] = set()  # models
        self._is_new = True

    def forget(self) -> None:
        """There is another actor, which knows nothing."""
        self._met.clear()
        self._known.clear()
        self._is_new = True

    def head(self, call: Call, number: int, life: str) -> tuple[Any, ...]:
        """What to send of a call: the fields of a `Head`, plain, so that they are pickled and read in half the time.

        Args:
            call: The call.
            number: Its number.
            life: Of the actor that may make it; empty for whichever is there.

        Raises:
            PicklingError: It can't be sent.
        """
        job, model = call.jobs[0], call.jobs[0]._options.model
        function = UNNUMBERED if (name := name_of(call.fn)) is None else name.number
        recipe = UNNUMBERED if model is None else self._models.number(model)
        introduction = None
        if self._is_new or function not in self._met or recipe not in self._known:
            introduction = Introduction(
                self._device,
                b"" if function in self._met else _packed(spelled(call.fn), call.words),
                b"" if model is None or recipe in self._known else _packed(_recipe(model), call.words),
            )
        facts = tuple(self._facts(job))
        return number, function, recipe, job.name, facts, int(call.how), introduction, life, len(call.args)

    def introduced(self, call: Call) -> None:
        """The actor has made the call: it knows what was introduced with it."""
        self._is_new = False
        self._known.add(UNNUMBERED)
        if (name := name_of(call.fn)) is not None:
            self._met.add(name.number)
        if (model := call.jobs[0]._options.model) is not None:
            self._known.add(self._models.number(model))

    def _facts(self, job: Job[Any]) -> Facts:
        started = job._started
        if started is None:  # it is sent ahead of its turn
            return Facts(job.id, job._options.priority, job.attempts + 1, self._time() - job._submitted)
        return Facts(job.id, job._options.priority, job.attempts, started - job._submitted)


def spelled(fn: Any) -> Any:
    """What to pickle instead of a function: itself, or how it is reached from a name that an actor can import."""
    if type(fn) is partial:
        inner = spelled(fn.func)
        return fn if inner is fn.func else partial(inner, *fn.args, **fn.keywords)
    if type(fn) is not FunctionType or goes_by_value(fn):
        return fn  # cloudpickle sends what is needed of its module
    name = name_of(fn)
    return fn if name is None else name.sendable


def _recipe(model: Model[Any]) -> Recipe:
    return Recipe(spelled(model.load), spelled(model.warmup), spelled(model.unload), model.name)


def _packed(value: Any, what: Callable[[], str]) -> bytes:
    try:
        return dumps(value)
    except Exception as error:
        raise unsendable(what(), error) from error


def unsendable(what: str, error: BaseException) -> pickle.PicklingError:
    """The error of who could not send something."""
    first = describe(error)
    return pickle.PicklingError(f"{what} can't be sent to another machine: {first}. Send plain values, or arrays")
