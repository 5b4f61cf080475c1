"""Many viewers: one rendering for all, at most 64, and none that holds up the loop, the others or the memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tracemalloc
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE

from dashboard.conftest import Browser, take
from director import Director
from director.dashboard import Dashboard, _feed, _site, _source
from director.dashboard._feed import MOST_VIEWERS, Feed
from director.dashboard._site import Site
from director.dashboard._source import Remote, TooManyViewers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from director.testing import TestClock


def filled(feed: Feed, rows: int = 20) -> None:
    """Every track has so many calls of the last minute."""
    recorder = feed.recorder
    now = recorder.clock()
    for track in recorder.tracks:
        for number in range(rows):
            begin = now - 50 + number * 0.1
            track.add(begin, begin + 0.06, number, "f", False)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a frame, and how often a whole, was rendered."""
    counts = {"_frame": 0, "_make_whole": 0}

    def counting(name: str) -> Callable[[Feed], Any]:
        render = getattr(Feed, name)

        def method(self: Feed) -> Any:
            counts[name] += 1
            return render(self)

        return method

    for name in counts:
        monkeypatch.setattr(Feed, name, counting(name))
    return counts


@contextlib.asynccontextmanager
async def viewers(feed: Any, count: int) -> AsyncIterator[list[Any]]:
    async with contextlib.AsyncExitStack() as stack:
        frames = [await stack.enter_async_context(aclosing(feed.frames())) for _ in range(count)]
        await asyncio.gather(*[anext(each) for each in frames])
        yield frames


async def test_one_rendering_serves_all(clock: TestClock, counted: dict[str, int]) -> None:
    feed = Feed(Director("simulated:8", clock=clock))
    async with feed._director:
        clock.advance(60)
        filled(feed)
        async with viewers(feed, 1) as (first,), viewers(feed, MOST_VIEWERS - 1) as others:
            assert counted == {"_frame": 1, "_make_whole": 1}
            seen = await asyncio.gather(*[take(each, 2) for each in (first, *others)])
        assert counted["_make_whole"] == 1
        assert counted["_frame"] <= 20, "those who look at the same time get the same frame"
        for name in ("number", "counts"):
            assert len({str([frame.get(name) for frame in frames]) for frames in seen}) <= 2


async def test_a_storm_of_viewers_that_begin_anew_is_served_by_few_renderings(
    clock: TestClock, counted: dict[str, int]
) -> None:
    feed = Feed(Director("simulated:4", clock=clock))
    async with feed._director:
        for _ in range(300):
            async with viewers(feed, 1):
                pass
    assert counted["_make_whole"] <= 1 + _seconds_of(counted)


def _seconds_of(counted: dict[str, int]) -> float:
    """An upper bound of the seconds that passed, by the frames that were cut in them."""
    return counted["_frame"] * _feed.INTERVAL


async def test_other_work_goes_on_while_the_whole_is_made(clock: TestClock) -> None:
    """A track is told at a time: the loop is late by one, however many there are."""
    feed = Feed(Director("simulated:64", clock=clock))
    async with feed._director:
        turns = 0

        async def work() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(work())
        async with viewers(feed, 1):
            assert turns >= 64
        task.cancel()


async def test_a_whole_that_was_made_before_goes_on_with_the_frames_since(clock: TestClock) -> None:
    feed = Feed(Director("simulated:2", clock=clock, name="x"))
    async with feed._director, viewers(feed, 1) as (first,):
        await feed._director.run(str)
        (told,) = await take(first, 1)
        async with aclosing(feed.frames()) as second:
            whole, frame = await take(second, 2)
        assert (whole["number"] + 1, frame["number"]) == (told["number"], told["number"])
        assert (whole["counts"]["succeeded"], frame) == (0, told)


async def test_a_viewer_that_makes_the_whole_and_leaves_holds_up_nobody(clock: TestClock) -> None:
    feed = Feed(Director("simulated:8", clock=clock))
    async with feed._director:
        leaving, staying = feed.frames(), feed.frames()
        first = asyncio.ensure_future(anext(leaving))
        second = asyncio.ensure_future(anext(staying))
        for _ in range(3):
            await asyncio.sleep(0)
        first.cancel()
        assert "identity" in json.loads((await second)[1])
        await staying.aclose()
        assert feed._viewers == 0


