"""Encodes calls for an actor. For the slot's thread."""

from __future__ import annotations

import pickle
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from director._executors.process.spawn import inner
from director._executors.ray.messages import CallHeader, FirstUse
from director._executors.ray.payload import is_reference, pack, pack_named, runs_no_code, unsendable
from director._executors.ray.pickling import dumps, goes_by_value
from director._executors.remote.calls import facts_of, packed_tenant
from director._executors.remote.replicas import spec_of
from director._ipc.by_name import name_of, sendable
from director._ipc.protocol import UNNUMBERED, CallStyle

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._executors.ray.messages import Payload
    from director._executors.ray.pending_call import RayCall
    from director._executors.remote.loaded_models import LoadedModels
    from director._ipc.by_name import Name


class CallMessage(NamedTuple):
    """A call as Ray gets it."""

    content: bytes
    extras: tuple[list[Any], ...]


class CallEncoder:
    """Encodes calls; knows which functions and model specs the slot's actor has."""

    def __init__(self, device: Device, models: LoadedModels, time: Callable[[], float]) -> None:
        self._device = inner(device)
        self._models = models
        self._time = time
        self.reset()

    def reset(self) -> None:
        """The actor was replaced."""
        self._actor = object()  # the identity of the actor: an answer of the one before is not to be confirmed
        self._functions: set[int] = set()
        self._specs: set[int] = set()
        self._is_new = True

    def message(self, call: RayCall, number: int) -> CallMessage:
        """Encode a call.

        Raises:
            PicklingError: It can't be sent.
        """
        try:
            return self._message(call, number)
        except BaseException as error:
            raise unsendable(f"the call of {call.jobs[0].name}", error) from error

    def can_prefetch(self, call: RayCall) -> bool:
        """Whether encoding a call runs no code of the user's, so that it can be done during the call of another job."""
        function, model = _number_of(call.fn), call.jobs[0].options.model
        return (
            call.style is CallStyle.WITH_RESOURCE
            and not self._is_new
            and function in self._functions
            and (model is None or self._models.number(model) in self._specs)
            and runs_no_code((*call.args, call.jobs[0].options.tenant))
            and _are_ready([each for each in call.args if is_reference(each)])
        )

    def confirm(self, call: RayCall) -> None:
        """The actor has made the call: it knows what was confirm with it."""
        if call.actor is not self._actor:
            return
        self._is_new = False
        if (function := _number_of(call.fn)) != UNNUMBERED:
            self._functions.add(function)
        if (model := call.jobs[0].options.model) is not None:
            self._specs.add(self._models.number(model))

    def _message(self, call: RayCall, number: int) -> CallMessage:
        job, model = call.jobs[0], call.jobs[0].options.model
        function = _number_of(call.fn)
        number_of_model = UNNUMBERED if model is None else self._models.number(model)
        has_function, has_spec = function in self._functions, model is None or number_of_model in self._specs
        first_use = None
        if self._is_new or not has_function or not has_spec:
            first_use = FirstUse(
                self._device,
                b"" if has_function else dumps(_sent(call.fn)),
                b"" if has_spec or model is None else dumps(spec_of(model, _sent, can_sleep=False)),
            )
        awaited = tuple(index for index, each in enumerate(call.args) if is_reference(each))
        stream, buffers, references = pack(call.args)
        call.actor = self._actor
        facts = tuple(facts_of(job, self._time))
        tenant = b"" if job.options.tenant is None else packed_tenant(job, _pack_tenant)
        header = CallHeader(
            number, function, number_of_model, job.name, facts, int(call.style), first_use, awaited, tenant
        )
        content = pickle.dumps((tuple(header), stream))
        return CallMessage(content, (buffers, references) if buffers or references else ())


def _sent(fn: Any) -> Any:
    """What is sent for a function."""
    return sendable(fn, _imported_name)


def _imported_name(fn: Any) -> Name | None:
    """The name of a function that an actor can import; `None` for all others, which cloudpickle sends by value."""
    return None if type(fn) is FunctionType and goes_by_value(fn) else name_of(fn)


def _number_of(fn: Any) -> int:
    return UNNUMBERED if (name := name_of(fn)) is None else name.number


def _pack_tenant(value: Any, what: Callable[[], str]) -> Payload:
    return pack_named(value, what())


def _are_ready(references: list[Any]) -> bool:
    """Whether the values of all references exist, so that a call with them need not wait."""
    if not references:
        return True
    import ray

    ready, _ = ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
    return len(ready) == len(references)
