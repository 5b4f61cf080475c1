"""A decision takes about as many steps however much waits; steps are counted, so no machine is too slow for this."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from harness.play import Play

from benchmarks import memory, order
from director._jobs.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

FEW, MANY = 20, 1_000


def steps_of(call: Callable[[], object]) -> int:
    """Bytecodes that a call executes in Python."""
    steps = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return steps


def steps_for_each(case: order.Case, jobs: int, kinds: int) -> tuple[float, float]:
    """Steps of a submission into a growing crowd, and of a job that is taken out of it, or cancelled."""
    play = Play([1], lambda *_: 1.0, case.policy)
    play.submit(Options())  # takes the slot
    options = case.kinds(kinds)
    waiting = []

    def submit() -> None:
        for number in range(jobs):
            one, key = options[number % kinds]
            waiting.append(play.submit(one, key=key))

    def leave() -> None:
        for job in waiting if case.cancels else ():
            play.cancel(job)
        play.run()

    return steps_of(submit) / jobs, steps_of(leave) / jobs


@pytest.mark.parametrize("case", order.CASES.values(), ids=lambda case: case.name)
@pytest.mark.slow
def test_a_decision_does_not_look_at_everything_that_waits(case: order.Case) -> None:
    few = steps_for_each(case, 4 * FEW, 1 if case.jobs else FEW)
    many = steps_for_each(case, 4 * MANY, 1 if case.jobs else MANY)
    for before, after in zip(few, many, strict=True):
        assert after < 1.5 * before, f"{before:.0f} steps with few, {after:.0f} with so many more"


@pytest.mark.parametrize("name", order.CASES)
def test_every_case_is_played_to_its_end(name: str) -> None:
    submitted, done = order.cost(name, 200, 1 if order.CASES[name].jobs else 20)
    assert submitted > 0 < done


def steps_among(models: int) -> tuple[float, float]:
    """Steps of a submission while devices load, and of a job that is taken, with so many models waiting."""
    jobs = 300
    play, options, _ = memory.many_models(seed=1)

    def submit() -> None:
        for number in range(jobs):
            play.submit(options[number % models])

    return steps_of(submit) / jobs, steps_of(play.run) / jobs


def test_a_decision_looks_at_models_that_can_not_be_loaded_now_in_passing_only() -> None:
    submit, take = (many / few for few, many in zip(steps_among(10), steps_among(100), strict=True))
    assert submit < 4
    assert take < 9
