"""How many items a second can be served by their deadlines, by the Director's own decision on virtual time.

The profile is that of a ResNet-50, as papers on serving use it. With 8 devices that start in turn, a batch gathers for
an eighth of a call: `(1 + 1/8) * seconds(b)` must fit in the deadline. That bounds `b`, and with it the rate.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from harness.play import Play

from benchmarks import deadlines, lines
from benchmarks.batching import plan
from benchmarks.deadlines import Profile
from director._jobs.options import BatchRule, Options
from director._jobs.state import JobState
from director.cli._bench.sheet import Effort, Sheet, turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.deadlines import Rule
    from director._jobs.job import ScheduledJob

DEVICES = 8
DEADLINE = 0.025  # s
FIXED = 0.005072  # s of a call, whatever its size
EACH = 0.001053  # s of each item in it
SHARE = 0.99  # of the items that must be in time
MOST = 32  # items in a batch: more than the deadline allows, so that only the decision limits it

PROFILE = Profile(FIXED, EACH, MOST)

EAGER = "director"
DEFERRED = "director, max_wait 25 ms"
GREEDY = "greedy by arrival, exact"
FIRST_LIMITS = "strictly by deadline, exact"
LARGEST = "largest batch, others stay, exact"
LARGEST_ONLY = "largest batch, others fail, exact"
OPTIMUM = "staggered, analytic"


def optimum() -> float:
    """Items a second at most, if arrivals were even and all devices started in turn."""
    size = int((DEADLINE / (1 + 1 / DEVICES) - FIXED) / EACH)
    return DEVICES * size / PROFILE.seconds(size)


def played(moments: list[float], max_wait: float) -> list[bool]:
    """Whether each item is in time, as the Director decides."""
    play = Play([1] * DEVICES, lambda jobs, _: PROFILE.seconds(len(jobs)))
    rule = BatchRule("resnet", max_size=MOST, max_wait=max_wait)
    teach(play, rule)
    jobs = play.arrive([play.now + moment for moment in moments], Options(deadline=DEADLINE, batch_rule=rule))
    return [_is_in_time(job) for job in jobs]


def _is_in_time(job: ScheduledJob[Any]) -> bool:
    if job.state is not JobState.SUCCEEDED:
        return False
    assert job.finished_at is not None
    return job.finished_at <= job.submitted_at + DEADLINE + 1e-9


def teach(play: Play, rule: BatchRule) -> None:
    """Let it see calls of several sizes on each device, in order to learn what they cost."""
    for size in (1, 4, 16) * 2:
        for _ in range(DEVICES * size):
            play.submit(Options(batch_rule=rule))
        play.run()


def greedy(moments: list[float]) -> list[bool]:
    """Whether each item is in time when a free device takes all that wait, whatever their deadlines."""
    stays, _ = lines.batches(moments, PROFILE.seconds, DEVICES, MOST)
    return [stay <= DEADLINE for stay in stays]


def _tried(moments: list[float], rule: Rule, keep: bool) -> list[bool]:
    return deadlines.serve(moments, DEADLINE, DEVICES, PROFILE, rule, keep)


def highest_rate(serve: Callable[[list[float]], list[bool]], count: int, seed: int, precision: float = 20.0) -> float:
    """The highest Poisson rate, in items a second, at which enough of `count` items are in time: by bisection."""
    low, high = 0.4 * optimum(), optimum()
    while high - low > precision:
        rate = (low + high) / 2
        served = serve(plan(rate, count, seed))
        low, high = (rate, high) if sum(served) >= SHARE * count else (low, rate)
    return low


def measure(effort: Effort) -> Sheet:
    """The highest rates; one seed a round."""
    sheet = Sheet()
    contenders: dict[str, Any] = {
        EAGER: partial(played, max_wait=0.0),
        DEFERRED: partial(played, max_wait=DEADLINE),
        GREEDY: greedy,
        FIRST_LIMITS: partial(_tried, rule=PROFILE.first_limits, keep=False),
        LARGEST: partial(_tried, rule=PROFILE.largest, keep=True),
        LARGEST_ONLY: partial(_tried, rule=PROFILE.largest, keep=False),
    }
    count, rounds = effort.pick((100_000, 3), (10_000, 1))
    for seed in range(1, rounds + 1):
        for name, serve in turns(list(contenders.items()), rounds=1):
            sheet.add(name, "rate", "/s", highest_rate(serve, count, seed))
        sheet.add(OPTIMUM, "rate", "/s", optimum())
    return sheet
