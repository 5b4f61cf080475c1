"""The regression guard: a quick run, which fails only where a ratio has become three times worse than its goal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.serial]

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("module", [("director", "bench"), ("benchmarks.theory",)], ids="-".join)
@pytest.mark.skipif("CI" not in os.environ, reason="it takes a minute of an otherwise idle machine; set CI=1 to run it")
@pytest.mark.timeout(300)
def test_no_ratio_is_grossly_lost(module: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    # A measurement of what is measured: coverage would trace our functions and nobody else's.
    untraced = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-m", *module, "--quick", "--goals", "--guard"]
    with capfd.disabled():  # the table is the point, whether or not the test fails
        print(flush=True)
        assert subprocess.run(command, env={**untraced, "PYTHONPATH": str(TESTS)}).returncode == 0
