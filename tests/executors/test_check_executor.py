"""Our own executors keep every promise of `check_executor`, and it finds those that others break."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal

import pytest

from director import DirectorError, Model, WorkerDied
from director.testing import check_executor

if TYPE_CHECKING:
    from director import Call, RunnerEvents, SlotInfo


@pytest.mark.parametrize("executor", ["thread", pytest.param("process", marks=pytest.mark.slow)])
async def test_ours_keep_every_promise(executor: Literal["thread", "process"]) -> None:
    await check_executor(executor)


class Here:
    """A right one, on the slot's thread, to be made wrong by subclasses of its runner."""

    def __init__(self, kind: type[HereRunner]) -> None:
        self.kind = kind

    def runner(self, slot: SlotInfo, events: RunnerEvents) -> HereRunner:
        return self.kind(slot, events)


class HereRunner:
    def __init__(self, slot: SlotInfo, events: RunnerEvents) -> None:
        self.slot, self.events = slot, events
        self.replicas: dict[Model[Any], Any] = {}

    def run(self, call: Call) -> Any:
        first = self.slot.device if call.model is None else self.replica(call.model)
        args = call.args if call.items is None else (call.items,)
        return call.context.run(call.fn, first, *args, **call.kwargs)

    def replica(self, model: Model[Any]) -> Any:
        if model not in self.replicas:
            began = self.events.time()
            self.replicas[model] = model.load(self.slot.device)
            self.events.loaded(model, self.slot, self.events.time() - began)
        return self.replicas[model]

    def close(self) -> None:
        for model, replica in self.replicas.items():
            if model.unload is not None:
                model.unload(replica)
            self.events.unloaded(model, self.slot)

    def abandon(self, call: Call) -> None: ...

    def abort(self) -> bool:
        return False


async def test_one_with_public_names_alone_keeps_every_promise() -> None:
    await check_executor(Here(HereRunner))


class WithoutDevice(HereRunner):
    def run(self, call: Call) -> Any:
        return call.context.run(call.fn, *call.args)


class Wrapping(HereRunner):
    def run(self, call: Call) -> Any:
        try:
            return super().run(call)
        except DirectorError:
            raise
        except Exception as error:
            raise RuntimeError("it failed") from error


class Unbatched(HereRunner):
    def run(self, call: Call) -> Any:
        return call.fn(self.slot.device, *call.args, **call.kwargs) if call.model is None else super().run(call)


class Strict(HereRunner):
    def run(self, call: Call) -> Any:
        value = super().run(call)
        for each in value if call.items is not None else ():
            if isinstance(each, Exception):
                raise each
        return value


class Forgetful(HereRunner):
    def replica(self, model: Model[Any]) -> Any:
        self.replicas.clear()
        return super().replica(model)


class Silent(HereRunner):
    def replica(self, model: Model[Any]) -> Any:
        if model not in self.replicas:
            self.replicas[model] = model.load(self.slot.device)
        return self.replicas[model]


class Untidy(HereRunner):
    def close(self) -> None: ...


class Collecting(HereRunner):
    """Makes a list of a stream before it hands over the first value: of an endless one never."""

    def run(self, call: Call) -> Any:
        if call.put is None or call.generator is None:
            return super().run(call)
        for value in [*zip(range(1000), call.generator(self.slot.device, *call.args), strict=False)]:
            call.put(value)
        return None


class Anonymous(HereRunner):
    """Loses its workers without their device."""

    def run(self, call: Call) -> Any:
        try:
            return super().run(call)
        except WorkerDied:
            raise WorkerDied(None, None) from None


class Leaving(HereRunner):
    """Starts a thread that goes on after the close."""

    ends = threading.Event()

    def __init__(self, slot: SlotInfo, events: RunnerEvents) -> None:
        super().__init__(slot, events)
        threading.Thread(target=self.ends.wait, daemon=True).start()


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (WithoutDevice, "calls: "),
        (Wrapping, "calls: broken promise: what a function raises reaches the caller as it is"),
        (Unbatched, "batches: "),
        (Strict, "batches: broken promise: each item of a batch gets its own result"),
        (Forgetful, "models: broken promise: a model is loaded once"),
        (Silent, "models: broken promise: a load is told"),
        (Untidy, "models: broken promise: a model is unloaded by `close`"),
        (Collecting, "streams: broken promise: a stream gives every value"),
        (Anonymous, "death of a worker: "),
        (Leaving, "after the close: broken promise: a close leaves nothing behind"),
    ],
)
async def test_a_broken_promise_is_found(
    kind: type[HereRunner], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("director.testing.executors._LEAVING", 0.0 if kind is Leaving else 5.0)
    Leaving.ends.clear()
    try:
        with pytest.raises(AssertionError) as caught:
            await check_executor(Here(kind), patience=10)
    finally:
        Leaving.ends.set()
    assert str(caught.value).startswith(complaint)
