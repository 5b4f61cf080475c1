"""Every contender streams what it is timed for: each value once and in order, and the arithmetic is right."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from benchmarks import streams
from benchmarks.theory import GOALS
from director.cli._bench.lost import PERIOD, nothing


@pytest.fixture(params=streams.EVERYBODY, ids=lambda streamer: streamer.name)
def streamer(request: pytest.FixtureRequest) -> streams.Streamer:
    found: streams.Streamer = request.param
    return found


async def test_each_value_comes_once_and_in_order(streamer: streams.Streamer) -> None:
    async def collect(count: int) -> list[int]:
        return [value async for value in read(partial(streams.count, values=count))]

    async with streamer.open(2) as read:
        assert await asyncio.gather(*map(collect, (0, 1, 100))) == [[], [0], list(range(100))]


async def test_it_can_be_measured(streamer: streams.Streamer) -> None:
    async with streamer.open(streams.STREAMS) as read:
        assert await streams.first_value(read, nothing, PERIOD) > 0
        assert await streams.each_value(read, 10) > 0
        assert 0 < await streams.rate(read, nothing, PERIOD) < 1 / streams.SECONDS


async def test_the_rate_is_what_one_stream_makes_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of four streams makes three values in the window: their number by its length."""

    class Made(streams.Ticker):
        def __init__(self) -> None:
            super().__init__()
            self.made = [0, 100, 200, 300, 400]

        def __call__(self, *_device: object):  # type: ignore[no-untyped-def]
            yield from ()

    async def no_time(*_: object) -> None:
        pass

    moments = iter([50, 350])
    monkeypatch.setattr(streams, "Ticker", Made)
    monkeypatch.setattr(streams, "carry", no_time)
    monkeypatch.setattr(streams.time, "perf_counter_ns", lambda: next(moments))
    async with streams.CALL_SOON.open(streams.STREAMS) as read:
        assert await streams.rate(read, nothing, 1.0) == pytest.approx(3 / 300e-9)


def test_goals_name_figures_that_exist() -> None:
    figures = {"without work: each value", *(f"{kind}: {burden}" for kind in ("first value", "values of 1 ms")
                                            for burden in streams.BURDENS)}  # fmt: skip
    names = {streamer.name for streamer in streams.EVERYBODY}
    for goal in GOALS:
        if goal.experiment == "streams":
            assert {goal.figure, goal.of or goal.figure} <= figures
            assert {goal.contender, goal.to or goal.contender} <= names
