"""The channel of a stream against a simple model: a real thread puts, and the test is the event loop.

Nothing sleeps: the thread says when it is done with a `put`, and its bell says when the thread waits at it.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from harness.effort import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from director._jobs.stream_channel import StreamChannel
from director.errors import SlowReader
from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RARELY = st.sampled_from([False] * 9 + [True])  # for what ends nearly everything
PATIENCE = 20.0  # real seconds until a thread that neither waits nor comes back is called lost


class Bell:
    """A bell that tells whether somebody waits at it, and minds that each wait is ended by one release."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._is_released = False
        self._waits = False

    def acquire(self) -> None:
        with self._changed:
            self._waits = True
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._is_released, PATIENCE), "nobody ended the wait"
            self._waits = self._is_released = False

    def release(self) -> None:
        with self._changed:
            assert not self._is_released, "rung twice for one wait"
            self._is_released = True
            self._changed.notify_all()

    @property
    def holds_somebody(self) -> bool:
        return self._waits and not self._is_released


class Putter:
    """A thread that puts what it is told to, one value at a time."""

    def __init__(self, channel: StreamChannel[Any]) -> None:
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        self._channel = channel
        self._bell = channel._room_signal = Bell(self.changed)  # type: ignore[assignment]
        self._told: deque[Any] = deque()
        self._ends = False
        self._thread = threading.Thread(target=self._work, name="director:putter", daemon=True)
        self._thread.start()

    def put(self, value: Any) -> None:
        """Have it put; returns when it has, or waits."""
        with self.changed:
            self._told.append(value)
            self.changed.notify_all()
        self.settle()

    def settle(self) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: not self._told or self._bell.holds_somebody, PATIENCE), "it is lost"

    @property
    def is_blocked(self) -> bool:
        return bool(self._told)

    def end(self) -> None:
        with self.changed:
            self._ends = True
            self.changed.notify_all()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._told or self._ends)
                if not self._told:
                    return
                value = self._told[0]
            try:
                self._channel.put(value)
            except BaseException as error:
                self.error = error
            with self.changed:
                self._told.popleft()
                self.changed.notify_all()


class Machine(RuleBasedStateMachine):
    """What is on the channel, who waits, and why nothing more is let on."""

    @initialize(size=st.integers(1, 3), limit=st.sampled_from([1.0, 3.0]), waits=st.booleans())
    def begin(self, size: int, limit: float, waits: bool) -> None:
        self.size, self.limit = size, limit
        self.is_patient = waits
        self.clock = TestClock()
        self.posts: deque[Callable[[], None]] = deque()
        self.wakes = self.looks = 0
        self.channel: StreamChannel[int] = StreamChannel(
            size, limit, lambda: self.is_patient, self.clock, self.posts.append, self.note_wake
        )
        self.putter = Putter(self.channel)
        self.numbers = iter(range(10_000))
        self.on_it: deque[int] = deque()
        self.pending: int | None = None  # what a blocked `put` holds
        self.late_since: float | None = None  # since when the reader has to take a value, while that is timed
        self.is_crossed = False  # a value was accepted
        self.expected = False  # the reader wants to be woken, and has not been
        self.refusal: type[BaseException] | None = None
        self.has_left = False

    def note_wake(self) -> None:
        self.wakes += 1

    def teardown(self) -> None:
        if hasattr(self, "putter"):
            self.channel.close_reader()
            self.putter.end()

    # ---- the generator

    @precondition(lambda self: self.pending is None)
    @rule()
    def put(self) -> None:
        number = next(self.numbers)
        self.putter.error = None
        self.putter.put(number)
        if self.refusal is not None:
            assert type(self.putter.error) is self.refusal
        elif len(self.on_it) < self.size:
            self.arrive(number)
        else:
            self.pending = number
            if not self.is_patient and self.late_since is None:
                self.late_since = self.clock.time()

    def arrive(self, number: int) -> None:
        self.on_it.append(number)
        if self.expected:
            self.expected = False
            assert self.posts, "the reader is not woken"
        elif not self.is_crossed:
            self.late_since = self.clock.time()
        self.is_crossed = True

    # ---- the reader

    @precondition(lambda self: not self.has_left)
    @rule()
    def expect(self) -> None:
        self.looks += not self.on_it and not self.expected
        self.expected = not self.on_it
        assert self.channel.expect() is self.expected

    @precondition(lambda self: self.on_it)
    @rule()
    def take(self) -> None:
        assert self.channel.take() == self.on_it.popleft()
        self.late_since = None
        self.unblock()

    @rule(chance=RARELY)
    def leave(self, chance: bool) -> None:
        if chance:
            self.channel.close_reader()
            self.has_left = True
            self.on_it.clear()
            self.refuse(asyncio.CancelledError)

    # ---- the job, and the loop

    @rule(chance=RARELY)
    def shut(self, chance: bool) -> None:
        if chance:
            self.channel.close_writer()
            self.refuse(asyncio.CancelledError)

    @rule()
    def drain(self) -> None:
        self.is_patient = False
        self.channel.stop_waiting()
        if self.pending is not None and self.late_since is None:
            self.late_since = self.clock.time()

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 2.0]))
    def pass_time(self, seconds: float) -> None:
        """The loop makes the calls that were asked for; then time passes."""
        while self.posts:
            self.posts.popleft()()
        assert self.wakes == self.looks - self.expected, "woken for nothing, or not at all"
        self.clock.advance(seconds)
        if self.late_since is not None and self.clock.time() >= self.late_since + self.limit:
            self.refuse(SlowReader)

    def refuse(self, why: type[BaseException]) -> None:
        self.refusal = self.refusal or why
        if self.pending is not None:
            self.putter.settle()
            assert type(self.putter.error) is self.refusal
        self.pending = self.late_since = None

    def unblock(self) -> None:
        if self.pending is not None:
            self.putter.settle()
            number, self.pending = self.pending, None
            self.arrive(number)

    # ---- always

    @invariant()
    def is_as_the_model_says(self) -> None:
        if not hasattr(self, "putter"):
            return
        self.putter.settle()
        assert list(self.channel._values) == list(self.on_it)
        assert len(self.on_it) <= self.size
        assert self.channel.has_value is bool(self.on_it)
        assert self.putter.is_blocked is (self.pending is not None)
        assert self.pending is None or len(self.on_it) == self.size, "the generator waits though there is room"


