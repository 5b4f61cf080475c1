"""What was learned long ago is doubted: one slow call must not have a function refused for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.desk import FAILED, SUCCEEDED, Desk

from director._jobs.options import BatchRule, Options

if TYPE_CHECKING:
    from director._jobs.job import ScheduledJob


class Bench:
    """One slot, and calls of one function of batches on it."""

    def __init__(self) -> None:
        self.desk = Desk([1])
        (self.slot,) = self.desk.slots
        self.options = Options(deadline=1.0, batch_rule=BatchRule("f", max_size=4))

    def call(self, seconds: float) -> ScheduledJob[object]:
        """An item; if it is run, it takes so long."""
        job = self.desk.admit(self.options)
        self.desk.settle()
        if self.slot.job is not None:
            self.desk.now += seconds
            self.desk.end(self.slot, seconds)
            self.desk.take(self.slot)
        self.slot.missed_deadline.clear()
        return job


def test_a_function_recovers_from_one_slow_call() -> None:
    """As the first one often is: it compiles, or fills its caches."""
    bench = Bench()
    bench.call(10.0)
    states = []
    for _ in range(300):
        states.append(bench.call(0.01).state)
        bench.desk.now += 1.0
    assert states[0] is FAILED, "while that is fresh, it is believed"
    assert states[-100:] == [SUCCEEDED] * 100


def test_what_is_confirmed_again_and_again_is_believed() -> None:
    bench = Bench()
    bench.call(10.0)
    ran = 0
    for _ in range(1000):
        ran += bench.call(10.0).state is not FAILED
        bench.desk.now += 1.0
    assert 0 < ran < 20


def test_under_load_it_is_believed() -> None:
    """Then calls are measured all the time, and no slot has time to try."""
    bench = Bench()
    for _ in range(5):
        bench.call(0.5)
    for _ in range(100):
        bench.desk.now += 0.1
        late = [bench.desk.admit(bench.options) for _ in range(20)]
        bench.desk.now += 0.9
        assert bench.call(0.5).state is SUCCEEDED
        assert all(job.state is FAILED for job in late)
