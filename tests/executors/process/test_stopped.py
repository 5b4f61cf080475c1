"""A program that is stopped and goes on: time limits of its user count all the time, and nothing is taken for dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Program = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.slow

STOPPED = """
    import asyncio, os, subprocess, sys, time
    from director import Director, JobTimeout
    from executors.process import calls

    async def main():
        async with Director("simulated:2", executor=sys.argv[1]) as director:
            before = {await director.run(calls.process_id, devices=i) for i in range(2)}
            slow = director.submit(calls.nap, 0.2, "slow")
            late = director.submit(calls.nap, 60 if sys.argv[1] == "process" else 1.2, timeout=0.8)
            waiting = [director.submit(calls.echo, i, deadline=60) for i in range(5)]
            me = os.getpid()
            stop = subprocess.Popen(["sh", "-c", f"kill -STOP {me}; sleep 1; kill -CONT {me}"])
            stop.wait()
            said = await asyncio.gather(slow, late, *waiting, return_exceptions=True)
            print(type(said.pop(1)).__name__, said, director.healthy)
            after = await director.run(calls.process_id)
            print(after in before or sys.argv[1] == "process", director.stats().failed)

    if __name__ == "__main__":
        asyncio.run(main())
"""


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_program_that_is_stopped_and_goes_on(program: Program, executor: str) -> None:
    done = program(STOPPED, executor)
    assert done.stdout == "JobTimeout ['slow', 0, 1, 2, 3, 4] True\nTrue 1\n", done.stderr
