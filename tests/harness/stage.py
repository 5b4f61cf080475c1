"""A Director on a stage: its clock stands still, its jobs wait at gates, and `quiet` returns when nothing moves.

Nothing here sleeps or polls. Whoever may move (a slot that changes its state, a worker that goes to wait, a job at its
gate, a call that reaches the loop) notifies one condition; `quiet` runs the loop until it has nothing left to do, and
then waits on that condition until the threads are still too.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from director import Director, current_device
from director._jobs.job import ScheduledJob
from director._jobs.state import JOB_MOVES, JobState
from director._scheduler.slots import SLOT_MOVES, Slot, SlotState
from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

PATIENCE = 20.0  # real seconds until a stage that is not quiet is called a hang
_STILL = (SlotState.IDLE, SlotState.PARKED, SlotState.WORKING, SlotState.BACKING_OFF)
FOREVER = 3600.0  # a worker that lingers so long never leaves by itself
_MOVES = {JobState: JOB_MOVES, SlotState: SLOT_MOVES}


class Watch:
    """Sees every move of jobs and slots: notes those that no table allows, and tells `changed` of each.

    Moves are made under the scheduler's lock or on the loop, so `log` has them in the order in which they happened.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.log: list[tuple[Any, Any, Any]] = []  # who, from, to
        self.functions: dict[ScheduledJob[Any], Any] = {}  # of each job, which drops its own when it is over
        self.illegal: list[str] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Watch:
        """Watch all jobs and slots of this process until `monkeypatch` is undone.

        A thread ends in real time, so the grace of a close is real too: here it is none, for nothing ends by itself.
        """
        monkeypatch.setattr(Director.close, "__defaults__", (None, 0.0))
        monkeypatch.setattr(ScheduledJob, "state", self._watched(ScheduledJob.__dict__["state"]))
        monkeypatch.setattr(Slot, "state", self._watched(Slot.__dict__["state"]))
        return self

    def _watched(self, member: Any) -> property:
        def move(owner: Any, to: Any) -> None:
            with self.changed:
                before = member.__get__(owner) if _is_set(member, owner) else None
                self.log.append((owner, before, to))
                if before is None and isinstance(owner, ScheduledJob):
                    self.functions[owner] = owner.fn
                if before is not None and to not in _MOVES[type(to)][before]:
                    self.illegal.append(f"{type(owner).__name__} {before.value} -> {to.value}")
                member.__set__(owner, to)
                self.changed.notify_all()

        return property(member.__get__, move)

    def jobs(self) -> list[tuple[ScheduledJob[Any], JobState | None, JobState]]:
        """The moves of jobs so far."""
        return [move for move in self.log if isinstance(move[0], ScheduledJob)]


def _is_set(member: Any, owner: Any) -> bool:
    try:
        member.__get__(owner)
    except AttributeError:
        return False
    return True


class Gate:
    """A job that stands at a gate: it runs until the gate is opened, and ends as it was told.

    Args:
        changed: Notified when it begins.
        crowd: Counts the jobs inside, by device; their number is what a Director promises to bound.
    """

    def __init__(self, changed: threading.Condition, crowd: Crowd) -> None:
        self.__name__ = "gate"
        self._changed = changed
        self._crowd = crowd
        self._outcome: Any = None
        self.is_open = False
        self.is_inside = False
        self.calls = 0
        self.device: Any = None
        self.thread: threading.Thread | None = None
        self.args: tuple[Any, ...] = ()

    def __call__(self, resource: Any, *args: Any) -> Any:
        with self._changed:
            self.calls += 1
            self.device, self.args, self.thread = current_device(), args, threading.current_thread()
            self.is_inside = True
            self._crowd.enter(self)
            self._changed.notify_all()
            while not self.is_open:
                self._changed.wait()
            self._crowd.leave(self)
            self.is_inside = False
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def open(self, outcome: Any = None) -> None:
        """Let the job end: with `outcome`, or by raising it if it is an exception."""
        with self._changed:
            self._outcome, self.is_open = outcome, True
            self._changed.notify_all()

    @property
    def is_blocking(self) -> bool:
        """A thread stands at it."""
        return self.is_inside and not self.is_open


class Crowd:
    """The jobs that are inside their function now, and the most there ever were, by device."""

    def __init__(self) -> None:
        self.inside: list[Gate] = []
        self.most: Counter[Any] = Counter()

    def enter(self, gate: Gate) -> None:
        self.inside.append(gate)
        self.most[gate.device] = max(self.most[gate.device], self.on(gate.device))

    def leave(self, gate: Gate) -> None:
        self.inside.remove(gate)

    def on(self, device: Any) -> int:
        return sum(gate.device == device for gate in self.inside)


class _Bell:
    """The bell of a slot, which says when a worker waits for it."""

    def __init__(self, bell: Any, changed: threading.Condition) -> None:
        self._bell = bell
        self._changed = changed
        self.is_awaited = False

    def acquire(self, timeout: float = -1) -> bool:
        self._await(True)
        try:
            return self._bell.acquire(timeout=timeout)
        finally:
            self._await(False)

    def _await(self, is_awaited: bool) -> None:
        with self._changed:
            self.is_awaited = is_awaited
            self._changed.notify_all()


