"""The dashboard of a server process records only while somebody looks."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import rested

from dashboard.conftest import take
from director import Director
from director._server.shown import ShownDirector
from director.dashboard._on_demand import OnDemand
from director.dashboard._socket import SocketServer
from director.dashboard._source import Remote

if TYPE_CHECKING:
    from pathlib import Path

    from harness.gates import Gate

    from director.testing import TestClock

pytestmark = pytest.mark.usefixtures("quick")


def is_recorded(director: Director) -> bool:
    """Whether a job costs more than without a dashboard."""
    runtime: Any = director._runtime
    flags = (runtime.instrumentation.recording, runtime.instrumentation.listening)
    lifecycle = runtime.job_lifecycle
    assert flags == (lifecycle._is_recorded, lifecycle._is_watched)
    return any(flags)


def look_at(director: Director, opened_at: float = 0.0) -> OnDemand:
    return OnDemand(ShownDirector(director, opened_at, director.stats))


def fail(_device: object) -> None:
    raise ZeroDivisionError


async def test_jobs_are_recorded_from_the_first_look_on(clock: TestClock, gate: Gate) -> None:
    async with Director("simulated:1", clock=clock, name="server s") as director:
        source = look_at(director, opened_at=clock.time())
        clock.advance(100)
        await director.run(str, name="before")
        held = director.submit(gate, name="held")
        await gate.begun()
        assert not is_recorded(director)

        seen = await source.snapshot()
        assert is_recorded(director)
        assert (seen["open_for"], seen["counts"]["succeeded"], seen["ended"]) == (100, 1, [])
        assert [job["name"] for job in seen["running"]] == ["held"]
        clock.advance(1)
        gate.open()
        await held
        await asyncio.gather(director.submit(fail), return_exceptions=True)
        await rested(director)
        seen = await source.snapshot()
        assert {job["name"] for job in seen["ended"]} == {"held", "fail"}
        assert [failure["error"] for failure in seen["failures"]] == ["ZeroDivisionError"]
        assert seen["last_minute"]["succeeded"] == 1
        source.stop()


async def test_recording_stops_when_nobody_has_looked_for_some_time(
    clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("director.dashboard._on_demand.KEPT", 0.0)
    async with Director("simulated:1", clock=clock) as director:
        source = look_at(director)
        async with aclosing(source.frames()) as frames, aclosing(source.frames()) as others:
            await take(frames, 1)
            await take(others, 1)
            await others.aclose()
            await director.run(str, name="seen")
            assert is_recorded(director), "one still looks"
            (frame,) = await take(frames, 1)
        async with asyncio.timeout(10):
            while is_recorded(director):  # noqa: ASYNC110 - a timer of the event loop, which nothing announces
                await asyncio.sleep(0)
        await director.run(str, name="unseen")

        async with aclosing(source.frames(after=frame["number"])) as frames:
            (whole,) = await take(frames, 1)
        assert "identity" in whole, "what was seen before is gone"
        assert whole["ended"] == []
        assert whole["counts"]["succeeded"] == 2
        source.stop()
        assert not is_recorded(director)


async def test_a_hook_that_leaves_while_events_are_on_their_way_disturbs_nobody(clock: TestClock, gate: Gate) -> None:
    async with Director("simulated:1", clock=clock) as director:
        source = look_at(director)
        await source.snapshot()
        jobs = [director.submit(gate, name="held"), director.submit(fail)]
        await gate.begun()
        source.stop()
        jobs[0].cancel()
        gate.open()
        await asyncio.gather(*jobs, return_exceptions=True)
        await source.snapshot()
        await rested(director)
        assert (await source.snapshot())["counts"]["failed"] == 1
        assert await director.run(str) == str(director.devices[0])
        source.stop()


async def test_the_path_of_a_socket_is_that_of_the_latest_server(clock: TestClock, tmp_path: Path) -> None:
    async with Director("simulated:1", clock=clock, name="old") as old, Director("simulated:1", name="new") as new:
        first, second = (SocketServer(look_at(each), tmp_path / "s") for each in (old, new))
        await first.open(replace=True)
        assert (await Remote(tmp_path / "s").snapshot())["name"] == "old"
        await second.open(replace=True)
        await first.close()
        assert (await Remote(tmp_path / "s").snapshot())["name"] == "new"
        await second.close()
        assert not (tmp_path / "s").exists()
