"""Items through the Director, with a stream that takes lines when it is told to."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from director import Director
from director.cli._run.calls import flow as flow_module
from director.cli._run.calls.call import PlainJobs
from director.cli._run.calls.flow import Flow
from director.cli._run.calls.rules import Outcome, Rules
from director.cli._run.input.feed import Feed
from director.cli._run.input.items import Item
from director.cli._run.output.sinks import LinesOnly
from director.cli._run.progress.meter import Meter
from director.cli._run.progress.tally import Tally
from director.errors import DirectorClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable


class Reader:
    """Takes lines once its gate is open."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.gate = threading.Event()
        self.lines = b""
        self.closed = False

    def write(self, lines: bytes) -> None:
        self.asked.set()
        self.gate.wait()
        self.lines += lines

    def close(self) -> None:
        self.closed = True

    @property
    def results(self) -> list[Any]:
        return [json.loads(line)["result"] for line in self.lines.splitlines()]


class Calls:
    """The function: gives the item back, and counts."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, device: object, item: Any) -> Any:
        self.number += 1
        return item


@pytest.fixture
async def director() -> AsyncIterator[Director]:
    async with Director("cpu:1", max_queue=None) as director:
        yield director


def items(numbers: Iterable[int]) -> Iterable[Item]:
    return (Item(number, number, b"%d" % number) for number in numbers)


def make_flow(
    director: Director,
    reader: Reader,
    calls: Callable[[Any, Any], Any],
    *,
    window: int = 3,
    ordered: bool = False,
    tally: Tally | None = None,
) -> Flow:
    def failed(outcome: Outcome) -> None:
        raise AssertionError(outcome)

    tally = tally or Tally({"cpu:0": 1})
    jobs = PlainJobs(director, None, "calls")
    return Flow(jobs, calls, LinesOnly(reader), tally, Rules(window, ordered), failed=failed, leave=pytest.fail)


async def turn(times: int = 50) -> None:
    """Let the loop, and the threads it waits for, get on with whatever they can."""
    for _ in range(times):
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_slow_reader_holds_the_input_back(ordered: bool, director: Director) -> None:
    reader, calls = Reader(), Calls()
    feed = Feed(items(itertools.count()), ahead=1)
    flow = make_flow(director, reader, calls, ordered=ordered)
    run = asyncio.create_task(flow.run(feed))
    await asyncio.to_thread(reader.asked.wait)
    await turn()
    assert calls.number == 3
    flow.end()
    reader.gate.set()
    await run
    assert reader.results == [0, 1, 2]
    assert reader.closed


async def test_cancelled_it_writes_first_what_is_done(director: Director) -> None:
    reader, calls, tally = Reader(), Calls(), Tally({"cpu:0": 1})
    run = asyncio.create_task(make_flow(director, reader, calls, tally=tally).run(Feed(items(range(2)), ahead=1)))
    await asyncio.to_thread(reader.asked.wait)
    while tally.done < 2:  # the reader is asked as soon as the first is done
        await turn(1)
    run.cancel()
    await turn()
    assert not run.done()
    reader.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert reader.results == [0, 1]


async def test_a_call_that_runs_has_an_age(director: Director) -> None:
    reader, begun, gate, tally = Reader(), threading.Event(), threading.Event(), Tally({"cpu:0": 1})
    reader.gate.set()

    def held(device: object, item: Any) -> Any:
        begun.set()
        gate.wait()
        return item

    flow = make_flow(director, reader, held, tally=tally)
    sized = (Item(number, number, b"%d" % number, size=100 + number) for number in range(3))
    run = asyncio.create_task(flow.run(Feed(sized, ahead=3)))
    await asyncio.to_thread(begun.wait)
    ((first, size),) = flow.ages()  # the others wait
    ((second, _),) = flow.ages()
    assert size == 100
    assert 0.0 <= first < second
    gate.set()
    await run
    assert list(flow.ages()) == []
    assert tally.bytes_done == 303


async def test_a_device_that_has_joined_since_the_start(director: Director) -> None:
    reader, calls, tally = Reader(), Calls(), Tally({})
    reader.gate.set()
    meter = Meter(director, tally)
    meter.sample()
    assert meter.read().lanes == ()
    await make_flow(director, reader, calls, tally=tally).run(Feed(items(range(3)), ahead=1))
    assert reader.results == [0, 1, 2]
    assert {device: (lane.slots, lane.items) for device, lane in tally.lanes.items()} == {"cpu:0": (1, 3)}
    meter.sample()
    (lane,) = meter.read().lanes
    assert (lane.device, lane.items) == ("cpu:0", 3)


async def test_what_is_done_after_the_last_line_is_not_counted(director: Director) -> None:
    """The tally holds what has a line, for the summary tells it."""
    began, gate = threading.Event(), threading.Event()

    def slow(device: object, item: Any) -> Any:
        began.set()
        gate.wait()
        return item

    reader, tally = Reader(), Tally({"cpu:0": 1})
    reader.gate.set()
    run = asyncio.create_task(make_flow(director, reader, slow, tally=tally).run(Feed(items(range(1)), ahead=1)))
    await asyncio.to_thread(began.wait)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    gate.set()
    await director.drain()
    assert (reader.results, tally.succeeded, tally.left) == ([], 0, 1)


async def test_what_fails_after_the_end_is_not_logged_by_asyncio(director: Director) -> None:
    """As when the reader of the results has left: `director run ... | head`."""
    began, gate, logged = threading.Event(), threading.Event(), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context))

    def fail(device: object, item: Any) -> Any:
        began.set()
        gate.wait()
        raise ValueError(item)

    reader = Reader()
    reader.gate.set()
    run = asyncio.create_task(make_flow(director, reader, fail).run(Feed(items(range(1)), ahead=1)))
    await asyncio.to_thread(began.wait)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    gate.set()
    await director.drain()
    gc.collect()
    assert logged == []


async def test_cancelled_it_does_not_wait_forever(director: Director, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "_LAST_WORDS", 0.01)
    reader, calls = Reader(), Calls()
    run = asyncio.create_task(make_flow(director, reader, calls).run(Feed(items(range(2)), ahead=1)))
    await asyncio.to_thread(reader.asked.wait)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    reader.gate.set()


async def test_a_director_that_takes_no_more_ends_it_without_failing_the_rest(director: Director) -> None:
    reader, calls, tally = Reader(), Calls(), Tally({"cpu:0": 1})
    reader.gate.set()
    flow = make_flow(director, reader, calls, tally=tally)
    await director.close()
    await flow.run(Feed(items(range(100)), ahead=1))
    assert isinstance(flow.director_error, DirectorClosed)
    assert (tally.failed, tally.succeeded, reader.results) == (0, 0, [])
    assert tally.left >= 1


async def test_an_input_that_breaks_ends_it_after_what_was_read(director: Director) -> None:
    def broken() -> Iterable[Item]:
        yield from items(range(5))
        raise OSError("the disk is gone")

    reader, calls = Reader(), Calls()
    reader.gate.set()
    flow = make_flow(director, reader, calls)
    await flow.run(Feed(broken(), ahead=1))
    assert sorted(reader.results) == [0, 1, 2, 3, 4]
    assert str(flow.read_error) == "the disk is gone"
