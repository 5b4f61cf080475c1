"""What is sent of a call. The slot's thread's."""

from __future__ import annotations

import pickle
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from director._executors.process.spawn import inner
from director._executors.ray.messages import CallHeader, FirstUse
from director._executors.ray.payload import is_reference, pack, runs_no_code, unsendable
from director._executors.ray.pickling import dumps, goes_by_value
from director._executors.remote.replicas import ModelSpec
from director._ipc.by_name import name_of, sendable
from director._ipc.protocol import UNNUMBERED, CallStyle

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._executors.process.encoding import ModelNumbers
    from director._executors.ray.pending_call import RayCall
    from director._ipc.by_name import Name
    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model


class CallMessage(NamedTuple):
    """A call as Ray gets it.

    Args:
        content: Header and pickled arguments.
        extras: What does not fit into bytes: buffers and references, if there are any.
    """

    content: bytes
    extras: tuple[list[Any], ...]


class CallEncoder:
    """Knows what the actor of a slot was told.

    Args:
        device: The slot's.
        models: Their numbers.
        time: The Director's clock.
    """

    def __init__(self, device: Device, models: ModelNumbers, time: Callable[[], float]) -> None:
        self._device = inner(device)
        self._models = models
        self._time = time
        self.forget()

    def forget(self) -> None:
        """There is another actor, which knows nothing."""
        self._functions: set[int] = set()
        self._recipes: set[int] = set()
        self._is_new = True

    def message(self, call: RayCall, number: int) -> CallMessage:
        """A call as a message.

        Args:
            call: The call.
            number: Its number.

        Raises:
            PicklingError: It can't be sent.
        """
        try:
            return self._message(call, number)
        except BaseException as error:
            raise unsendable(f"the call of {call.jobs[0].name}", error) from error

    def may_go_ahead(self, call: RayCall) -> bool:
        """Whether sending it runs no code of the user's, so that it can be done within the call of another job."""
        function, model = _number_of(call.fn), call.jobs[0].options.model
        return (
            call.style is CallStyle.WITH_RESOURCE
            and not self._is_new
            and function in self._functions
            and (model is None or self._models.number(model) in self._recipes)
            and runs_no_code(call.args)
            and _are_there([each for each in call.args if is_reference(each)])
        )

    def introduced(self, call: RayCall) -> None:
        """The actor has made the call: it knows what was introduced with it."""
        self._is_new = False
        if (function := _number_of(call.fn)) != UNNUMBERED:
            self._functions.add(function)
        if (model := call.jobs[0].options.model) is not None:
            self._recipes.add(self._models.number(model))

    def _message(self, call: RayCall, number: int) -> CallMessage:
        job, model = call.jobs[0], call.jobs[0].options.model
        function = _number_of(call.fn)
        recipe = UNNUMBERED if model is None else self._models.number(model)
        is_met, is_known = function in self._functions, model is None or recipe in self._recipes
        introduction = None
        if self._is_new or not is_met or not is_known:
            introduction = FirstUse(
                self._device,
                b"" if is_met else dumps(sendable(call.fn, _imported_name)),
                b"" if is_known or model is None else dumps(_recipe(model)),
            )
        awaited = tuple(place for place, each in enumerate(call.args) if is_reference(each))
        stream, buffers, references = pack(call.args)
        facts = self._facts(job)
        header = CallHeader(number, function, recipe, job.name, facts, int(call.style), introduction, awaited)
        content = pickle.dumps((tuple(header), stream))
        return CallMessage(content, (buffers, references) if buffers or references else ())

    def _facts(self, job: ScheduledJob[Any]) -> tuple[int, int, int, float]:
        started = job.started_at
        if started is None:  # it is sent ahead of its turn
            return job.id, job.options.priority, job.attempts + 1, self._time() - job.submitted_at
        return job.id, job.options.priority, job.attempts, started - job.submitted_at


def _imported_name(fn: Any) -> Name | None:
    """The name of a function that an actor can import by it; all else cloudpickle sends with what it needs."""
    return None if type(fn) is FunctionType and goes_by_value(fn) else name_of(fn)


def _number_of(fn: Any) -> int:
    return UNNUMBERED if (name := name_of(fn)) is None else name.number


def _are_there(references: list[Any]) -> bool:
    """Whether the values of references are there, so that a call with them waits for nothing."""
    if not references:
        return True
    import ray

    ready, _ = ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
    return len(ready) == len(references)


def _recipe(model: Model[Any]) -> ModelSpec:
    load, warmup, unload = (sendable(fn, _imported_name) for fn in (model.load, model.warmup, model.unload))
    return ModelSpec(load, warmup, unload, model.name)
