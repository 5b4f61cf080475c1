"""Models and the memory of devices: stats, snapshot, `director top`, Prometheus and the page tell the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import rested
from prometheus_client import CollectorRegistry

from dashboard.serving import opened
from director import Director, Model
from director.cli._top.report import report
from director.dashboard import Dashboard
from director.prometheus import DirectorCollector
from director.testing import simulated_devices

if TYPE_CHECKING:
    from harness.gates import Gate

    from director.testing import TestClock

GIB = 2**30
KINDS = {"replicas", "loading", "calls", "context", "leaked", "foreign"}


def model(name: str, memory: int | None = 2 * GIB, **options: Any) -> Model[Any]:
    return Model(lambda _: name, memory=memory, name=name, **options)


def sleeper(name: str) -> Model[Any]:
    return model(name, sleep=lambda replica: replica, wake=lambda replica: replica)


async def test_all_say_the_same(clock: TestClock, gate: Gate) -> None:
    """`first` sleeps in the host's memory, `second` has half of the device, and a call the other half."""
    director, registry = Director(simulated_devices(1, memory=4 * GIB), clock=clock), CollectorRegistry()
    dashboard = Dashboard(director)
    DirectorCollector(director, registry=registry, name="")
    first, second, large = sleeper("first"), model("second", pin=True), model("large", 4 * GIB)
    async with director:
        await director.run(str, model=first)
        clock.advance(3)
        for each in (large, second):
            await director.run(str, model=each)
        await rested(director)
        held = director.submit(gate, memory=GIB)
        await gate.begun()
        clock.advance(2)
        seen, memory = await dashboard.snapshot(), director.stats().devices[0].memory
        lines = [line.split() for line in report(seen)]
        samples = [sample for family in registry.collect() for sample in family.samples]
        gate.open()
        await held

    (told,) = (device["memory"] for device in seen["devices"])
    assert told["by"] == memory.by_kind == {**dict.fromkeys(KINDS, 0), "replicas": 2 * GIB, "calls": GIB}
    assert told["reserved"] == memory.reserved == sum(memory.by_kind.values()) == 3 * GIB
    assert (told["budget"], told["free"], told["asleep"]) == (memory.budget, memory.free, memory.asleep)
    assert (memory.free, memory.asleep) == (GIB, 2 * GIB)

    facts = ("model", "state", "bytes", "declared", "measured", "pinned", "load_seconds", "used_at")
    replicas = {each.model: tuple(getattr(each, fact) for fact in facts) for each in memory.models}
    assert {each["model"]: tuple(each[fact] for fact in facts) for each in seen["models"]} == replicas
    assert [(each["model"], each["state"], each["bytes"]) for each in seen["models"]] == [
        ("second", "resident", 2 * GIB),
        ("first", "asleep", 2 * GIB),
    ]

    def metric(name: str, label: str) -> dict[str, float]:
        return {each.labels[label]: each.value for each in samples if each.name == name}

    assert metric("director_device_memory_reserved_bytes", "by") == memory.by_kind
    sizes = [each for each in samples if each.name == "director_model_memory_bytes"]
    taken = {(each.labels["model"], each.labels["by"]): each.value for each in sizes if each.labels["by"] != "measured"}
    assert taken == {
        ("first", "asleep"): 2 * GIB,
        ("first", "declared"): 2 * GIB,
        ("second", "reserved"): 2 * GIB,
        ("second", "declared"): 2 * GIB,
    }
    used = metric("director_model_last_use_timestamp_seconds", "model")
    assert used["second"] - used["first"] == pytest.approx(3, abs=0.001)

    (line,) = (line for line in lines if line[:1] == ["first"])
    assert " ".join(line).startswith("first simulated:0 asleep 2 GiB of host used 5 s ago")
    (line,) = (line for line in lines if line[:1] == ["second"])
    assert " ".join(line).startswith("second simulated:0 resident, pinned 2 GiB used 2 s ago")
    text = [" ".join(line) for line in lines]
    assert "simulated:0 3 of 4 GiB replicas 2 GiB, calls 1 GiB 1 GiB free 2 GiB of host asleep" in text


async def test_a_model_without_a_reservation_is_listed() -> None:
    director, free = Director("simulated:1"), model("free", None)
    dashboard = Dashboard(director)
    async with director:
        await director.run(str, model=free)
        seen = await dashboard.snapshot()
    assert [(each["model"], each["device"], each["state"]) for each in seen["models"]] == [
        ("free", "simulated:0", "resident")
    ]


@pytest.mark.slow
async def test_the_page_shows_them_and_hidden_characters_as_escapes() -> None:
    director = Director(simulated_devices(1, memory=4 * GIB))
    async with opened(director) as page:
        models = sleeper("first"), model("large", 4 * GIB), model("\x1b[31mevil\u202etxt")
        for each in models:
            await director.run(str, model=each)
        rows = page.locator("#models tbody tr")
        await rows.get_by_text("2.0 GiB of host").wait_for()
        await rows.get_by_text("\\x1b[31mevil\\u202etxt").wait_for()
        bar = page.locator(".devices .bar")
        await page.locator(".devices .bar[aria-label*='replicas 2.0 GiB']").wait_for()
        assert "reserved 2.0 of 4.0 GiB" in await bar.get_attribute("aria-label")
        text = await page.content()
        assert "\x1b" not in text
        assert "\u202e" not in text
