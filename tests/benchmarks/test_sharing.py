"""The benchmark of shared slots runs, and counts what it says."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from benchmarks.http.contender import environment
from benchmarks.sharing import compete

pytestmark = pytest.mark.slow


async def test_a_process_counts_its_jobs() -> None:
    count = await compete(time.monotonic(), 0.2, 0.01)
    assert 2 <= count <= 48  # two devices for 0.2 s, and what had begun by then


def test_a_run_as_short_as_can_be() -> None:
    command = [sys.executable, "-m", "benchmarks.sharing", "--rounds", "1", "--seconds", "0.2", "--jobs", "100"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^\| [124] \| (?:1|20) ms \| \d+\.\d% \|", done.stdout, re.M)) == 6
