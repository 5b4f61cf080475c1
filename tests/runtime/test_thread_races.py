"""Two threads at the worst moment: what one reads and writes while another changes it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, ThreadClock, turns, until

from director import Director, DirectorClosed, JobState, Model
from director._executors.load_turns import LoadTurns
from director._jobs import model as models
from director._jobs.job_runner import SlotInfo
from director._runtime.devices import health
from director._runtime.loop_channel import LoopChannel
from director._scheduler.costs import LinearCost
from director._untrusted.keys import Interner
from director.testing import TestClock, simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable

in_thread = asyncio.to_thread


def two_at_once(call: Callable[[int], Any]) -> list[Any]:
    """What two threads get that make a call with their numbers."""
    results: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda n=n: results.update({n: call(n)}), daemon=True) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return [results[0], results[1]]


# ---- made when they are first needed


def test_two_threads_get_the_same_record_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    both, ref = threading.Barrier(2), models.ref

    def meet(target: Any) -> Any:
        both.wait(PATIENCE)
        return ref(target)

    monkeypatch.setattr(models, "ref", meet)
    model = Model(str)
    one, other = two_at_once(lambda _: model._kept())
    assert one is other is model._kept()


def test_two_threads_get_the_same_key_of_equal_objects() -> None:
    class Equal:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        def __hash__(self) -> int:
            return 1

    class Meeting(dict[Any, Any]):
        """Both threads look before one of them writes."""

        both = threading.Barrier(2)
        looks: threading.local = threading.local()

        def get(self, *args: Any) -> Any:
            found = super().get(*args)
            if not hasattr(self.looks, "first"):
                self.looks.first = True
                self.both.wait(PATIENCE)
            return found

    interner = Interner()
    interner._known = Meeting()
    one, other = two_at_once(lambda _: interner.key_of(Equal()))
    assert one is other


async def test_options_that_were_resolved_before_a_device_came_are_not_kept() -> None:
    async with Director("simulated:2") as director:
        resolver: Any = director._resolver
        resolve = resolver._resolve

        def resolve_as_it_comes(*args: Any) -> Any:
            resolved = resolve(*args)
            resolver.forget()
            return resolved

        resolver._resolve = resolve_as_it_comes
        await in_thread(lambda: director.as_executor(devices=0))
        assert not resolver._known


# ---- read while they change


def test_a_device_may_come_while_the_health_of_all_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[Any] = [object(), object()]
    registry: Any = object.__new__(health.HealthRegistry)
    registry._devices = {}
    registry.join(places[0])

    def come(_place: object) -> bool:
        registry.join(places[1])
        return True

    monkeypatch.setattr(health, "_backs_off", come)
    assert not registry.any_healthy


async def test_what_functions_cost_is_read_under_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Director("simulated:1") as director:
        double = director.function(lambda _device, items: items, max_batch_size=2, name="double")
        await asyncio.gather(double(1), double(2))
        await until(lambda: director.stats().functions)
        lock: Any = director._runtime.scheduler._lock  # type: ignore[union-attr]
        fit, owned = LinearCost.fit, []

        def note(line: LinearCost) -> Any:
            owned.append(lock._is_owned())
            return fit(line)

        monkeypatch.setattr(LinearCost, "fit", note)
        assert director.stats().functions
        assert owned
        assert all(owned)


class BetweenSteps(ThreadClock):
    """Stops a slot's thread where it asks for the time, once it `is_on`."""

    is_on = False

    def time(self) -> float:
        return super().time() if self.is_on else TestClock.time(self)


async def test_a_job_that_misses_its_deadline_is_counted_on_its_way(gate: Gate) -> None:
    clock = BetweenSteps()

    def work(_device: Any, items: list[int]) -> list[int]:
        clock._now += 3.0
        return items

    async with Director("simulated:1", clock=clock) as director:
        function = director.function(work, max_batch_size=2)
        await asyncio.gather(function.submit(1), function.submit(2))
        director.submit(gate, priority=1)
        await gate.begun()
        job = function.with_options(deadline=1.0).submit(3)
        clock.is_on = True
        clock.hold()
        gate.open()
        for _ in ("the end of the gate", "before the lock"):
            await in_thread(clock.asked.wait, PATIENCE)
            clock.asked.clear()
            clock.let()
        await in_thread(clock.asked.wait, PATIENCE)  # it has taken the job, and not posted it yet
        assert (job.state, job.done()) == (JobState.FAILED, False)
        stats = director.stats()
        ended = stats.succeeded + stats.failed + stats.cancelled
        clock.release()
        assert stats.queued + stats.running + ended == 4


# ---- told while another thread changes its mind


def test_a_director_that_opens_as_a_load_alone_ends_is_not_left_paused() -> None:
    turns, told = LoadTurns(), []
    may_end, has_ended = threading.Event(), threading.Event()
    has_begun = threading.Event()

    class Slots:
        def pause(self, _changed: Any) -> None:
            if self is late:
                may_end.set()
                if not turns._changed._is_owned():  # type: ignore[attr-defined]  # then the load may end before this
                    assert has_ended.wait(PATIENCE)
                told.append("pause")

        def resume(self) -> None:
            if self is late:
                told.append("resume")

        def running(self) -> set[int]:
            return set()

    first, late = Slots(), Slots()
    turns.add(first)
    slot = SlotInfo(0, simulated_devices(1)[0])

    def load() -> None:
        with turns.turn(Model(str, load_alone=True), first, slot):
            has_begun.set()
            assert may_end.wait(PATIENCE)
        has_ended.set()

    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    assert has_begun.wait(PATIENCE)
    turns.add(late)
    loading.join(PATIENCE)
    assert told == ["pause", "resume"]


async def test_an_entry_that_another_thread_left_to_an_interrupted_wake_up_is_delivered() -> None:
    loop, delivered = asyncio.get_running_loop(), []
    channel = LoopChannel(loop, lambda: take(), lambda: None)

    def take() -> None:
        while channel.left:
            channel.left -= 1
            call, args = channel.entries.popleft()  # type: ignore[misc]
            call(*args)

    notify = channel.wakeup.notify

    def interrupted() -> None:
        del channel.wakeup.notify  # type: ignore[method-assign]
        channel.call(delivered.append, 2)  # by another thread, which sees that a wake-up is on its way
        raise KeyboardInterrupt

    channel.wakeup.notify = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        channel.call(delivered.append, 1)
    assert channel.wakeup.notify == notify
    await turns()
    assert delivered == [1, 2]
    channel.stop(has_no_threads=True)


async def test_wake_ups_that_are_repeated_tell_of_memory_too() -> None:
    async with Director(simulated_devices(1, memory="1GiB")) as director:
        await director.run(lambda _: None, memory=1)
        scheduler: Any = director._runtime.scheduler  # type: ignore[union-attr]
        noted: list[int] = []
        scheduler._note_memory = lambda: noted.append(1)
        scheduler.wake_again()
        assert noted


async def test_an_executor_may_be_made_as_the_director_closes() -> None:
    director, loop = Director("simulated:1"), asyncio.get_running_loop()
    await director.start()
    resolver: Any = director._resolver
    count = resolver._count

    def close_and_count(model: Model[Any]) -> None:
        asyncio.run_coroutine_threadsafe(director.close(), loop).result(PATIENCE)
        count(model)

    resolver._count = close_and_count
    executor = await in_thread(lambda: director.as_executor(model=Model(str, around=nullcontext)))
    with pytest.raises(DirectorClosed):
        executor.submit(int)
