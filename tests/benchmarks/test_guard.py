"""The regression guard: a quick run, which fails only where a ratio has become three times worse than its goal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif("CI" not in os.environ, reason="it takes a minute of an otherwise idle machine; set CI=1 to run it")
@pytest.mark.timeout(300)
def test_no_ratio_is_grossly_lost(capfd: pytest.CaptureFixture[str]) -> None:
    # A measurement of what is measured: coverage would trace our functions and nobody else's.
    untraced = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-m", "director", "bench", "--quick", "--guard"]
    with capfd.disabled():  # the table is the point, whether or not the test fails
        print(flush=True)
        assert subprocess.run(command, env=untraced).returncode == 0
