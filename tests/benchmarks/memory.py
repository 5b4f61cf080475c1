"""Models that come and go, by the Director's decision on virtual time: what its rules cost and gain.

Three questions: what it costs that no model waits for ever (*affinity*: a slot serves what it holds until nothing of
that waits), what the choice of victims gains (*lru*), and how many requests are in time on AlpaServe's machines, where
models are swapped (Li et al., OSDI 2023, and their published simulation).
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.play import Play

from director import Model
from director._device import simulated_devices
from director._jobs.options import BatchRule, Options
from director._scheduler.memory import memory
from director._scheduler.memory.ledger import DeviceMemory
from director._scheduler.policy import SchedulingPolicy
from director.cli._bench.sheet import Sheet
from director.errors import AdmissionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director._jobs.job import ScheduledJob
    from director._scheduler.memory.replica import Replica
    from director.cli._bench.sheet import Effort

GIB = 2**30
MODELS, FIT, CALL = 8, 3, 0.1
SKIPPED = 20  # one in so many jobs, the first, while nothing is loaded


class Responses(NamedTuple):
    """Seconds from submission to the end."""

    mean: float
    rarest_p99: float
    """Of the model that is asked for least."""
    last: float
    """The mean of the last tenth: far above the mean if the queue grows without end."""


def zipf(use: float, loads: list[float], count: int, seed: int) -> Responses:
    """One device with room for three of eight models; popularity by Zipf's law with .9, calls of .1 s.

    Args:
        use: Seconds of calls that come in a second.
        loads: Seconds of the load of each model.
        count: Jobs.
        seed: Of the arrivals.
    """
    rng = random.Random(seed)
    weights = [1 / (rank + 1) ** 0.9 for rank in range(MODELS)]
    models = [Model(lambda device: device, memory=GIB, name=str(rank)) for rank in range(MODELS)]
    options = [Options(model) for model in models]
    seconds = {id(model): load for model, load in zip(models, loads, strict=True)}
    play = Play(
        [1],
        lambda _jobs, _slot: CALL,
        SchedulingPolicy(),
        devices=simulated_devices(1, memory=FIT * GIB),
        load_seconds=lambda model, _slot: seconds[id(model)],
    )
    jobs: list[tuple[int, ScheduledJob[object]]] = []
    now = 0.0
    for rank in rng.choices(range(MODELS), weights, k=count):
        now += rng.expovariate(use / CALL)
        play.run(until=now)
        jobs.append((rank, play.submit(options[rank])))
    play.run()
    counted = [(rank, (job.finished_at or 0.0) - job.submitted_at) for rank, job in jobs[count // SKIPPED :]]
    everything = [each for _, each in counted]
    rarest = sorted(each for rank, each in counted if rank == MODELS - 1)
    last = everything[-len(everything) // 10 :]
    return Responses(_mean(everything), rarest[int(0.99 * len(rarest))], _mean(last))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def by_affinity(_here: DeviceMemory) -> bool:
    """In place of `DeviceMemory.has_worked_enough`: jobs that need a load go last, however long they wait."""
    return False


def in_order_of_arrival(_here: DeviceMemory) -> bool:
    """In place of the same: a load goes before jobs that could begin at once, if its job has come before them."""
    return True


def by_last_use(_here: DeviceMemory, replica: Replica, now: float) -> None:
    """In place of `note_use`: the least recently used leaves first."""
    replica.used_at = replica.worth = now


# ---- AlpaServe

DEVICES, MACHINE, SIZE = 16, 13 * GIB, 5_400_000_000
ASKED, LATENCY, OVERHEAD, RATE, SPREAD = 24, 0.238, 0.011, 40.0, 4.0
SECONDS, CUT = 200.0, 10.0


def requests() -> list[tuple[float, int]]:
    """The arrivals of their trace: each model's by a gamma process, with the generator and the seeds that they used."""
    import numpy as np

    weights = [(rank + 1) ** -0.5 for rank in range(ASKED)]
    found: list[tuple[float, int]] = []
    for rank, weight in enumerate(weights):
        generator = np.random.RandomState(rank)
        rate, shape = RATE * weight / sum(weights), 1 / SPREAD**2
        times = itertools.takewhile(lambda time: time <= SECONDS, _sums(generator, shape, 1 / (rate * shape)))
        found.extend((time, rank) for time in times)
    return sorted(found)


def _sums(generator: object, shape: float, scale: float) -> Iterator[float]:
    time = 0.0
    while True:
        time += float(generator.gamma(shape, scale))  # type: ignore[attr-defined]
        yield time


def goodput(slo: float, load: float) -> float:
    """The share of requests that end within `slo` times the latency, where a load takes `load` seconds."""
    models = [Model(lambda device: device, memory=SIZE, name=str(rank)) for rank in range(ASKED)]
    limit = slo * LATENCY
    options = [Options(model, deadline=limit, batch_rule=BatchRule(model.name)) for model in models]
    play = Play(
        [1] * DEVICES,
        lambda _jobs, _slot: LATENCY + OVERHEAD,
        SchedulingPolicy(predict=True),
        devices=simulated_devices(DEVICES, memory=MACHINE),
        load_seconds=lambda _model, _slot: load,
    )
    asked, jobs = 0, []
    for time, rank in requests():
        play.run(until=time)
        is_counted = CUT <= time <= SECONDS - CUT
        asked += is_counted
        try:
            job = play.submit(options[rank])
        except AdmissionError:
            continue
        if is_counted:
            jobs.append(job)
    play.run()
    return (
        sum(job.started_at is not None and (job.finished_at or 0) - job.submitted_at <= limit for job in jobs) / asked
    )


