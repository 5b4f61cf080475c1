"""Experiments run in processes of their own."""

from __future__ import annotations

import os

import pytest

from director.cli._bench.catalog import ExperimentDied, run_apart

pytestmark = pytest.mark.programs


def who_and_where(greeting: str) -> tuple[str, int, int]:
    return greeting, os.getpid(), len(os.sched_getaffinity(0))


def die(status: int) -> None:
    os._exit(status)


def test_the_answer_comes_from_another_process() -> None:
    greeting, process, cores = run_apart(who_and_where, "hello")
    assert greeting == "hello"
    assert process != os.getpid()
    assert cores == len(os.sched_getaffinity(0))


def test_one_core_means_one() -> None:
    before = os.sched_getaffinity(0)
    _, _, cores = run_apart(who_and_where, "hello", one_core=True)
    assert cores == 1
    assert os.sched_getaffinity(0) == before


def test_a_process_that_dies_is_an_error_and_not_a_hang() -> None:
    with pytest.raises(ExperimentDied, match="exit status 3"):
        run_apart(die, 3)
