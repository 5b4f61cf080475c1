"""The loads on the event loop last about as long as they should."""

from __future__ import annotations

import time
from statistics import median

import pytest

from director.cli._bench.lost import BUSY, burdens

pytestmark = pytest.mark.serial


def seconds(burden: object) -> float:
    began = time.perf_counter()
    burden()  # type: ignore[operator]
    return time.perf_counter() - began


@pytest.mark.parametrize("name", ["loop blocked", "loop in Python", "loop in JSON"])
def test_a_busy_loop_is_busy_for_half_of_the_period(name: str) -> None:
    burden = burdens()[name]
    assert median(seconds(burden) for _ in range(9)) == pytest.approx(BUSY, rel=0.5)


def test_an_idle_loop_is_not() -> None:
    assert median(seconds(burdens()["idle loop"]) for _ in range(9)) < BUSY / 10
