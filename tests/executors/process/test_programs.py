"""Programs of their own: how they start, end, are killed, forked and interrupted, and where their functions live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from executors.process.conftest import LIMIT, surroundings
from executors.process.leaks import is_alive, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    Program = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.slow

SERVER = """
    import asyncio, signal, sys
    from director import Director
    from executors.process import calls

    async def main():
        async with Director("cpu:2", executor="process") as director:
            ids = [await director.run(calls.process_id) for _ in range(2)]
            job = director.submit(calls.held, sys.argv[1], "held")
            while not job.progress:
                await asyncio.sleep(0.01)
            stop = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            print(*ids, flush=True)
            await stop.wait()
            print(await job, flush=True)

    if __name__ == "__main__":
        asyncio.run(main())
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], list[int]]]]:
    """A program with a job under way, in a process group of its own, and the ids of its children."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], list[int]]:
        path = tmp_path / "server.py"
        path.write_text(textwrap.dedent(SERVER))
        command = [sys.executable, str(path), str(tmp_path / "go")]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=surroundings(), start_new_session=True
        )
        started.append(process)
        assert process.stdout is not None
        return process, [int(number) for number in process.stdout.readline().split()]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_children_die_with_a_parent_that_is_killed(
    server: Callable[[], tuple[subprocess.Popen[str], list[int]]],
) -> None:
    process, ids = server()
    assert len(ids) == 2
    assert all(map(is_alive, ids))
    process.kill()
    wait_until(lambda: not any(map(is_alive, ids)))


def test_sigterm_to_the_whole_group_leaves_it_to_the_parent(
    server: Callable[[], tuple[subprocess.Popen[str], list[int]]], tmp_path: Path
) -> None:
    process, ids = server()
    os.killpg(process.pid, signal.SIGTERM)
    (tmp_path / "go").touch()
    out, _ = process.communicate(timeout=LIMIT)
    assert (out, process.returncode) == ("held\n", 0)
    assert not any(map(is_alive, ids))


def test_ctrl_c_ends_the_program_and_not_with_its_children_s_tracebacks(program: Program) -> None:
    done = program("""
        import asyncio, os, signal
        from director import Director
        from executors.process import calls

        async def main():
            os.setpgid(0, 0)
            async with Director("cpu", executor="process") as director:
                before = await director.run(calls.process_id)
                print(before)
                os.killpg(0, signal.SIGINT)
                try:
                    await asyncio.sleep(5)
                finally:
                    print("alive", os.path.exists(f"/proc/{before}"), flush=True)

        if __name__ == "__main__":
            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                print("interrupted")
    """)
    lines = done.stdout.splitlines()
    assert lines[1:] == ["alive True", "interrupted"]
    assert done.stderr == ""
    assert not is_alive(int(lines[0]))


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_closed_standard_streams(program: Program, tmp_path: Path, executor: str) -> None:
    said = tmp_path / "said"
    program(
        """
        import asyncio, os, sys
        from director import Director
        from executors.process import calls

        async def main():
            os.closerange(0, 3)
            async with Director("cpu:2", executor=sys.argv[2]) as director:
                import numpy as np
                a = await director.run(calls.echo, np.ones(3_000_000, np.uint8))
                if sys.argv[2] == "process":
                    await director.run(calls.print_it, "to nobody")
                    assert await director.run(calls.are_open, 0, 1, 2)
                assert int(a.sum()) == 3_000_000
            with open(sys.argv[1], "w") as said:
                said.write("done")

        if __name__ == "__main__":
            asyncio.run(main())
        """,
        str(said),
        executor,
    )
    assert said.read_text() == "done"


def test_descriptors_keep_clear_of_standard_streams_that_are_closed(program: Program) -> None:
    done = program("""
        import os
        from director._executors.process.spawn import above_stdio
        os.close(0)
        first = os.memfd_create("first")
        moved = above_stdio(first)
        print(first, moved > 2, above_stdio(moved) == moved)
        os.fstat(moved)
        try:
            os.fstat(first)
        except OSError:
            print("closed")
    """)
    assert done.stdout.split() == ["0", "True", "True", "closed"], done.stderr


FORKED = """
    import asyncio, os, sys, warnings
    from director import Director
    from executors.process import calls

    warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons: a fork beside threads

    def in_copy(director, executor):
        said = []
        for use in (
            lambda: director.submit(calls.echo),
            lambda: asyncio.run(director.run(calls.echo)),
            lambda: executor.submit(calls.bare_sum, 1),
            lambda: director.as_executor(),
            lambda: asyncio.run(director.drain()),
        ):
            try:
                use()
            except RuntimeError as error:
                said.append("which this one was forked" in str(error))
        asyncio.run(director.close())
        again = asyncio.run(anew(director))
        print(said, director.state.value, again, flush=True)

    async def anew(director):
        async with director:
            return await director.run(calls.echo, "again")

    async def main():
        async with Director("cpu", executor=sys.argv[1]) as director:
            before = await director.run(calls.process_id)
            executor = director.as_executor()
            copy = os.fork()
            if not copy:
                try:
                    asyncio._set_running_loop(None)
                    in_copy(director, executor)
                finally:
                    os._exit(0)
            await asyncio.to_thread(os.waitpid, copy, 0)
            assert await director.run(calls.process_id) == before
            print("parent is well")

    if __name__ == "__main__":
        asyncio.run(main())