async def test_a_director_that_opens_again_meanwhile_is_told_as_it_is(clock: TestClock) -> None:
    feed = Feed(Director("simulated:4", clock=clock, name="x"))
    frames = feed.frames()
    making = feed._making
    await making.acquire()
    coming = asyncio.ensure_future(anext(frames))
    await asyncio.sleep(0)
    async with feed._director:
        making.release()
        assert json.loads((await coming)[1])["state"] == "open"
    await frames.aclose()


# ---- at most so many


async def test_one_more_is_refused_until_one_leaves(clock: TestClock) -> None:
    feed = Feed(Director("simulated:1", clock=clock))
    async with feed._director, viewers(feed, MOST_VIEWERS) as there:
        with pytest.raises(TooManyViewers, match="64 viewers look at this Director already"):
            await anext(feed.frames())
        answer = await Browser(Site(feed)).get("/events")
        assert (answer.status, answer.headers["retry-after"]) == (503, str(_source.RETRY_AFTER))
        assert answer.headers["cache-control"] == "no-store"
        assert (await Browser(Site(feed)).get("/snapshot")).status == 200
        await there[0].aclose()
        assert (await Browser(Site(feed)).get("/events", leave_after=1)).status == 200


async def test_through_the_socket_too(clock: TestClock, tmp_path: Path) -> None:
    director = Director("simulated:1", clock=clock)
    dashboard = Dashboard(director)
    async with dashboard.serve(tmp_path / "s") as path, director, viewers(Remote(path), MOST_VIEWERS):
        with pytest.raises(TooManyViewers, match="64 viewers"):
            await anext(Remote(path).frames())
        answer = await Browser(Site(Remote(path))).get("/events")
        assert (answer.status, answer.headers["retry-after"]) == (503, str(_source.RETRY_AFTER))
    feed: Any = dashboard._source
    assert feed._viewers == 0


# ---- viewers that do not read


class Whole:
    """A source of one frame of this many bytes, again and again."""

    def __init__(self, size: int) -> None:
        self.content = b'"' + b"x" * size + b'"'

    async def frames(self, after: int | None = None, interval: float = 0.0) -> AsyncIterator[tuple[int, bytes]]:
        while True:
            yield 1, self.content
            await asyncio.sleep(0)


async def stalled(app: Any, browser: Browser, after: int) -> list[int]:
    """Ask for the stream and take only so many messages; how large each was."""
    sizes: list[int] = []
    never = asyncio.Event()

    async def receive() -> Any:
        await never.wait()

    async def send(message: Any) -> None:
        sizes.append(len(message.get("body", b"")))
        if len(sizes) > after:
            await never.wait()

    await app(browser.scope("/events"), receive, send)
    return sizes


@pytest.mark.parametrize("after", [0, 1, 2, 5])
async def test_a_viewer_that_does_not_read_is_let_go(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_site, "_PATIENCE", 0.01)
    site = Site(Whole(1_000_000), longest_stream=0.05)  # type: ignore[arg-type]
    browser = Browser(site)
    async with asyncio.timeout(PATIENCE):
        sizes = await stalled(site, browser, after)
    assert max(sizes) <= 65_536, "no more than one piece is kept for it"


async def test_a_viewer_that_does_not_read_gives_its_place_back(
    clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_site, "_PATIENCE", 0.01)
    feed = Feed(Director("simulated:1", clock=clock))
    site = Site(feed, longest_stream=0.05)
    async with feed._director:
        await asyncio.gather(*[stalled(site, Browser(site), 2) for _ in range(MOST_VIEWERS)])
        assert feed._viewers == 0


@pytest.mark.usefixtures("quick")
async def test_memory_does_not_grow_with_viewers_that_leave(clock: TestClock) -> None:
    feed = Feed(Director("simulated:4", clock=clock))
    async with feed._director:
        filled(feed)
        for count in (200, 400):
            tracemalloc.start()
            for _ in range(count):
                with contextlib.suppress(asyncio.CancelledError):
                    async with viewers(feed, 1):
                        pass
            grown = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
        assert grown < 500_000


@pytest.mark.slow
async def test_a_thousand_come_at_once(clock: TestClock, counted: dict[str, int]) -> None:
    feed = Feed(Director("simulated:2", clock=clock))
    site = Site(feed, longest_stream=5)  # longer than it takes until all have come
    async with feed._director:
        answers = await asyncio.gather(*[Browser(site).get("/events") for _ in range(1000)])
    statuses = [answer.status for answer in answers]
    assert (statuses.count(200), statuses.count(503)) == (MOST_VIEWERS, 1000 - MOST_VIEWERS)
    assert counted["_make_whole"] == 1