TestBridge = Machine.TestCase
TestBridge.settings = settings(max_examples=examples(100), stateful_step_count=50)


def make_bridge(size: int = 1, **changes: Any) -> StreamChannel[Any]:
    arguments: dict[str, Any] = {
        "limit": 1.0,
        "is_patient": lambda: True,
        "clock": TestClock(),
        "call": lambda fn: None,
        "wake": lambda: None,
    }
    return StreamChannel(size, **{**arguments, **changes})


def test_a_reader_that_is_collected_under_the_lock_does_no_harm() -> None:
    """The collector may run anywhere: here it finds the reader on the generator's thread, in the middle of a `put`."""

    def is_patient() -> bool:
        gc_runs.append(1)
        channel.close_reader()
        return True

    gc_runs: list[int] = []
    channel = make_bridge(is_patient=is_patient)
    channel.put(1)
    with pytest.raises(asyncio.CancelledError):
        channel.put(2)
    assert gc_runs == [1]


def test_what_the_reader_left_is_let_go_outside_of_the_lock() -> None:
    class Value:
        def __del__(self) -> None:
            free.append(lock_is_free())

    def lock_is_free() -> bool:
        def look() -> None:
            if channel._lock.acquire(blocking=False):
                channel._lock.release()
                found.append(True)

        found: list[bool] = []
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join()
        return bool(found)

    free: list[bool] = []
    channel = make_bridge(3)
    channel.put(Value())
    gc.collect()
    channel.close_reader()
    assert free == [True]


def test_many_values_wake_the_reader_once() -> None:
    posts: list[Callable[[], None]] = []
    channel = make_bridge(100, call=posts.append)
    assert channel.expect()
    for number in range(100):
        channel.put(number)
    assert len(posts) == 1
    assert not channel.expect()
    assert [channel.take() for _ in range(100)] == list(range(100))
    assert len(posts) == 1


@pytest.fixture
def timed() -> Iterator[tuple[StreamChannel[Any], Putter, TestClock]]:
    """A channel of one place with a limit of 1 s, full, with the generator waiting since 10 s."""
    clock = TestClock()
    channel = make_bridge(is_patient=lambda: False, clock=clock, call=lambda fn: fn())
    putter = Putter(channel)
    clock.advance(10)
    putter.put("first")
    putter.put("second")
    yield channel, putter, clock
    channel.close_reader()
    putter.end()


def test_the_limit_counts_from_when_it_is_full(timed: tuple[StreamChannel[Any], Putter, TestClock]) -> None:
    _, putter, clock = timed
    clock.advance(0.9)
    assert putter.is_blocked
    clock.advance(0.1)
    putter.settle()
    assert isinstance(putter.error, SlowReader)
    assert (putter.error.seconds, putter.error.buffer) == (1.0, 1)


def test_each_value_that_is_taken_begins_a_new_limit(timed: tuple[StreamChannel[Any], Putter, TestClock]) -> None:
    channel, putter, clock = timed
    clock.advance(0.6)
    assert channel.take() == "first"
    putter.settle()
    putter.put("third")
    clock.advance(0.9)
    assert putter.is_blocked
    clock.advance(0.1)
    putter.settle()
    assert isinstance(putter.error, SlowReader)


def test_a_director_that_drains_does_not_begin_a_new_limit(timed: tuple[StreamChannel[Any], Putter, TestClock]) -> None:
    channel, putter, clock = timed
    clock.advance(0.5)
    channel.stop_waiting()
    clock.advance(0.5)
    putter.settle()
    assert isinstance(putter.error, SlowReader)


def test_a_reader_that_was_woken_goes_before_the_limit() -> None:
    """The loop was busy for longer than the limit, so the reader had no chance: it has one turn now."""
    clock = TestClock()
    posts: list[Callable[[], None]] = []
    channel = make_bridge(is_patient=lambda: False, clock=clock, call=posts.append)
    putter = Putter(channel)
    putter.put("first")
    putter.put("second")
    clock.advance(5)
    for post in posts:
        post()
    assert putter.is_blocked
    assert channel.take() == "first"
    clock.advance(0)
    assert putter.error is None
    channel.close_reader()
    putter.end()


def test_a_full_bridge_is_timed_by_one_timer_however_often_it_is_full() -> None:
    class CountingClock(TestClock):
        timers = 0

        def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
            self.timers += 1
            return super().call_later(delay, callback)

    clock = CountingClock()
    channel = make_bridge(is_patient=lambda: False, clock=clock, call=lambda fn: fn())
    putter = Putter(channel)
    for number in range(50):
        putter.put(number)
        assert number == 0 or putter.is_blocked
        if number:
            assert channel.take() == number - 1
            putter.settle()
    assert clock.timers == 1
    channel.close_reader()
    putter.end()
