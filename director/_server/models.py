"""The models of all applications. On the event loop only."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from director._ipc.server.calls import Loader
from director._jobs.model import Model

if TYPE_CHECKING:
    import asyncio

    from director._ipc.server.job_head import ModelHead


class ServedModels:
    """Equal models of several applications are one.

    A model is kept for as long as an application names it, and `linger` seconds longer: the worker that replaces one
    that has left finds the replicas. Then they are unloaded, as those of any `Model` that is collected.

    Args:
        loop: The event loop.
        linger: Seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, linger: float) -> None:
        self._loop = loop
        self._linger = linger
        self._models: dict[Any, Model[Any]] = {}  # by reference, head, and a number among equal ones of an application
        self._named: dict[Model[Any], tuple[Any, int]] = {}  # its key, and how many times it is named

    def name(self, reference: bytes, head: ModelHead, others: set[Model[Any]]) -> Model[Any]:
        """A model, which an application names: none of its `others`, which may be equal."""
        keys = ((reference, head, number) for number in count())
        key, model = next((key, model) for key in keys if (model := self._models.get(key)) not in others)
        if model is None:
            loader = Loader(reference)
            model = self._models[key] = Model(
                loader.load,
                unload=loader.unload,
                replicas=head.replicas,
                memory=head.memory,
                pin=head.pin,
                per_slot=head.per_slot,
                load_alone=head.load_alone,
                around=loader.around if head.is_surrounded else None,
                name=head.name,
            )
        self._named[model] = key, self._count(model) + 1
        return model

    def release(self, model: Model[Any]) -> None:
        """An application that has named a model has dropped it, or is gone."""
        key, count = self._named[model]
        self._named[model] = key, count - 1
        if count == 1:
            self._loop.call_later(self._linger, partial(self._drop, model))

    def _count(self, model: Model[Any]) -> int:
        return self._named[model][1] if model in self._named else 0

    def _drop(self, model: Model[Any]) -> None:
        if model in self._named and not self._count(model):
            key, _ = self._named.pop(model)
            del self._models[key]
