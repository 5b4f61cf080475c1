"""Jobs that fork: the copy ends where its call comes back, and makes no other call; and forks before a start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Program = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.slow

COMMON = """
import asyncio, os, sys, warnings
from director import Director, Model

warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons: a fork beside threads
copies = []

def fork():
    copy = os.fork()
    if copy:
        copies.append(copy)
    else:
        print("the copy", end=" ")
    return copy

def mark(device, path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()} ")

def status(copy):
    return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
"""

IN_A_CALL = (
    COMMON
    + """
def returns(device):
    return fork()

def raises(device):
    if not fork():
        raise ZeroDivisionError("in the copy")

def leaves(device):
    if not fork():
        sys.exit(5)

def batch(device, items):
    fork()
    return items

def broken_batch(device, items):
    if not fork():
        raise ZeroDivisionError("in the copy")
    return items

def values(device):
    yield 0
    fork()
    yield from range(1, 100)

def load(device):
    fork()
    return "replica"

class AroundCalls:
    wants = ()
    def __call__(self, event): ...
    def around_call(self, jobs):
        return self
    def __enter__(self):
        if jobs_that_fork:
            fork()
    def __exit__(self, *exc_info): ...

jobs_that_fork = False

async def main(which, path):
    global jobs_that_fork
    hooks = [AroundCalls()] if which == "call hook" else []
    async with Director("simulated:1", hooks=hooks) as director:
        jobs_that_fork = True
        if which == "batch":
            first = director.function(batch, max_batch_size=2).submit(1)
        elif which == "broken batch":
            first = director.function(broken_batch, max_batch_size=2, isolate_failures=True).submit(1)
        elif which == "stream":
            async def read():
                return [value async for value in director.stream(values, buffer=2)]
            first = asyncio.ensure_future(read())
            await asyncio.sleep(0)
        elif which == "loader":
            first = director.submit(mark, path, model=Model(load))
        elif which == "executor":
            first = asyncio.wrap_future(director.as_executor().submit(returns, None))
        else:
            first = director.submit({"returns": returns, "raises": raises, "leaves": leaves}.get(which, returns))
        behind = [director.submit(mark, path) for _ in range(5)]
        await first
        jobs_that_fork = False
        await asyncio.gather(*behind)
    statuses = {status(copy) for copy in copies}
    with open(path) as file:
        print(statuses, set(file.read().split()) == {str(os.getpid())})

asyncio.run(main(*sys.argv[1:]))
"""
)


@pytest.mark.parametrize(
    ("which", "status"),
    [
        ("returns", 0),
        ("raises", 1),
        ("leaves", 5),
        ("batch", 0),
        ("broken batch", 1),
        ("stream", 0),
        ("loader", 0),
        ("executor", 0),
        ("call hook", 0),
    ],
)
def test_a_copy_ends_where_its_call_comes_back(program: Program, tmp_path: Path, which: str, status: int) -> None:
    done = program(IN_A_CALL, which, str(tmp_path / "marks"))
    assert done.stdout.endswith(f"{{{status}}} True\n"), done.stderr
    assert "the copy" in done.stdout  # what it has printed is not lost
    assert ("ZeroDivisionError: in the copy" in done.stderr) == (status == 1)
    if status != 1:
        assert done.stderr == ""


def test_forks_beside_threads_that_are_in_the_middle_of_something(program: Program) -> None:
    done = program(
        COMMON
        + """
def returns(device):
    return fork()

async def main():
    async with Director("simulated:4", max_queue=None) as director:
        others = [director.submit(str, devices=[1, 2, 3]) for _ in range(3_000)]
        forks = [director.submit(returns, devices=0) for _ in range(40)]
        await asyncio.gather(*forks, *others)
        assert director.stats().succeeded == 3_040
    print([status(copy) for copy in copies] == [0] * 40)

asyncio.run(main())
"""
    )
    assert done.stdout.endswith("True\n"), done.stderr
    assert done.stderr == ""


def test_pools_and_processes_that_fork_in_a_job(program: Program) -> None:
    done = program(
        COMMON
        + """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

context = multiprocessing.get_context("fork")

def pool(device):
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        return list(executor.map(abs, [-1, -2]))

def process(device):
    one = context.Process(target=sys.exit, args=(3,))
    one.start()
    one.join()
    return one.exitcode

async def main():
    async with Director("simulated:2") as director:
        print(await asyncio.gather(director.run(pool), director.run(process), director.run(pool)))

asyncio.run(main())
"""
    )
    assert done.stdout == "[[1, 2], 3, [1, 2]]\n", done.stderr
    assert done.stderr == ""


def test_a_director_that_is_made_before_a_fork_and_started_after(program: Program) -> None:
    """As `gunicorn --preload` does; and a daemon forks twice."""
    done = program(
        COMMON
        + """
director = Director("simulated:2")
double = director.function(lambda device, value: 2 * value)

async def main(value):
    async with director:
        return await double(value)

def serve(value):
    print(value, asyncio.run(main(value)), flush=True)

workers = []
for number in range(2):
    worker = os.fork()
    if not worker:
        if number:
            again = os.fork()
            if again:
                os._exit(status(again))
        serve(number)
        os._exit(0)
    workers.append(worker)
print([status(worker) for worker in workers], flush=True)
serve(2)
"""
    )
    assert sorted(done.stdout.splitlines()) == ["0 0", "1 2", "2 4", "[0, 0]"], done.stderr
    assert done.stderr == ""


def test_a_director_of_its_own_in_the_copy_of_a_job(program: Program) -> None:
    done = program(
        COMMON
        + """
async def inner():
    async with Director("simulated:2") as director:
        return await asyncio.gather(*(director.run(lambda device, i: i, i) for i in range(3)))

def nested(device):
    if not fork():
        asyncio.run(inner())
        os.write(1, b"well")

async def main():
    async with Director("simulated:1") as director:
        await director.run(nested)
    print([status(copy) for copy in copies])

asyncio.run(main())
"""
    )
    assert "well" in done.stdout, done.stderr
    assert done.stdout.endswith("[0]\n")
    assert done.stderr == ""
