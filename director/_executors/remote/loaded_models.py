"""The models that the other process of a slot has, under the numbers that messages use. For the slot's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from director._devices.footprints import LoadSize
    from director._executors.base import MemoryEvents
    from director._jobs.job_runner import SlotInfo
    from director._jobs.model import Model


class LoadedModels:
    """Knows which models are loaded and which are asleep, and reports each change."""

    def __init__(self, slot: SlotInfo, events: MemoryEvents) -> None:
        self.loaded: set[int] = set()
        self.loading: Model[Any] | None = None  # by the current call, if that was reported
        self._slot = slot
        self._events = events
        self._asleep: set[int] = set()  # in host memory
        self._kept: dict[int, Model[Any]] = {}  # what is kept of a model, from its first call until it is unloaded

    def number(self, model: Model[Any]) -> int:
        """The number of a model whose call is about to be sent; it never changes."""
        number = model._key
        if number not in self._kept:
            self._kept[number] = model._kept()
        return number

    def has(self, model: Model[Any]) -> bool:
        """Whether a model is loaded."""
        return model._key in self.loaded

    def find(self, model: Model[Any]) -> int | None:
        """The number of a model that is loaded or asleep; `None` if it is neither."""
        number = model._key
        return number if number in self.loaded or number in self._asleep else None

    def note_loading(self, model: Model[Any]) -> None:
        """The current call begins to load a model."""
        self._events.loading(model, self._slot)
        self.loading = model

    def note_loaded(self, number: int, seconds: float, size: LoadSize | None) -> None:
        """A model was loaded or woken."""
        self.loaded.add(number)
        self._asleep.discard(number)
        self.loading = None
        model = self._kept[number]
        if self._events.is_accounted(model):
            self._events.measured(model, self._slot, size)
        self._events.loaded(model, self._slot, seconds)

    def note_asleep(self, number: int) -> bool:
        """A model was put to sleep; False if it was lost with its process."""
        if number not in self.loaded:
            return False
        self.loaded.discard(number)
        self._asleep.add(number)
        return True

    def note_unloading(self) -> None:
        """All loaded models are about to be unloaded, with their process."""
        for number in self.loaded:
            self._events.unloading(self._kept[number], self._slot)

    def remove(self, number: int) -> Model[Any] | None:
        """Forget a model that was unloaded; returns it, `None` if it was lost before."""
        if number not in self.loaded and number not in self._asleep:
            return None
        self.loaded.discard(number)
        self._asleep.discard(number)
        return self._kept.pop(number)

    def lose(self) -> None:
        """The process is gone, with all of them."""
        lost = {number: self._kept[number] for number in self.loaded | self._asleep}
        if self.loading is not None:
            lost[self.loading._key] = self.loading
            self.loading = None
        self.loaded.clear()
        self._asleep.clear()
        for number, model in lost.items():
            self._events.unloaded(model, self._slot)
            self._kept.pop(number, None)
