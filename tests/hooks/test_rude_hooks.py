"""Hooks that raise, or call back into the Director at every event: the others hear everything, in one order, once."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from harness.odd import EXCEPTIONS

from director import Device, Director, DirectorClosed, Job, QueueFull
from director.events import Event, JobEnded, JobRejected, JobStarted, JobSubmitted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PATIENCE = 20.0


class Every:
    """A hook of every kind, each of whose methods does the same."""

    def __init__(self, do: Callable[[str], object]) -> None:
        self._do = do
        self.calls: Counter[str] = Counter()

    def _count(self, what: str) -> None:
        self.calls[what] += 1
        self._do(what)

    def __call__(self, event: Event) -> None:
        self._count("event")

    def begin(self, *_: object) -> None:
        self._count("begin")

    def end(self, _at: float) -> None:
        self._count("end")

    def record(self, _record: object) -> None:
        self._count("record")

    @contextmanager
    def around_call(self, jobs: Sequence[Job[Any]]) -> Iterator[None]:
        self._count("around_call")
        try:
            yield
        finally:
            self._count("left")


def same(_: Device, value: Any) -> Any:
    return value


def fail(_: Device) -> None:
    raise ZeroDivisionError


def raiser(make: Callable[[], BaseException]) -> Callable[[str], object]:
    def do(_: str) -> None:
        raise make()

    return do


RUDE = {name: make for name, make in EXCEPTIONS.items() if name != "exit"}


@pytest.mark.parametrize("make", RUDE.values(), ids=RUDE)
async def test_what_a_hook_raises_changes_nothing(make: Callable[[], BaseException]) -> None:
    """Not even if it is no `Exception`, or can't be logged; a hook after it hears the same as one before."""
    first, last = Every(lambda _: None), Every(lambda _: None)
    rude = Every(raiser(make))
    async with Director("simulated:2", hooks=[first, rude, last]) as director:
        jobs = [director.submit(same, number) for number in range(4)]
        failing = director.submit(fail)
        batch = director.function(lambda _, items: items, max_batch_size=4)
        jobs += [batch.submit(number) for number in range(4, 8)]
        done, _ = await asyncio.wait([*jobs, failing], timeout=PATIENCE)
        assert len(done) == 9
        assert [job.result() for job in jobs] == list(range(8))
        assert isinstance(failing.exception(), ZeroDivisionError)
    assert first.calls == last.calls
    assert rude.calls["event"] == first.calls["event"]
    assert rude.calls["record"] == first.calls["record"] == 9
    assert rude.calls["begin"] == rude.calls["end"] == 1
    assert first.calls["left"] == first.calls["around_call"] == rude.calls["around_call"]


@pytest.mark.parametrize(("what", "number"), [("event", 20), ("record", 6)])
def test_exit_in_a_hook_leaves_the_loop_and_loses_nothing(what: str, number: int) -> None:
    def leave(happened: str) -> None:
        left[happened] += 1
        if happened == what and left[happened] == number:  # some jobs have ended, and others have not
            raise SystemExit(7)

    left: Counter[str] = Counter()
    last = Every(lambda _: None)
    director = Director("simulated:1", hooks=[Every(leave), last])

    async def begin() -> list[Job[int]]:
        await director.start()
        return [director.submit(same, number) for number in range(8)]

    async def end(jobs: list[Job[int]]) -> list[int]:
        results = await asyncio.gather(*jobs)
        await director.close()
        return results

    with asyncio.Runner() as runner:
        jobs = runner.run(begin())
        watchdog = runner.get_loop().call_later(PATIENCE, runner.get_loop().stop)
        with pytest.raises(SystemExit, match="7"):
            runner.get_loop().run_forever()
        watchdog.cancel()
        assert runner.run(end(jobs)) == list(range(8))
    assert last.calls == left
    assert left["record"] == 8


async def test_hooks_that_call_back_hear_all_in_one_order() -> None:
    """What a hook causes is told after what it was called with, to all of them."""
    orders: list[list[tuple[str, int]]] = [[], []]

    def listen(order: list[tuple[str, int]]) -> Callable[[Event], None]:
        def hook(event: Event) -> None:
            if isinstance(event, (JobSubmitted, JobStarted, JobEnded)):
                order.append((type(event).__name__, event.job))

        return hook

    def submit_another(event: Event) -> None:
        if isinstance(event, JobSubmitted) and event.job < 20:
            director.submit(same, event.job)

    director = Director("simulated:2", hooks=[listen(orders[0]), submit_another, listen(orders[1])])
    async with director:
        await director.run(same, 0)
        await director.drain()
    assert orders[0] == orders[1]
    counts = Counter(name for name, _ in orders[0])
    assert counts == {"JobSubmitted": 20, "JobStarted": 20, "JobSucceeded": 20}
    for number in range(1, 21):
        assert [name for name, job in orders[0] if job == number] == ["JobSubmitted", "JobStarted", "JobSucceeded"]


async def test_a_hook_that_calls_back_at_every_event_does_not_hold_the_loop() -> None:
    """It submits at each, so that there is no end of them until the Director closes."""
    counts: Counter[str] = Counter()
    enough = asyncio.Event()

    def restless(event: Event) -> None:
        counts[type(event).__name__] += 1
        if counts["JobRejected"] == 10:
            enough.set()
        director.stats()
        with suppress(DirectorClosed, QueueFull):
            job = director.submit(same, 1)
            if counts.total() % 3 == 0:
                job.cancel()

    director = Director("simulated:1", hooks=[restless], max_queue=4)
    async with director, asyncio.timeout(PATIENCE):
        assert await director.run(same, "x") == "x"
        await enough.wait()
        await director.close()
    stats = director.stats()
    assert stats.queued == stats.running == 0
    assert counts["JobSubmitted"] == stats.succeeded + stats.cancelled
    assert counts["JobSucceeded"] == stats.succeeded
    assert counts["JobCancelled"] == stats.cancelled
    assert counts["JobRejected"] == stats.rejected


async def test_a_hook_that_blocks_delays_the_loop_and_nothing_else() -> None:
    released = threading.Event()
    heard: list[Event] = []

    def block(event: Event) -> None:
        heard.append(event)
        if isinstance(event, JobStarted) and not released.is_set():
            released.wait(0.05)
            released.set()

    async with Director("simulated:2", hooks=[block]) as director, asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*(director.run(same, number) for number in range(4))) == list(range(4))
    assert Counter(type(event).__name__ for event in heard)["JobSucceeded"] == 4


async def test_a_mock_is_a_hook_of_events() -> None:
    """It answers every attribute, and is asked for what it was made with only."""
    hook = Mock()
    async with Director("simulated:1", hooks=[hook]) as director:
        assert await director.run(same, 1) == 1
    names = [type(call.args[0]).__name__ for call in hook.call_args_list]
    assert names.count("JobSucceeded") == 1
    assert not hook.begin.called


async def test_a_refusal_is_told_with_its_error() -> None:
    heard: list[Event] = []
    async with Director("simulated:1", hooks=[heard.append], max_queue=0) as director:
        release = threading.Event()
        job = director.submit(lambda _: release.wait(PATIENCE))
        with pytest.raises(QueueFull):
            director.submit(same, 1)
        release.set()
        await job
    assert [type(event.error) for event in heard if isinstance(event, JobRejected)] == [QueueFull]
