"""A Director and the simulation decide alike: any story gives the same jobs on the same slots, in the same order."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from harness.effort import examples
from harness.play import Play
from harness.stage import Stage, Watch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from director import Model
from director._device import SimulatedDevice
from director._jobs.options import Options
from director._scheduler.policy import SchedulingPolicy

if TYPE_CHECKING:
    from director._jobs.job import ScheduledJob
    from director._scheduler.slots import Slot

SIZES = (1, 2, 3)  # of the models
MEMORY = (3, 4)  # of the devices


@dataclass(frozen=True)
class Wish:
    """A job: how long after the one before it comes, its model, its priority, and what its call takes."""

    gap: int
    model: int | None
    priority: int
    seconds: int
    deadline: int | None


@dataclass
class Story:
    """Times are unequal, so that no two events fall together: their order would be that of the threads."""

    wishes: list[Wish]
    loads: tuple[int, int, int]
    started: list[tuple[int, int]] = field(default_factory=list)  # number of the job and of its slot
    ended: dict[int, str] = field(default_factory=dict)

    def arrivals(self) -> list[float]:
        gaps = itertools.accumulate(wish.gap for wish in self.wishes)
        return [gap + 0.0101 * (at + 1) for at, gap in enumerate(gaps)]

    def call_seconds(self, at: int) -> float:
        return self.wishes[at].seconds + 0.00037 * (at + 1)

    def load_seconds(self, model: int) -> float:
        return self.loads[model] + 0.0000019 * (model + 1)

    def deadline(self, at: int) -> float | None:
        deadline = self.wishes[at].deadline
        return None if deadline is None else deadline + 0.00000077 * (at + 1)


def played(wishes: list[Wish], loads: tuple[int, int, int], devices: tuple[SimulatedDevice, ...]) -> Story:
    story = Story(wishes, loads)
    models = [Model(lambda device: device, memory=size, name=str(size)) for size in SIZES]

    def begin(jobs: list[ScheduledJob[Any]], slot: Slot) -> float:
        story.started.append((jobs[0].id - 1, slot.number))
        return story.call_seconds(jobs[0].id - 1)

    play = Play(
        [1] * len(devices),
        begin,
        SchedulingPolicy(),
        devices=devices,
        load_seconds=lambda model, _slot: story.load_seconds(models.index(model)),
    )
    jobs = []
    for at, (time, wish) in enumerate(zip(story.arrivals(), wishes, strict=True)):
        play.run(until=time)
        model = None if wish.model is None else models[wish.model]
        jobs.append(play.submit(Options(model, wish.priority, story.deadline(at))))
    play.run()
    story.ended = {job.id - 1: job.state.value for job in jobs}
    return story


async def lived(wishes: list[Wish], loads: tuple[int, int, int], devices: tuple[SimulatedDevice, ...]) -> Story:
    """The same with threads, at a clock that is moved from event to event."""
    story = Story(wishes, loads)
    with pytest.MonkeyPatch.context() as patch:
        stage = Stage(Watch().install(patch), list(devices))
        ends: list[tuple[float, int, Any]] = []
        purposes: dict[Any, tuple[str, int]] = {}

        def loader(number: int) -> Any:
            def load(device: Any) -> Any:
                gate = stage.gate()
                purposes[gate] = "load", number
                gate(device)
                return device

            return load

        models = [
            Model(loader(number), memory=size, load_alone=False, name=str(size)) for number, size in enumerate(SIZES)
        ]
        await stage.open()
        pending = list(enumerate(zip(story.arrivals(), wishes, strict=True)))
        jobs: list[Any] = []
        known: set[Any] = set()
        begun_at = stage.clock.time()
        while True:
            await stage.quiet()
            now = stage.clock.time() - begun_at
            for gate in [gate for gate in stage.gates if gate.is_blocking and gate not in known]:
                known.add(gate)
                kind, number = purposes[gate]
                seconds = story.load_seconds(number) if kind == "load" else story.call_seconds(number)
                heapq.heappush(ends, (now + seconds, len(known), gate))
                if kind == "call":
                    slot = next(slot for slot in stage.slots if slot.job is not None and slot.job.fn is gate)
                    story.started.append((number, slot.number))
            if not ends and not pending:
                break
            if ends and (not pending or ends[0][0] < pending[0][1][0]):
                time, _, gate = heapq.heappop(ends)
                await stage.advance(max(0.0, time - now))
                gate.open()
                continue
            at, (time, wish) = pending.pop(0)
            await stage.advance(max(0.0, time - now))
            gate = stage.gate()
            purposes[gate] = "call", at
            model = None if wish.model is None else models[wish.model]
            jobs.append(stage.director.submit(gate, model=model, priority=wish.priority, deadline=story.deadline(at)))
        story.ended = {at: job.state.value for at, job in enumerate(jobs)}
        for job in jobs:
            if job.done():
                job.exception()
        await stage.director.close()
    return story


wishes = st.builds(
    Wish,
    gap=st.integers(0, 3),
    model=st.none() | st.integers(0, len(SIZES) - 1),
    priority=st.sampled_from([0, 0, 0, 1]),
    seconds=st.integers(0, 3),
    deadline=st.none() | st.none() | st.integers(1, 8),
)


ONE_EVICTION = [
    Wish(int(at == 3), model, 0, 0, None) for at, model in enumerate([0, 1, None, 1, 2, None, None, 1, None])
]
"""The last model fits on either device, if that unloads what it holds: one of them does."""


@pytest.mark.parametrize("count", [1, 2])
@example(ONE_EVICTION, (0, 1, 0))
@given(
    story=st.lists(wishes, min_size=1, max_size=14),
    loads=st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)),
)
@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
async def test_any_story_is_the_same_in_a_director_and_in_the_simulation(
    count: int, story: list[Wish], loads: tuple[int, int, int]
) -> None:
    devices = tuple(SimulatedDevice(at, f"SIM-{at}", f"simulated:{at}", "simulated", MEMORY[at]) for at in range(count))
    expected, real = played(story, loads, devices), await lived(story, loads, devices)
    assert real.started == expected.started
    assert real.ended == expected.ended