"""


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_fork_of_a_process_with_an_open_director(program: Program, executor: str) -> None:
    done = program(FORKED, executor)
    assert done.stdout.splitlines() == ["[True, True, True, True, True] closed again", "parent is well"], done.stderr
    assert done.stderr == ""


LOST_LOOP = """
    import asyncio, os, sys, threading, warnings
    from director import Director, Model, SyncDirector
    from executors.process import calls

    warnings.simplefilter("ignore")  # of a coroutine that can't be awaited, and of a fork beside threads
    director = Director("cpu", executor=sys.argv[1])
    double = director.function(calls.echo)
    loop = asyncio.new_event_loop()
    sync = SyncDirector("cpu", executor=sys.argv[1])

    def soon(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(5)

    def in_copy():
        for use in (
            lambda: soon(director.run(calls.echo)),
            lambda: soon(double(1)),
            lambda: soon(director.load(Model(calls.load))),
            lambda: soon(director.close()),
            lambda: sync.run(calls.echo),
            lambda: sync.close(),
        ):
            try:
                use()
                print("no error")
            except RuntimeError as error:
                print("from which this one was forked" in str(error) and "post_fork" in str(error), flush=True)

    if __name__ == "__main__":
        threading.Thread(target=loop.run_forever, daemon=True).start()
        soon(director.start())
        sync.start()
        copy = os.fork()
        if not copy:
            try:
                in_copy()
            finally:
                os._exit(0)
        os.waitpid(copy, 0)
        print(soon(director.run(calls.echo, "parent is well")), flush=True)
        soon(director.close())
        sync.close()
"""


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_loop_whose_thread_is_lost_in_a_fork_says_so(program: Program, executor: str) -> None:
    """As with `gunicorn --preload` and a Flask app that has opened a Director at import."""
    done = program(LOST_LOOP, executor)
    assert done.stdout.splitlines() == ["True"] * 6 + ["parent is well"], done.stderr


def test_a_forgotten_fork_does_not_keep_children_from_dying(program: Program) -> None:
    """The copy has the parent's ends of all pipes, unless it lets go of them."""
    done = program("""
        import asyncio, os, signal, sys
        from director import Director
        from executors.process import calls

        async def main():
            async with Director("cpu", executor="process") as director:
                before = await director.run(calls.process_id)
                copy = os.fork()
                if not copy:
                    os.closerange(0, 3)
                    signal.pause()
                print(before, copy, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            asyncio.run(main())
    """)
    child, copy = map(int, done.stdout.split())
    try:
        wait_until(lambda: not is_alive(child))
    finally:
        os.kill(copy, signal.SIGKILL)


# ---- where functions live

MAIN = """
    import asyncio
    from dataclasses import dataclass
    from director import Director

    print("imported as", __name__, flush=True)

    @dataclass
    class Point:
        x: int

    def double(_, point):
        return Point(2 * point.x)

    async def main():
        async with Director("cpu", executor="process") as director:
            print(await director.run(double, Point(4)))
"""
GUARDED = f"""{MAIN}
    if __name__ == "__main__":
        asyncio.run(main())
"""
UNGUARDED = f"""{MAIN}
    asyncio.run(main())
"""


def test_functions_and_classes_of_a_script(program: Program) -> None:
    done = program(GUARDED)
    assert done.stdout.splitlines() == ["imported as __main__", "imported as __mp_main__", "Point(x=8)"], done.stderr
    assert done.stderr == ""


def test_functions_of_a_module_that_is_run(tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text(textwrap.dedent(GUARDED))
    command = [sys.executable, "-m", "tool"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=False, env=surroundings()
    )
    assert done.stdout.splitlines()[-1] == "Point(x=8)", done.stderr


def test_a_main_module_without_a_guard_is_said_clearly_and_once(program: Program) -> None:
    done = program(UNGUARDED)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["imported as __main__", "imported as __mp_main__"]
    assert 'under `if __name__ == "__main__":`' in done.stderr
    assert done.stderr.count("the main module starts a Director with processes when it is imported") == 1
    assert done.stderr.count("Traceback") == 1
    assert "Point" not in done.stdout


def test_a_main_module_that_starts_something_else(program: Program) -> None:
    done = program("""
        import asyncio, sys
        from director import Director

        def echo(_, value):
            return value

        async def main():
            async with Director("cpu", executor="process") as director:
                await director.run(echo, 1)

        if __name__ == "__mp_main__":
            sys.exit("address already in use")
        asyncio.run(main())
    """)
    assert "RuntimeError: importing the main module" in done.stderr
    assert "address already in use" in done.stderr
    assert 'under `if __name__ == "__main__":`' in done.stderr


def test_a_main_module_that_is_not_needed_is_not_imported(program: Program) -> None:
    done = program("""
        import asyncio
        from director import Director
        from executors.process import calls

        print("imported as", __name__, flush=True)

        async def main():
            async with Director("cpu", executor="process") as director:
                print(await director.run(calls.echo, 5))

        asyncio.run(main())  # no guard, and none needed
    """)
    assert done.stdout.splitlines() == ["imported as __main__", "5"], done.stderr


PROMPT = """
import asyncio
from director import Director

class Point:
    def __init__(self, x): self.x = x

def double(_, point):
    return Point(2 * point.x)

async def main():
    async with Director("cpu", executor="process") as director:
        point = await director.run(double, Point(4))
        print(type(point) is Point, point.x)

asyncio.run(main())
"""


@pytest.mark.parametrize("options", [["-c", PROMPT], ["-i", "-q"], ["-"]], ids=["-c", "prompt", "stdin"])
def test_functions_and_classes_of_a_prompt(options: list[str]) -> None:
    pytest.importorskip("cloudpickle")
    done = subprocess.run(
        [sys.executable, *options],
        input=PROMPT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**surroundings(), "TERM": "dumb"},
    )
    assert "True 8" in done.stdout, done.stderr


NOTEBOOK = """
import asyncio
from director import Director, Model

class Odd(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code

class Point:
    def __init__(self, x): self.x = x

director = Director("cpu", executor="process")
factor = 3

def triple(_, point): return Point(factor * point.x)

def count(_, n):
    for x in range(n): yield Point(x)

def fail(_): raise Odd(5)

def together(_, points): return [Point(point.x + 1) for point in points]

@director.function
def decorated(_, point): return Point(-point.x)

async def argument_and_result():
    point = await director.run(triple, Point(2))
    return type(point) is Point, point.x

async def stream():
    return [type(point) is Point and point.x async for point in director.stream(count, 3)]

async def local():
    k = 10
    def add(_, x): return x + k
    return await director.run(add, 1), await director.run(lambda _, x: x * k, 2)

async def model():
    seven = Model(lambda device: Point(7), warmup=lambda point: None, unload=lambda point: None)
    return await director.run(lambda point, y: point.x + y, 1, model=seven)

async def error():
    try:
        await director.run(fail)
    except Odd as error:
        return error.code

async def gives_a_lambda():
    return (await director.run(lambda _: lambda x: x + factor))(1)

async def batch():
    function = director.function(together, max_batch_size=4)
    return [point.x for point in await asyncio.gather(*(function(Point(n)) for n in range(3)))]

async def by_decorator():
    return (await decorated(Point(4))).x

async def changed():
    global factor
    factor = 4
    return (await director.run(triple, Point(2))).x

async def main():
    async with director:
        for cell in argument_and_result, stream, local, model, error, gives_a_lambda, batch, by_decorator, changed:
            try:
                print(cell.__name__, await cell(), flush=True)
            except Exception as problem:
                print(cell.__name__, type(problem).__name__, problem, flush=True)

asyncio.run(main())
"""


def run_cells(*before: str) -> dict[str, str]:
    """What each cell of the notebook says."""
    source = "\n".join([*before, NOTEBOOK])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, timeout=LIMIT, env=surroundings()
    )
    assert done.stderr == ""
    cells = (line.partition(" ") for line in done.stdout.splitlines())
    return {cell: said for cell, _, said in cells}