class Stage:
    """One Director with a clock that a test moves, and its gates.

    Args:
        watch: An installed one.
        devices: As for `Director`; and all of its other options.
        linger: Seconds that a worker without work waits before it leaves; real ones.
    """

    def __init__(
        self,
        watch: Watch,
        devices: Any = "cpu",
        *,
        linger: float = FOREVER,
        clock: TestClock | None = None,
        **options: Any,
    ) -> None:
        self.watch = watch
        self.clock = clock or TestClock()
        self.director = Director(devices, clock=self.clock, **options)
        self.gates: list[Gate] = []
        self.crowd = Crowd()
        self._left: list[Gate] = []  # of the time before a restart
        self._linger = linger

    async def open(self) -> Stage:
        """Start the Director, for the first time or again, on the running loop, which must be asyncio's own."""
        self._left += self.gates
        self.gates, self.crowd = [], Crowd()
        self._loop: Any = asyncio.get_running_loop()
        await self.director.start()
        runtime = self._runtime = self.director._runtime
        assert runtime is not None
        self._tell(runtime.loop_channel, "notify")
        if not hasattr(self._loop, "is_told"):
            self._loop.is_told = True
            self._tell(self._loop, "call_soon_threadsafe")
        self.places, self.slots, self.permits = (
            runtime.device_slots,
            runtime.scheduler.slots,
            runtime.worker_pool.permits,
        )
        runtime.scheduler.linger = self._linger
        self.bells = [_Bell(slot.wake_signal, self.watch.changed) for slot in self.slots]
        for slot, bell in zip(self.slots, self.bells, strict=True):
            slot.wake_signal = bell  # type: ignore[assignment]
        return self

    def gate(self) -> Gate:
        """A new job function."""
        gate = Gate(self.watch.changed, self.crowd)
        self.gates.append(gate)
        return gate

    def submit(self, *args: Any, **options: Any) -> tuple[Gate, ScheduledJob[Any]]:
        """A gate and the job that runs it."""
        gate = self.gate()
        return gate, self.director.submit(gate, *args, **options)

    async def quiet(self) -> None:
        """Return when the loop has nothing to do, and every worker waits, stands at a gate or has been reaped."""
        while True:
            while self._is_loop_busy():  # noqa: ASYNC110 - the loop itself is what is waited for
                await asyncio.sleep(0)
            self.wait(lambda: self._is_loop_busy() or self._is_still())
            if not self._is_loop_busy():
                return

    async def until(self, condition: Callable[[], Any]) -> None:
        """Return as soon as `condition` is true, however busy everything else is."""
        while not condition():
            if self._is_loop_busy():
                await asyncio.sleep(0)
            else:
                self.wait(lambda: self._is_loop_busy() or condition())

    def wait(self, condition: Callable[[], Any]) -> None:
        """Hold up the event loop until threads have made `condition` true."""
        with self.watch.changed:
            assert self.watch.changed.wait_for(condition, PATIENCE), f"this hangs: {self.slots} {self.bells}"

    def has_left(self, gate: Gate) -> bool:
        """No worker holds the job of `gate` any more: its outcome is on its way to the loop, or there."""
        return not gate.is_inside and all(slot.job is None or slot.job.fn is not gate for slot in self.slots)

    async def advance(self, seconds: float) -> None:
        """Move the clock and let everything happen that follows."""
        self.clock.advance(seconds)
        await self.quiet()

    async def close_in_haste(self) -> None:
        """Close; what stands at a gate is left behind."""
        closing = asyncio.ensure_future(self.director.close(timeout=0))
        await self.quiet()
        await closing

    def open_gates(self) -> None:
        """Let every job end, those that have not begun too."""
        for gate in self._left + self.gates:
            gate.open()

    @property
    def is_whole(self) -> bool:
        """All permits are back and every slot is at rest."""
        return all(
            self.permits[place]._value == len(place.slots) and all(slot.state is SlotState.IDLE for slot in place.slots)
            for place in self.places
        )

    def _is_still(self) -> bool:
        states = Counter(slot.state for slot in self.slots)
        parked = sum(
            bell.is_awaited and slot.state is SlotState.PARKED
            for slot, bell in zip(self.slots, self.bells, strict=True)
        )
        return (
            states[SlotState.PARKED] == parked
            and states[SlotState.WORKING] == sum(gate.is_blocking for gate in self.gates)
            and sum(states[state] for state in _STILL) == len(self.slots)
        )

    def _is_loop_busy(self) -> bool:
        """It has something to do, or is just being rung."""
        is_rung = self._runtime.loop_channel.ringing and self.director._runtime is self._runtime
        return bool(self._loop._ready or is_rung)

    def _tell(self, owner: Any, name: str) -> None:
        """Have a method, which threads call to reach the loop, notify `changed`."""
        call = getattr(owner, name)

        def call_and_tell(*args: Any, **options: Any) -> Any:
            result = call(*args, **options)
            with self.watch.changed:
                self.watch.changed.notify_all()
            return result

        setattr(owner, name, call_and_tell)
