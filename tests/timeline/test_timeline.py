"""`director.timeline`: what it records of a Director at work."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import outcome, until

from director import Director, Model, QueueFull
from director._devices.readings import Reading
from director.errors import DiscoveryError
from director.testing import TestClock, simulated_devices
from director.timeline import Timeline
from director.timeline import _memory as memory
from director.timeline._memory import Meter, resident

if TYPE_CHECKING:
    from pathlib import Path

    from harness.gates import Gate


def fail(*_args: Any) -> None:
    raise ZeroDivisionError("no")


async def test_it_tells_the_story_of_a_run(clock: TestClock, gate: Gate) -> None:
    timeline = Timeline(name="mine")
    async with Director("simulated:1", hooks=[timeline], clock=clock, max_queue=1) as director:
        clock.advance(1)
        held = director.submit(gate, name="held")
        await gate.begun()
        waiting = director.submit(gate)
        with pytest.raises(QueueFull):
            director.submit(gate)
        clock.advance(2)
        waiting.cancel()
        gate.open()
        await held
        await outcome(director.run(fail))
    told = timeline.story()
    assert (told.name, told.since, told.until, told.slots) == ("mine", 0, 3, director.devices)
    assert [(job.name, job.state, job.submitted, job.started, job.ended) for job in told.jobs] == [
        ("held", "succeeded", 1, 1, 3),
        ("gate", "cancelled", 1, None, 3),
        ("fail", "failed", 3, 3, 3),
    ]
    assert (told.rejected, told.forgotten) == (1, 0)
    assert timeline.records() == list(told.jobs)


async def test_what_was_awaited_is_in_it() -> None:
    timeline = Timeline(memory=False)
    async with Director("simulated:1", hooks=[timeline]) as director:
        for number in range(1, 20):
            await director.run(lambda _: None)
            assert [job.job for job in timeline.records() if job.state == "succeeded"][-1] == number


async def test_what_is_not_over_is_in_it(clock: TestClock, gate: Gate) -> None:
    timeline = Timeline()
    async with Director("simulated:1", hooks=[timeline], clock=clock) as director:
        director.submit(gate)
        await gate.begun()
        director.submit(gate)
        clock.advance(2)
        told = timeline.story()
        assert [(job.state, job.started, job.ended) for job in told.jobs] == [
            ("running", 0, None),
            ("queued", None, None),
        ]
        assert [told.within(call) for call in told.calls] == [(0, 2)]
        gate.open()


async def test_a_run_that_went_badly_is_told_too(clock: TestClock, gate: Gate) -> None:
    """A call outlives its job, is left behind, and never comes back."""
    timeline = Timeline()
    director = Director("simulated:1", hooks=[timeline], clock=clock)
    await director.start()
    job = director.submit(gate)
    await gate.begun()
    clock.advance(2)
    job.cancel()
    assert [(job.state, job.ended, job.settled) for job in timeline.records()] == [("cancelled", None, 2)]
    gate.open()
    await director.close()
    assert [(job.state, job.ended, job.settled) for job in timeline.records()] == [("cancelled", 2, 2)]


async def test_it_forgets_the_oldest(clock: TestClock) -> None:
    timeline = Timeline(3)
    async with Director("simulated:1", hooks=[timeline], clock=clock) as director:
        for _ in range(5):
            await director.run(lambda _: clock.advance(1), name="it")
    told = timeline.story()
    assert [job.job for job in told.jobs] == [3, 4, 5]
    assert told.forgotten == 2
    assert (told.since, told.until) == (3, 5)  # from the first end that it knows: before that it would seem idle


async def test_it_begins_anew_with_the_director(clock: TestClock, tmp_path: Path) -> None:
    timeline = Timeline()
    director = Director("simulated:1", hooks=[timeline], clock=clock)
    for times in (3, 1):
        async with director:
            for _ in range(times):
                await director.run(lambda _: None)
        clock.advance(10)
        assert len(timeline.records()) == times
    assert (timeline.story().since, timeline.story().until) == (10, 10)


def test_before_any_director_it_is_empty(tmp_path: Path) -> None:
    timeline = Timeline()
    assert timeline.records() == []
    timeline.save(tmp_path / "trace.json")
    timeline.report(tmp_path / "page.html")
    assert len(json.loads((tmp_path / "trace.json").read_text())["traceEvents"]) == 4


async def test_loads_are_in_it(clock: TestClock) -> None:
    def load(device: Any) -> str:
        clock._now += 5
        return device.label  # type: ignore[no-any-return]

    timeline = Timeline()
    async with Director("simulated:1", hooks=[timeline], clock=clock) as director:
        await director.run(lambda _: None, model=Model(load, name="good"))
        await outcome(director.run(lambda _: None, model=Model(fail, name="broken")))
        device = director.devices[0]
    assert timeline.story().loads == (
        ("good", device, 0, 5, None),
        ("broken", device, 5, 5, "ZeroDivisionError: no"),
    )


async def test_it_can_be_looked_at_from_any_thread_while_jobs_end() -> None:
    timeline, ended = Timeline(500), threading.Event()
    sizes: list[int] = []

    def look() -> None:
        while not ended.is_set():
            sizes.append(len(timeline.trace()["traceEvents"]))

    thread = threading.Thread(target=look, daemon=True)
    async with Director("simulated:2", hooks=[timeline], max_queue=None) as director:
        thread.start()
        await asyncio.gather(*(director.submit(lambda _: None) for _ in range(5_000)))
        await until(lambda: len(sizes) > 2)
    ended.set()
    thread.join()
    assert len(timeline.records()) == 500


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_shows_nothing_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Timeline(limit)


# ---- memory


async def test_memory_is_sampled_until_the_director_closes() -> None:
    timeline = Timeline()
    async with Director("simulated:1", hooks=[timeline]):
        await until(lambda: timeline.story().memory)
        assert [thread.name for thread in threading.enumerate()].count("director:memory") == 1
    await until(lambda: "director:memory" not in [thread.name for thread in threading.enumerate()])
    [sample, *_] = timeline.story().memory
    assert sample.process is None or sample.process > 1_000_000
    assert sample.devices == {}


async def test_memory_is_left_alone_if_asked() -> None:
    timeline = Timeline(memory=False)
    async with Director("simulated:1", hooks=[timeline]):
        assert "director:memory" not in [thread.name for thread in threading.enumerate()]
    assert timeline.story().memory == ()


class Gpu:
    kind, uuid, label, node = "cuda", "GPU-1", "cuda:0", None


async def test_memory_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def read(uuids: Any) -> tuple[Reading, ...]:
        asked.append(uuids)
        return Reading("GPU-1", used_memory=5_000), Reading("GPU-2")

    monkeypatch.setattr(memory, "read", read)
    monkeypatch.setattr(memory, "resident", lambda: None)
    meter = Meter(lambda: 1.5, [Gpu(), *simulated_devices(1)])  # type: ignore[list-item]
    await until(meter.samples)
    meter.stop()
    assert meter.samples()[0] == (1.5, None, {"cuda:0": 5_000})
    assert asked[0] == ("GPU-1",)


async def test_many_samples_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PERIOD", 0)
    monkeypatch.setattr(memory, "MOST", 8)
    ticks = iter(range(10**9))
    meter = Meter(lambda: next(ticks), [])
    await until(lambda: meter.samples() and meter.samples()[-1].at > 100)
    meter.stop()
    samples = [sample.at for sample in meter.samples()]
    assert len(samples) <= 8
    assert samples == sorted(samples)
    assert samples[0] == 0


async def test_without_nvml_it_goes_on_without_gpus(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read(uuids: Any) -> None:
        raise DiscoveryError("NVML fails")

    monkeypatch.setattr(memory, "read", read)
    meter = Meter(lambda: 0.0, [Gpu()])  # type: ignore[list-item]
    await until(lambda: "goes on without the memory of the GPUs: NVML fails" in caplog.text)
    assert caplog.records[-1].levelno == logging.WARNING
    meter.stop()
    await until(lambda: "director:memory" not in [thread.name for thread in threading.enumerate()])


def test_where_the_system_does_not_say() -> None:
    assert resident() is None or resident() > 1_000_000  # type: ignore[operator]
