"""Applications and servers are killed at any time: those that are left account for each of their jobs."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.conftest import is_alive, until

pytestmark = [pytest.mark.programs, pytest.mark.slow, pytest.mark.timeout(240)]
_KILLS = 12


def start(seed: int, errors: Path) -> subprocess.Popen[str]:
    """An application, whose errors go to a file: a server that it starts has its output, and outlives it."""
    program = Path(__file__).with_name("chaos_application.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command, pipe = [sys.executable, str(program), str(seed)], subprocess.PIPE
    with errors.open("ab") as written:
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=written, text=True, env=environment)


async def line_of(application: subprocess.Popen[str]) -> str:
    """The next line that an application writes."""
    assert application.stdout is not None
    return await asyncio.wait_for(asyncio.to_thread(application.stdout.readline), 60)


def servers(place: Path) -> list[int]:
    """The server processes of this test, which have its folder in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if (
                process.name.isdigit()
                and str(place).encode() in (process / "environ").read_bytes()
                and b"server chaos" in (process / "cmdline").read_bytes()
                and is_alive(int(process.name))
            ):
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_job_of_an_application_that_lives_has_an_end(runtime_dir: Path, tmp_path: Path, seed: int) -> None:
    chance, errors = random.Random(seed), tmp_path / "errors"
    applications = [start(seed * 100 + n, errors) for n in range(3)]
    try:
        assert [await line_of(each) for each in applications] == ["ready\n"] * 3

        for number in range(_KILLS):
            await asyncio.sleep(chance.random() / 2)
            if chance.random() < 0.5:
                for server in servers(runtime_dir):
                    os.kill(server, signal.SIGKILL)
            else:
                victim = chance.randrange(3)
                end(applications[victim])
                applications[victim] = start(seed * 100 + 10 + number, errors)
                assert await line_of(applications[victim]) == "ready\n"

        for each in applications:
            assert each.stdin is not None
            each.stdin.write("stop\n")
            each.stdin.flush()
        told = [await line_of(each) for each in applications]
        assert all(line.startswith("42 ") for line in told), (told, errors.read_text())
        assert [await asyncio.to_thread(each.wait, 60) for each in applications] == [0, 0, 0]
        assert "Traceback" not in errors.read_text()
        await until(lambda: not servers(runtime_dir))
    finally:
        for each in applications:
            end(each)


def end(application: subprocess.Popen[str]) -> None:
    """Kill an application, and close its pipes."""
    application.kill()
    application.wait()
    for pipe in (application.stdin, application.stdout):
        assert pipe is not None
        pipe.close()