def test_whatever_is_defined_in_a_notebook_goes_both_ways() -> None:
    pytest.importorskip("cloudpickle")
    assert run_cells() == {
        "argument_and_result": "(True, 6)",
        "stream": "[0, 1, 2]",
        "local": "(11, 20)",
        "model": "8",
        "error": "5",
        "gives_a_lambda": "4",
        "batch": "[1, 2, 3]",
        "by_decorator": "-4",
        "changed": "8",  # what a function refers to travels along each time
    }


def test_without_cloudpickle_each_job_says_what_helps() -> None:
    said = run_cells("import sys; sys.modules['cloudpickle'] = None")
    assert len(said) == 9
    for cell, error in said.items():
        assert error.startswith("PicklingError the call of "), cell
        assert "install gpu-director[process]" in error, cell
        assert "Define functions and classes at the top level of a module" in error, cell
    assert "it was defined at the prompt" in said["argument_and_result"]


def test_under_a_server_whose_main_module_is_another_s(tmp_path: Path, program: Program) -> None:
    """As under uvicorn or gunicorn: the main module is the server's script, and is not run again."""
    (tmp_path / "app.py").write_text(
        textwrap.dedent("""
            from director import Director

            director = Director("cpu", executor="process")

            @director.function
            def double(device, value):
                return 2 * value
        """)
    )
    done = program(
        """
        import asyncio, sys
        assert __name__ == "__main__", "the server was run again"
        sys.path.insert(0, "")
        import app

        async def main():
            async with app.director:
                print(await app.double(21))

        asyncio.run(main())
        """,
        cwd=tmp_path,
    )
    assert done.stdout == "42\n", done.stderr


def test_a_program_that_never_closes_leaves_nothing(program: Program) -> None:
    done = program(
        """
        import asyncio, sys
        from director import Director
        from executors.process import calls

        async def main():
            director = Director("cpu", executor="process")
            await director.start()
            print(await director.run(calls.process_id), flush=True)
            director.submit(calls.stuck)
            await asyncio.sleep(0.1)
            sys.exit(3)

        if __name__ == "__main__":
            asyncio.run(main())
        """
    )
    wait_until(lambda: not is_alive(int(done.stdout)))
    assert done.returncode in (1, 3)


def test_a_frozen_program_is_refused(program: Program) -> None:
    done = program("""
        import asyncio, sys
        from director import Director
        sys.frozen = True
        async def main():
            await Director("cpu", executor="process").start()
        asyncio.run(main())
    """)
    assert "starts a Python interpreter, and this program has none" in done.stderr
