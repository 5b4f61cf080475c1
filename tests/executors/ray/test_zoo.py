"""Hostile objects through the doors that lead to a Ray cluster, and a storm over it: programs of their own."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from harness.zoo_doors import cells
from harness.zoo_run import CLUSTER, summary, sweep
from zoo.conftest import ALL, SEED

from executors.ray.conftest import SLOW

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = 150
LIMIT = 4 * SLOW


@pytest.mark.timeout(LIMIT)
def test_each_cell_ends_well(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CLUSTER, cluster.address)
    chosen = random.Random(SEED).sample(cells("ray"), 4 * SAMPLE if ALL else SAMPLE)
    faults = sweep("ray", chosen, tmp_path)
    assert not faults, f"DIRECTOR_ZOO_SEED={SEED}, {len(chosen)} cells, {len(faults)} faults:\n{summary(faults)}"


@pytest.mark.timeout(LIMIT)
def test_each_value_of_a_storm_reaches_its_caller(cluster: Any) -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--ray", cluster.address]
    options = ["--seconds", "20", "--jobs", "600", "--values", "10000", "--seed", str(SEED)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " right, 0 foreign, 0 lost, 0 doubled\n" in done.stdout
