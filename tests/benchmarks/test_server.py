"""The experiments with a server process do the work that they are timed for, and their goals name figures they have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import processes
from benchmarks.server import arrays, contenders, overhead, workers
from benchmarks.server.calls import parent_id, server_id
from benchmarks.theory import EXPERIMENTS, GOALS

if TYPE_CHECKING:
    from director.cli._bench.contenders import Contender

pytestmark = [pytest.mark.slow, pytest.mark.programs]
SERVED = (contenders.THREADS, contenders.PROCESSES)


@pytest.mark.parametrize("contender", SERVED, ids=lambda each: each.name)
async def test_jobs_run_in_a_server_of_its_own(contender: Contender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(contenders.FOLDER, "/as/before")
    which: Any = server_id if contender is contenders.THREADS else parent_id
    servers = []
    for _ in range(2):
        async with contender.open(2) as seat:
            await seat.gather([seat.submit(which) for _ in range(4)])
            servers.append(await seat.call(which))
            assert processes.those_with(contenders.FOLDER, os.environ[contenders.FOLDER])
    assert len({*servers, os.getpid()}) == 3
    assert os.environ[contenders.FOLDER] == "/as/before"


@pytest.mark.parametrize("contender", SERVED, ids=lambda each: each.name)
async def test_a_burst_and_round_trips_are_measured(contender: Contender) -> None:
    took, spent = await overhead.round_trip(contender, 1, 20)
    assert took > 0
    assert spent > 0
    times = await overhead.burst(contender, 500)
    assert 0 < times[overhead.LOOP] <= times[overhead.SERVER]
    assert times[overhead.APPLICATION] > 0
    assert times[overhead.WALL] > 0


async def test_an_array_comes_back_whole() -> None:
    assert arrays.over_socket(1, size=3_000_000) > 0
    assert await arrays.through_server(contenders.THREADS, 1, size=3_000_000) > 0


@pytest.mark.parametrize(("kind", "copies"), [(workers.SERVER, 1), (workers.SHARED, 2)])
def test_the_memory_of_a_model_is_counted_in_all_processes(kind: str, copies: int) -> None:
    assert workers.replicas_in_memory(kind, 1 << 27, workers=2) == pytest.approx(copies, abs=0.2)


@pytest.mark.parametrize("kind", [workers.SERVER, workers.SHARED])
def test_a_worker_is_timed_beside_one_that_computes(kind: str) -> None:
    p99, lost = workers.disturbed(kind, "one loop in Python", 0.2)
    assert p99 >= 0.005
    assert lost <= 1


def test_processor_time_of_a_process() -> None:
    before = processes.processor_time(os.getpid())
    sum(range(100_000))
    assert processes.processor_time(os.getpid()) > before
    assert processes.memory(os.getpid()) > 1 << 20
    assert processes.processor_ticks(os.getpid()) >= 0


def test_goals_name_figures_that_exist() -> None:
    burdened = [f"{figure}: {burden}" for figure in (workers.P99, workers.LOST) for burden in workers.BURDENS]
    figures = {"1 caller", overhead.SERVER, arrays.FIGURE, workers.COPIES, *burdened}
    names = {each.name for each in contenders.EVERYBODY} | {arrays.SOCKET, workers.SERVER, workers.SHARED}
    mine = [goal for goal in GOALS if goal.experiment.startswith("server-")]
    assert {goal.experiment for goal in mine} == {each.name for each in EXPERIMENTS if each.name.startswith("server-")}
    for goal in mine:
        assert {goal.figure, goal.of or goal.figure} <= figures
        assert {goal.contender, goal.to or goal.contender} <= names
