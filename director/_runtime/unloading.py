"""Waiting until a model is unloaded. On the event loop only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from director._jobs.model import Model
    from director._scheduler.memory.residency import Residency
    from director._scheduler.scheduler import Scheduler


class Unloading:
    """Callers that wait until models are unloaded.

    Args:
        loop: The event loop of the Director.
        scheduler: Decides when a model can be unloaded.
        residency: Knows which slots have it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, scheduler: Scheduler, residency: Residency) -> None:
        self._loop = loop
        self._scheduler = scheduler
        self._residency = residency
        self._waiting: list[tuple[Model[Any], asyncio.Future[None]]] = []
        self._collected: dict[int, Model[Any]] = {}  # what is left of them is being unloaded
        self._is_over = False

    async def unload(self, model: Model[Any]) -> None:
        """Have a model unloaded everywhere, and wait for it. Cancellation: stops waiting, nothing else."""
        if (wake := self._scheduler.unload(model, self._residency.resident(model))) is not None:
            wake()
        entry = model, self._loop.create_future()
        self._waiting.append(entry)
        try:
            self.check()
            await entry[1]
        finally:
            self._waiting.remove(entry)

    def check(self) -> None:
        """A replica has gone: answer the callers that waited for it, and forget its model if that was collected."""
        for model, future in self._waiting:
            if not future.done() and not self._scheduler.memory.is_leaving(model):
                future.set_result(None)
        memory = self._scheduler.memory
        for key in [key for key, model in self._collected.items() if not memory.is_leaving(model)]:
            del self._collected[key]
            self._scheduler.forget(key)
            self._residency.forget(key)

    def collect(self, key: int) -> None:
        """Nothing refers to the model with this key any more: have its replicas unloaded, where a runner can."""
        model = self._residency.kept(key)
        if model is None or self._is_over:
            return
        self._collected[key] = model
        resident = self._residency.resident(model)
        slots = frozenset(slot.number for slot in self._scheduler.slots if slot.can_unload) & resident
        is_there = resident or self._scheduler.memory.holds(key)  # else it is being unloaded for others
        if slots == resident and is_there and (wake := self._scheduler.unload(model, resident)) is not None:
            wake()
        self.check()

    def give_up(self) -> None:
        """The Director has closed, and with it everything is unloaded."""
        self._is_over = True
        for _, future in self._waiting:
            if not future.done():
                future.set_result(None)
