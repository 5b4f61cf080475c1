"""What the main module of a program defines, in a server process and in the children of that process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.conftest import PATIENCE

pytestmark = pytest.mark.programs

PROGRAM = """
import asyncio, sys
from director import Director, Model
class Point:
    x = "mine"
def load(device):
    return Point()
def point(replica):
    return replica
async def main():
    async with Director("simulated:1", server="main", executor=sys.argv[1], server_linger=0.0) as director:
        print((await director.run(point, model=Model(load))).x)
if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_functions_of_a_main_module_run_in_the_server(runtime_dir: Path, tmp_path: Path, executor: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), executor]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=2 * PATIENCE)
    assert done.stdout == "mine\n", done.stderr
    assert runtime_dir.exists()
