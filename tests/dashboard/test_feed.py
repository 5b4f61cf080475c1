"""Frames: the whole first, then what has changed, the same for all who look, and nothing while nobody does."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import until

from dashboard.conftest import take
from director import Director
from director.cli._top.known import DashboardState
from director.dashboard._feed import Feed

if TYPE_CHECKING:
    from pathlib import Path

    from harness.gates import Gate

    from director.testing import TestClock

pytestmark = pytest.mark.usefixtures("quick")


def fail(device: object) -> None:
    raise ZeroDivisionError("no good")


@pytest.mark.every_loop
async def test_the_whole_then_what_changes(clock: TestClock, gate: Gate) -> None:
    director = Director("simulated:2", clock=clock, name="vision")
    feed = Feed(director)
    async with director, aclosing(feed.frames()) as frames:
        (whole,) = await take(frames, 1)
        assert whole["identity"]["name"] == "vision"
        assert [device["slots"] for device in whole["identity"]["devices"]] == [[0], [1]]
        assert whole["counts"] == dict.fromkeys(
            ("queued", "running", "succeeded", "failed", "cancelled", "rejected"), 0
        )
        assert whole["tracks"] == {"0": [0, []], "1": [0, []]}
        job = director.submit(gate, name="detect")
        await gate.begun()
        clock.advance(2.5)
        (frame,) = await take(frames, 1)
        assert frame["number"] == whole["number"] + 1
        assert "identity" not in frame
        assert frame["counts"]["running"] == 1
        assert frame["tracks"] == {}
        ((slot, call),) = frame["calls"].items()
        assert call == [0, 1, job.id, "detect"]
        assert [device["share"] for device in sorted(frame["devices"], key=lambda device: device["busy"])] == [0, 1]
        assert [point[1:3] for point in frame["points"]] == [[0, 1], [0, 1]]
        (frame,) = await take(frames, 1)
        assert not {"counts", "state", "devices", "running", "calls"} & frame.keys(), "nothing has changed"
        assert frame["points"] == []
        gate.open()
        await job
        (frame,) = await take(frames, 1)
        assert frame["tracks"] == {slot: [0, [[0, 2.5, 1, 2.5, 0, False, job.id, "detect"]]]}
        assert frame["calls"] == {}


async def test_what_a_viewer_put_together_is_what_the_next_one_gets_whole(clock: TestClock) -> None:
    director = Director("simulated:2", clock=clock, slots=2)
    feed = Feed(director)
    async with director, aclosing(feed.frames()) as frames:
        first = DashboardState()
        for step in range(20):
            jobs = [director.submit(str) for _ in range(step)]
            await asyncio.gather(*jobs)
            clock.advance(0.3)
            for frame in await take(frames, 1):
                first.apply(frame)
        async with aclosing(feed.frames()) as others:
            second = DashboardState()
            second.apply((await take(others, 1))[0])
        assert first.seen["counts"]["succeeded"] == sum(range(20))
        assert {slot: track.rows for slot, track in first.tracks.items()} == {
            slot: track.rows for slot, track in second.tracks.items()
        }
        of_the_moment = {"points", "point", "number", "time", "loop_late"}
        same = first.seen.keys() & second.seen.keys() - of_the_moment
        assert {key: first.seen[key] for key in same} == {key: second.seen[key] for key in same}


async def test_two_viewers_get_the_same_frames(clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    feed = Feed(director)
    async with director, aclosing(feed.frames()) as one, aclosing(feed.frames()) as other:
        await take(one, 1)
        await take(other, 1)
        seen = await asyncio.gather(*[take(frames, 5) for frames in (one, other)])
        numbers = [[frame["number"] for frame in frames] for frames in seen]
        assert len(set(numbers[0]) & set(numbers[1])) >= 3
        by_number = {frame["number"]: frame for frame in seen[0]}
        assert all(frame == by_number.get(frame["number"], frame) for frame in seen[1])


async def test_a_viewer_that_comes_back_soon_goes_on_where_it_was(clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    feed = Feed(director)
    async with director:
        async with aclosing(feed.frames()) as frames:
            await take(frames, 3)
            last = feed._number
        async with aclosing(feed.frames(after=last - 1)) as frames:
            (frame,) = await take(frames, 1)
            assert frame["number"] == last
            assert "identity" not in frame


@pytest.mark.parametrize("after", [None, 0, 1_000_000])
async def test_a_viewer_that_was_away_for_long_gets_the_whole(after: int | None, clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    feed = Feed(director)
    async with director:
        async with aclosing(feed.frames()) as frames:
            await take(frames, 50)
        async with aclosing(feed.frames(after=after)) as frames:
            (frame,) = await take(frames, 1)
            assert "identity" in frame


async def test_a_viewer_of_an_app_that_was_started_again_gets_the_whole(clock: TestClock) -> None:
    """The numbers of the new one are others, or its changes would be taken for those of the old one."""
    seen = []
    for _ in range(2):
        director = Director("simulated:1", clock=clock)
        feed = Feed(director)
        async with director, aclosing(feed.frames()) as frames:
            seen.append({frame["number"] for frame in await take(frames, 20)})
    assert seen[0] & seen[1] == set()


async def test_a_clock_that_is_set_back_begins_anew(clock: TestClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moments of the charts would else be told twice, and those of another hour kept."""
    director = Director("simulated:1", clock=clock)
    feed = Feed(director)
    async with director, aclosing(feed.frames()) as frames:
        clock.advance(3)
        (whole,) = await take(frames, 1)
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() - 3600)
        (frame,) = await take(frames, 1)
        assert "identity" in frame
        latest = [each["points"][-1][0] for each in (whole, frame)]
        assert latest[0] - latest[1] == pytest.approx(3600, abs=5)
        assert "identity" not in (await take(frames, 1))[0]


