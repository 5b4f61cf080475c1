"""What was measured is kept in the file that DIRECTOR_FOOTPRINTS names."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from harness.device_memory import GIB, ProcessMemory, metered
from harness.gates import until

from director import Director, Model
from director._runtime.devices import footprint_file
from director._runtime.devices.footprint_file import FootprintFile

if TYPE_CHECKING:
    from pathlib import Path

    from director import Device


def same(resource: Any) -> Any:
    return resource


def sized(view: ProcessMemory, size: int) -> Model[Any]:
    """A model that says nothing of its size."""

    def load(device: Device) -> Device:
        view.allocate(size)
        return device

    return Model(load, unload=lambda _: view.release(size), name="model")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "footprints.json"
    monkeypatch.setenv("DIRECTOR_FOOTPRINTS", str(path))
    monkeypatch.setattr(footprint_file, "_framework", lambda: "torch 2.9")
    return path


def entries(path: Path) -> Any:
    return json.loads(path.read_text())["footprints"] if path.exists() else []


async def test_the_next_director_knows_what_the_last_one_has_measured(path: Path) -> None:
    devices, (view,) = metered()
    model = sized(view, 3 * GIB)
    async with Director(devices, memory_limit="100%") as director:
        await director.run(same, model=model)
    await until(lambda: entries(path) == [["model", "simulated:0", "torch 2.9", 3 * GIB]])
    again = sized(view, 3 * GIB)
    async with Director(devices, memory_limit="100%") as director:
        memory = director._runtime.scheduler.memory  # type: ignore[union-attr]
        assert memory.known(again).footprints.size("simulated:0") == 3 * GIB


def test_another_framework_knows_nothing_of_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(json.dumps({"format": "director footprints 1", "footprints": [["model", "card", "torch 2.8", 5]]}))
    assert FootprintFile(path).read() == {}
    monkeypatch.setattr(footprint_file, "_framework", lambda: "torch 2.8")
    assert FootprintFile(path).read() == {("model", "card"): 5}


async def load_twice() -> None:
    devices, (view,) = metered()
    model = sized(view, GIB)
    async with Director(devices, memory_limit="100%") as director:
        for _ in range(2):
            assert await director.run(same, model=model) is devices[0]
            await director.unload(model)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"format": "director footprints 1", "footprints": [["m", "d", "t", 1]',
        "[]",
        '{"format": "another"}',
        '{"format": "director footprints 1"}',
        '{"format": "director footprints 1", "footprints": [["m", "d", "t", -1]]}',
        '{"format": "director footprints 1", "footprints": [["m", "d", "t", true]]}',
        '{"format": "director footprints 1", "footprints": [7]}',
        "\udcff",
    ],
)
def test_a_torn_or_foreign_file_is_left_alone_with_one_warning(
    path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw = content.encode("utf-8", "surrogateescape")
    path.write_bytes(raw)
    asyncio.run(load_twice())
    told = [record for record in caplog.records if "DIRECTOR_FOOTPRINTS" in record.getMessage()]
    assert len(told) == 1
    assert path.read_bytes() == raw


def test_what_others_have_written_meanwhile_stays(path: Path) -> None:
    first, second = FootprintFile(path), FootprintFile(path)
    assert (first.read(), second.read()) == ({}, {})
    for file, name, size in ((first, "a", 1), (second, "b", 2), (first, "a", 3)):
        file._new[name, "card", "torch 2.9"] = size
        file._write()
    assert FootprintFile(path).read() == {("a", "card"): 3, ("b", "card"): 2}
    assert [each.name for each in path.parent.iterdir()] == ["footprints.json"]


async def test_a_folder_that_can_not_be_written_to_is_one_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = FootprintFile(path.parent / "missing" / "footprints.json")
    assert file.read() == {}
    for _ in range(2):
        file._new["a", "card", ""] = 1
        file._write()
    assert len([record for record in caplog.records if "can't be written" in record.getMessage()]) == 1
