"""What the interpreter sees: a child process that leaves with a job stuck, and one in Python's development mode."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.programs

LIMIT = 20.0  # seconds that a child may take; one that hangs at its exit takes for ever
STUCK = """
    import asyncio, threading
    from director import Director, JobAborted

    begun = threading.Event()

    def stuck(device):
        begun.set()
        threading.Event().wait()

    async def begin(director):
        await director.start()
        job = director.submit(stuck)
        waiting = director.submit(stuck)
        await asyncio.to_thread(begun.wait)
        return job
"""


def python(source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `source` in a new interpreter to its end."""
    command = [sys.executable, *options, "-c", textwrap.dedent(source)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


LEAVING = {
    "closed in haste": """
        async def main():
            director = Director("cpu")
            job = await begin(director)
            await director.close(timeout=0.01, grace=0.01)
            assert isinstance(job.exception(), JobAborted)
        asyncio.run(main())
    """,
    "left by an exception": """
        async def main():
            async with Director("cpu") as director:
                director.submit(stuck)
                await asyncio.to_thread(begun.wait)
                raise SystemExit("left")
        try:
            asyncio.run(main())
        except SystemExit:
            pass
    """,
    "not closed": """
        async def main():
            await begin(Director("cpu"))
        asyncio.run(main())
    """,
    "not closed, with its callers": """
        async def main():
            director = Director("cpu")
            await begin(director)
            for _ in range(3):
                asyncio.create_task(director.run(stuck))
            await asyncio.sleep(0)
        asyncio.run(main())
    """,
    "the loop just stops": """
        loop = asyncio.new_event_loop()
        director = Director("cpu")
        loop.run_until_complete(begin(director))
    """,
}


@pytest.mark.parametrize("way", LEAVING)
def test_the_interpreter_leaves_at_once_with_a_stuck_job(way: str) -> None:
    child = python(textwrap.dedent(STUCK) + textwrap.dedent(LEAVING[way]) + "\nprint('done')")
    assert child.returncode == 0, child.stderr
    assert child.stdout == "done\n"
    assert "Traceback" not in child.stderr


def test_the_development_mode_has_nothing_to_complain_of() -> None:
    """Every warning, asyncio's debug mode, and the checks of the C library, over a whole life."""
    child = python(
        """
        import asyncio
        from director import Director, Model

        async def main():
            asyncio.get_running_loop().slow_callback_duration = 60  # how slow this machine is is not the question
            model = Model(lambda device: device.index)
            async with Director("simulated:2", slots=2, hooks=[lambda event: None]) as director:
                results = {r async for r in director.map(lambda replica, item: item, range(200), model=model)}
                assert results == set(range(200))
                job = director.submit(lambda device: 1 / 0, deadline=5, priority=1)
                try:
                    await job
                except ZeroDivisionError:
                    pass
                task = asyncio.create_task(director.run(lambda device: 1))
                task.cancel()
                await asyncio.wait([task])
                async with director.lease() as device:
                    assert device in director.devices
                assert await asyncio.get_running_loop().run_in_executor(director.as_executor(), int) == 0

        for _ in range(2):
            asyncio.run(main())
        print("done")
        """,
        "-X",
        "dev",
        "-W",
        "error",
    )
    assert child.returncode == 0, child.stderr
    assert (child.stdout, child.stderr) == ("done\n", "")


def test_a_forgotten_close_is_said_once() -> None:
    child = python(
        """
        import asyncio
        from director import Director

        async def main():
            director = Director("cpu", name="mine")
            await director.start()
            await director.run(lambda device: 1)

        asyncio.run(main())
        """,
        "-X",
        "dev",
    )
    assert child.returncode == 0, child.stderr
    assert child.stderr.count("ResourceWarning: <Director 'mine'") == 1
    assert "Traceback" not in child.stderr


@pytest.fixture
def interrupted() -> Iterator[subprocess.Popen[str]]:
    """A child that runs a job in an open Director and says so."""
    source = textwrap.dedent(STUCK) + textwrap.dedent(
        """
        Director.close.__defaults__ = None, 0.1

        async def main():
            async with Director("cpu") as director:
                task = asyncio.create_task(director.run(stuck))
                await asyncio.to_thread(begun.wait)
                print("running", flush=True)
                await task
        asyncio.run(main())
        """
    )
    child = subprocess.Popen([sys.executable, "-c", source], stdout=-1, stderr=-1, text=True)
    yield child
    child.kill()
    child.communicate()


def test_ctrl_c_ends_a_stuck_application(interrupted: subprocess.Popen[str]) -> None:
    assert interrupted.stdout is not None
    assert interrupted.stdout.readline() == "running\n"
    began = time.monotonic()
    interrupted.send_signal(signal.SIGINT)
    _, errors = interrupted.communicate(timeout=LIMIT)
    assert time.monotonic() - began < LIMIT / 2
    assert interrupted.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