# ---- very many jobs

WEIGHTS = [1 / (rank + 1) for rank in range(100)]
RECOUNTED = 100  # one in so many steps


def many_models(seed: int) -> tuple[Play, list[Options], random.Random]:
    """100 models of unequal size on 4 unequal devices with 10 slots, options of a job for each, and what draws them."""
    rng = random.Random(seed)
    models = [Model(lambda device: device, memory=rng.randint(1, 8) * GIB, name=str(rank)) for rank in range(100)]
    options = [Options(model, memory=rng.choice([0, 0, GIB])) for model in models]
    devices = [simulated_devices(4, memory=size * GIB)[at] for at, size in enumerate((16, 24, 40, 80))]
    play = Play(
        [2, 2, 2, 4],
        lambda _jobs, _slot: 0.01,
        SchedulingPolicy(None),
        devices=devices,
        load_seconds=lambda _model, _slot: 0.05,
    )
    return play, options, rng


def many(count: int, seed: int = 1) -> int:
    """Jobs over 100 models of unequal size on 4 unequal devices: after how many steps a ledger exceeded its budget.

    A step is a submission, or the end of a call, a load or an unload, with the decisions that follow. After each of
    them the sum of each ledger is checked, and every so many steps that sum itself, by what is there.
    """
    play, options, rng = many_models(seed)
    ledgers = list(play.scheduler.memory.devices.values())
    over, now, steps, settle = 0, 0.0, 0, play._settle

    def settle_and_check() -> None:
        nonlocal over, steps
        settle()
        steps += 1
        for here in ledgers:
            if here.reserved > (here.budget or 0):
                over += 1
        if steps % RECOUNTED == 0:
            check_sums(play)

    play._settle = settle_and_check  # type: ignore[method-assign]
    for each in rng.choices(options, WEIGHTS, k=count):
        now += rng.expovariate(300)
        play.run(until=now)
        play.submit(each)
    play.run()
    check_sums(play)
    return over


def crowd(count: int, seed: int = 1) -> tuple[float, float]:
    """As many jobs submitted at once, and then run: microseconds of a submission, and of a job that is taken.

    The first slots load meanwhile, and the others are free: each submission asks whether they could take something.
    """
    play, options, rng = many_models(seed)
    jobs = rng.choices(options, WEIGHTS, k=count)
    gc.collect()
    began = perf_counter()
    for each in jobs:
        play.submit(each)
    submitted = perf_counter()
    play.run()
    return (submitted - began) / count * 1e6, (perf_counter() - submitted) / count * 1e6


def check_sums(play: Play) -> None:
    """Recount what slots and replicas have of each device, without the ledger's own sums.

    Raises:
        AssertionError: A sum is another one.
    """
    memory = play.scheduler.memory
    for place, here in memory.devices.items():
        replicas = {replica for known in memory.models.values() for replica in known.replicas if replica.place is place}
        calls = sum(slot.job.options.memory for slot in place.slots if slot.job is not None)
        assert here.reserved == sum(replica.size for replica in replicas) + calls, "the ledger has counted wrongly"


# ---- the experiment

SUBMIT, TAKE = "100 models: submit", "100 models: take"
DIRECTOR, AFFINITY, LRU = "director", "affinity alone", "least recently used"
UNEQUAL = [0.3, 3.0] * (MODELS // 2)
LIGHT = (0.05, 0.1, 0.2, 0.3)  # seconds of calls that come in a second


def unequal(use: float) -> str:
    """The name of a figure: loads of .3 and 3 s, so many seconds of calls in a second."""
    return f"mean: unequal loads, {use:g}"


@contextlib.contextmanager
def instead(owner: Any, name: str, rule: Callable[..., Any]) -> Iterator[None]:
    """Decide by another rule."""
    own = getattr(owner, name)
    setattr(owner, name, rule)
    try:
        yield
    finally:
        setattr(owner, name, own)


def measure(effort: Effort) -> Sheet:
    """The figures; one seed a round."""
    sheet = Sheet()
    count, rounds, jobs = effort.pick((20_000, 10, 1_000_000), (4_000, 2, 5_000))
    for seed in range(rounds):
        for name, cost in zip((SUBMIT, TAKE), crowd(5_000, seed), strict=True):
            sheet.add(DIRECTOR, name, "µs", cost)
        own = zipf(0.7, [1.5] * MODELS, count, seed)
        with instead(DeviceMemory, "has_worked_enough", by_affinity):
            affine = zipf(0.7, [1.5] * MODELS, count, seed)
        for name, found in ((DIRECTOR, own), (AFFINITY, affine)):
            sheet.add(name, "mean", "s", found.mean)
            sheet.add(name, "p99 of the rarest", "s", found.rarest_p99)
        for use in LIGHT:
            sheet.add(DIRECTOR, unequal(use), "s", zipf(use, UNEQUAL, count, seed).mean)
            with instead(memory, "note_use", by_last_use):
                sheet.add(LRU, unequal(use), "s", zipf(use, UNEQUAL, count, seed).mean)
    sheet.add(DIRECTOR, "in time", "", goodput(5, 0.22))
    sheet.add(DIRECTOR, "over budget", "", many(jobs))
    return sheet
