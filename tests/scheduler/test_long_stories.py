"""The machine of test_batch_machine.py in long stories of a crowd; in those that hypothesis likes few ever meet."""

from __future__ import annotations

import random
from typing import Any

import pytest
from harness.desk import CANCELLED
from harness.props import Wish

from scheduler.test_batch_machine import Machine

STEPS = 150
WEIGHTS = {
    "admit": 5,
    "work": 4,
    "workers_move": 3,
    "director_looks": 2,
    "settle": 1,
    "try_again": 2,
    "withdraw": 1,
    "advance": 1,
}


def wish(dice: random.Random) -> Wish:
    """As `harness.props.wishes`."""
    return Wish(
        function=dice.choice([None, 0, 0, 1, 1, 2]),
        key=dice.choice([0, 0, 1]),
        cost=dice.choice([1.0, 2.0, 3.0, 5.0, 20.0]),
        priority=dice.choice([0, 0, 0, 1, -1]),
        tenant=dice.choice([None, None, "a", "b"]),
        deadline=dice.choice([None, None, None, 0.5, 2.0, 4.0, 100.0]),
        allowed=dice.choice([None, None, None, frozenset({0}), frozenset({0, 1})]),
        many=dice.randint(1, 4),
    )


def step(machine: Machine, what: str, dice: random.Random) -> None:
    """One thing that may happen, unless nobody is there to whom it could."""
    seconds = dice.choice([0.0, 0.5, 1.0])
    if what == "admit":
        machine.admit([wish(dice) for _ in range(dice.randint(1, 6))], dice.random() < 0.8)
    elif what == "work":
        machine.work(dice.randint(1, 3), seconds, dice.random() < 0.4)
    elif what == "workers_move":
        machine.workers_move([dice.randrange(6) for _ in range(3)], seconds, dice.random() < 0.4)
    elif what == "director_looks":
        machine.director_looks(dice.randint(1, 4))
    elif what == "settle":
        machine.settle()
    elif what == "try_again" and machine.naive.paused:
        machine.try_again(dice.randrange(20))
    elif what == "withdraw" and machine.naive.waiting:
        machine.withdraw(dice.randrange(100), 2, CANCELLED)
    elif what == "advance":
        machine.advance(dice.choice([0.25, 0.5, 1.0, 3.0]))


def begin(machine: Machine, dice: random.Random) -> None:
    options: dict[str, Any] = {
        "counts": [dice.randint(1, 2) for _ in range(dice.randint(1, 3))],
        "max_queue": dice.choice([None, None, None, 12]),
        "per_tenant": dice.choice([None, None, 6]),
        "weights": dice.choice([{}, {"a": 2.0}]),
        "ageing": dice.choice([None, None, 3.0]),
        "predict": dice.random() < 0.3,
        "chosen": [dice.randrange(10) for _ in range(dice.randint(1, 3))],
    }
    machine.begin(**options)


@pytest.mark.parametrize("seed", range(24))
def test_a_crowd_is_served_as_the_naive_list_says(seed: int) -> None:
    dice = random.Random(seed)
    machine = Machine()
    try:
        begin(machine, dice)
        for what in dice.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS):
            step(machine, what, dice)
            machine.counts_are_right()
            machine.nobody_is_held_who_is_ripe()
            machine.no_wake_up_is_lost()
            machine.little_is_kept_alive()
    finally:
        machine.teardown()
