"""Full disks, and no /dev/shm: what can't be done is told, and goes on when there is room. In mounts of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from server.conftest import PATIENCE

pytestmark = pytest.mark.programs


@cache
def can_mount() -> bool:
    """Whether this user may mount in a namespace of its own."""
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(not can_mount(), reason="needs a user that may mount (root, with unshare)")


def run(runtime_dir: Path, mounts: str, program: str) -> str:
    """What a program prints that runs with these mounts."""
    runtime_dir.mkdir(mode=0o700)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "RUN": str(runtime_dir)}
    command = ["unshare", "-m", "sh", "-ec", f'{mounts}\nexec "$0" -c "$1"', sys.executable, program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=4 * PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


CROSS = """
import asyncio
from director import Director
from harness import served
async def main():
    for executor in ("thread", "process"):
        async with Director("simulated:1", server=executor, executor=executor, server_linger=0.0) as director:
            sent = await director.run(served.size, bytes(300_000))
            print(sent, len(await director.run(served.text, 300_000)))
asyncio.run(main())
"""
FULL_SHM = "mount -t tmpfs -o size=4k tmpfs /dev/shm\nhead -c 4096 /dev/zero > /dev/shm/full"
NO_SHM = """
mkdir "$RUN/dev"
mount -t tmpfs tmpfs "$RUN/dev"
for each in null zero random urandom; do touch "$RUN/dev/$each"; mount --bind /dev/$each "$RUN/dev/$each"; done
ln -s /proc/self/fd "$RUN/dev/fd"
mount --rbind "$RUN/dev" /dev
"""


@needs_mounts
@pytest.mark.timeout(180)
@pytest.mark.parametrize("mounts", [FULL_SHM, NO_SHM], ids=["full", "none"])
def test_large_values_cross_whatever_is_with_dev_shm(runtime_dir: Path, mounts: str) -> None:
    assert run(runtime_dir, mounts, CROSS) == "300000 300000\n" * 2


FULL = """
import asyncio, io, logging, os, shutil, signal
from contextlib import suppress
from pathlib import Path
from director import Director
from harness import served
from server.conftest import is_alive, server_of, until
told = io.StringIO()
logging.basicConfig(stream=told)
place = Path(os.environ["RUN"])
def fill():
    with suppress(OSError):
        for number in range(1000):
            (place / f"full{number}").touch()
def clear():
    for file in place.glob("full*"):
        file.unlink()
async def main():
    fill()
    director = Director("simulated:1", server="s", server_linger=0.0)
    try:
        await director.start()
    except (OSError, RuntimeError) as error:
        print(type(error).__name__, "No space left" in str(error), director.state.value)
    clear()
    async with director:
        fill()
        print(await director.run(served.size, bytes(300_000)))
        before = server_of(director)
        os.kill(before, signal.SIGKILL)
        while is_alive(before):  # not on the event loop: another server must not be started yet
            pass
        shutil.rmtree(place / "server")
        fill()
        await until(lambda: server_of(director) == -1)
        job = director.submit(served.process)
        await until(lambda: "Tried again" in told.getvalue())
        assert not director.healthy and not job.done()
        clear()
        print(await job != before, director.healthy)
asyncio.run(main())
"""


@needs_mounts
@pytest.mark.timeout(180)
def test_a_full_disk_for_sockets_and_locks_is_told_and_a_server_is_started_when_there_is_room(
    runtime_dir: Path,
) -> None:
    mounts = 'mount -t tmpfs -o size=256k,nr_inodes=16 tmpfs "$RUN"\nchmod 700 "$RUN"'

    assert run(runtime_dir, mounts, FULL).splitlines() == ["RuntimeError True new", "300000", "True True"]
