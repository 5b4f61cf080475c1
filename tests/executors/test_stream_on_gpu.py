"""A stream on a GPU hands over what the GPU has finished; torch is played by a module that only writes down."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from director import Device, Director

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS: list[str] = []


class Event:
    def __init__(self, blocking: bool) -> None:
        assert blocking

    def record(self) -> None:
        STEPS.append("record")

    def synchronize(self) -> None:
        STEPS.append("wait")
        if STEPS.count("launch") == 3:
            raise RuntimeError("the device reports a fault of the third value")


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    STEPS.clear()
    torch: Any = ModuleType("torch")
    torch.cuda = SimpleNamespace(is_available=lambda: True, set_device=lambda ordinal: None, Event=Event)
    monkeypatch.setitem(sys.modules, "torch", torch)


@pytest.mark.usefixtures("torch")
async def test_each_value_is_finished_when_it_is_handed_over() -> None:
    def generate(_device: Device) -> Iterator[list[str]]:
        for _ in range(3):
            STEPS.append("launch")
            yield STEPS.copy()

    async with Director([Device(0, "GPU-0", "fake", "cuda")]) as director:
        values = director.stream(generate)
        once = ["launch", "record", "wait"]
        assert await anext(values) == ["launch"]
        assert await anext(values) == [*once, "launch"]
        with pytest.raises(RuntimeError, match="a fault of the third value"):
            await anext(values)
    assert STEPS[:9] == once * 3