async def test_names_that_are_very_long_are_cut(clock: TestClock, gate: Gate) -> None:
    """Each may stand in a frame hundreds of times."""
    director = Director("simulated:1", clock=clock)
    feed = Feed(director)
    async with director:
        with pytest.raises(ZeroDivisionError):
            await director.submit(fail, name="f" * 100_000)
        jobs = [director.submit(gate, name="g" * 100_000) for _ in range(2)]
        await gate.begun()
        async with aclosing(feed.frames()) as frames:
            (frame,) = await take(frames, 1)
        assert len(json.dumps(frame)) < 10_000
        assert frame["running"][0]["name"] == frame["waiting"][0]["name"] == "g" * 119 + "…"
        assert frame["failures"][0]["name"] == frame["ended"][0]["name"] == "f" * 119 + "…"
        gate.open()
        await asyncio.gather(*jobs)


async def test_nothing_is_made_while_nobody_looks(clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    feed = Feed(director)
    async with director:
        await director.run(str)
        await asyncio.sleep(0.03)
        assert len(feed._frames) == 0
        assert feed._view == {}


async def test_a_rest_without_viewers_is_not_told_as_a_change(
    clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("director.dashboard._feed._FORGOTTEN", 0.01)
    director = Director("simulated:1", clock=clock)
    feed = Feed(director)
    async with director:
        async with aclosing(feed.frames()) as frames:
            await take(frames, 1)
            number = feed._number
        await asyncio.sleep(0.02)
        async with aclosing(feed.frames(after=number)) as frames:
            assert "identity" in (await take(frames, 1))[0]


async def test_a_director_that_starts_again_is_told_whole(clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    feed = Feed(director)
    async with aclosing(feed.frames()) as frames:
        (frame,) = await take(frames, 1)
        assert (frame["state"], frame["identity"]["devices"]) == ("new", [])
        async with director:
            await director.run(str)
            (frame,) = await take(frames, 1)
            assert len(frame["identity"]["devices"]) == 1
        (frame,) = await take(frames, 1)
        assert (frame["state"], frame["healthy"]) == ("closed", False)
        async with director:
            (frame,) = await take(frames, 1)
            assert "identity" in frame
            assert (frame["state"], frame["counts"]["succeeded"]) == ("open", 0)


async def test_a_busy_loop_is_noticed(clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    feed = Feed(director)
    async with director, aclosing(feed.frames()) as frames:
        await take(frames, 1)
        step = asyncio.create_task(take(frames, 1))
        await asyncio.sleep(0)
        threading.Event().wait(0.05)  # this is what blocks it
        (frame,) = await step
        assert frame["loop_late"] >= 0.04


async def test_one_job_with_its_failure(clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    feed = Feed(director)
    async with director:
        job = director.submit(fail)
        with pytest.raises(ZeroDivisionError):
            await job
        clock.advance(3)
        feed.recorder.failures.describer.wait_idle()
        found = await feed.job(job.id)
        assert found is not None
        assert (found["state"], found["at"], found["why"]["count"]) == ("failed", 3, 1)
        assert "ZeroDivisionError: no good" in found["why"]["examples"][0]["traceback"]
        assert (await feed.failure(found["failure"])) == found["why"] | {"at": 3}
        assert await feed.job(99) is None
        assert await feed.failure(99) is None


async def test_a_snapshot_is_json(clock: TestClock, gate: Gate) -> None:
    director = Director("simulated:1", clock=clock, max_queue=10)
    feed = Feed(director)
    async with director:
        jobs = [director.submit(gate, name=name) for name in ("one", "two", "two")]
        await gate.begun()
        clock.advance(4)
        seen = json.loads(json.dumps(await feed.snapshot(), allow_nan=False))
        assert seen["waiting"] == [{"name": "two", "jobs": 2, "oldest": 4}]
        assert seen["why_waiting"] == "every slot is busy"
        assert [(job["name"], job["state"], job["waited"]) for job in seen["running"]] == [("one", "running", 0)]
        (device,) = seen["devices"]
        assert (device["device"], device["share"], device["busy"], device["slots"]) == ("simulated:0", 1, 1, [0])
        gate.open()
        await asyncio.gather(*jobs)


async def test_why_jobs_wait_beside_free_devices(clock: TestClock, gate: Gate) -> None:
    director = Director("simulated:2", clock=clock)
    feed = Feed(director)
    async with director:
        jobs = [director.submit(gate, devices=0) for _ in range(2)]
        await gate.begun()
        clock.advance(4)
        seen = await feed.snapshot()
        assert seen["why_waiting"] == "they may not run on simulated:1, where there is room"
        gate.open()
        await asyncio.gather(*jobs)


async def test_it_must_be_made_before_the_start() -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(RuntimeError, match="a hook is added before it starts"):
            Feed(director)


async def test_another_event_loop_is_refused(clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    feed = Feed(director)
    async with director:
        with pytest.raises(RuntimeError, match="served by the event loop that its Director runs on"):
            await asyncio.to_thread(asyncio.run, feed.snapshot())


async def test_a_million_points_are_not_told_at_once(clock: TestClock) -> None:
    director = Director("simulated:1", clock=clock)
    feed = Feed(director)
    async with director, aclosing(feed.frames()) as frames:
        whole: dict[str, Any] = (await take(frames, 1))[0]
        clock.advance(1_000_000)
        (frame,) = await take(frames, 1)
        assert len(frame["points"]) <= 300
        assert whole["series"][0] == "time"
        assert len(frame["points"][0]) == len(whole["series"])


async def test_jobs_that_wait_for_slots_of_calls_whose_jobs_have_ended(clock: TestClock, gate: Gate) -> None:
    director = Director("simulated:1", clock=clock)
    feed = Feed(director)
    async with director:
        job = director.submit(gate)
        await gate.begun()
        director.submit(gate)
        assert (await feed.snapshot())["why_waiting"] == "every slot is busy"
        job.cancel()
        seen = await feed.snapshot()
        assert seen["why_waiting"] == "every slot is held by a call whose job has ended"
        assert [(device["busy"], device["abandoned"]) for device in seen["devices"]] == [(1, 1)]
        gate.open()


async def test_jobs_that_wait_for_slots_of_another_process(
    clock: TestClock, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIRECTOR_RUNTIME_DIR", str(tmp_path))
    director = Director("simulated:1", clock=clock, shared="x")
    feed = Feed(director)
    async with director, Director("simulated:1", shared="x") as other:
        other.submit(gate)
        await gate.begun()
        director.submit(gate)
        await until(lambda: director.stats().devices[0].elsewhere == 1)
        assert (await feed.snapshot())["why_waiting"] == "another process has slots of simulated:0"
        gate.open()
