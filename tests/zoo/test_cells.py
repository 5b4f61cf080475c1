"""Every hostile object through every door: whoever hands it in gets an answer or a clear error, and others nothing.

A sample of them, another one each day; ``DIRECTOR_ZOO_SEED`` repeats one, and ``DIRECTOR_ZOO=all`` runs everything.
"""

from __future__ import annotations

import os
import random
import sys
from typing import TYPE_CHECKING

import pytest
from harness import zoo
from harness.zoo_doors import DOORS, cells
from harness.zoo_run import summary, sweep

from zoo.conftest import ALL, SEED

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = {"thread": 800, "process": 250}
PROGRAMS = min(4, os.cpu_count() or 1)


@pytest.mark.timeout(600 if ALL else 120)
@pytest.mark.parametrize(
    "mode",
    [
        "thread",
        pytest.param("process", marks=pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")),
    ],
)
def test_each_cell_ends_well(mode: str, tmp_path: Path) -> None:
    everything = cells(mode)
    random.Random(SEED).shuffle(everything)
    chosen = everything if ALL else everything[: SAMPLE[mode]]
    faults = sweep(mode, chosen, tmp_path, PROGRAMS)
    assert not faults, f"DIRECTOR_ZOO_SEED={SEED}, {len(chosen)} cells, {len(faults)} faults:\n{summary(faults)}"


def test_the_zoo_is_large() -> None:
    assert len(zoo.OBJECTS | zoo.NUMBERS | zoo.ERRORS | zoo.CLOSING) > 200
    assert len(DOORS) > 60
