"""Children as `multiprocessing`'s own: how a program is launched, and what its children find there."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import zipapp
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE

import director as package
from director import Device, Director
from director._devices.host import usable_cores
from director._executors.process.spawn import environment
from director.errors import WorkerDied
from executors.process import calls
from executors.process.conftest import LIMIT, surroundings
from executors.process.leaks import is_alive, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

APP = """
    import asyncio, os, sys
    from director import Director
    try:
        import helper
    except ImportError:
        helper = None

    class Mine(Exception): pass
    def add(_, x): return x + 2
    def fail(_): raise Mine("mine")

    async def main():
        if "chdir" in sys.argv: os.chdir("/")
        async with Director("cpu", executor="process") as director:
            print(await director.run(add, 1))
            try:
                await director.run(fail)
            except Mine as error:
                print(error)
            if helper is not None:
                print(await director.run(helper.help))

    if __name__ == "__main__":
        asyncio.run(main())
"""
WAYS = {
    "script": ["app.py"],
    "script, chdir": ["app.py", "chdir"],
    "module": ["-m", "pkg.mod"],
    "package": ["-m", "pkg"],
    "code, chdir": ["-c", textwrap.dedent(APP), "chdir"],
    "stdin": ["-"],
    "folder": ["folder"],
    "zip": ["app.pyz"],
    "profile": ["-m", "cProfile", "-o", os.devnull, "app.py"],
}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The same program in every form."""
    source = textwrap.dedent(APP)
    for name in ("app.py", "pkg/__main__.py", "pkg/mod.py", "folder/__main__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    (tmp_path / "pkg/__init__.py").touch()
    (tmp_path / "helper.py").write_text("def help(device): return 'helped'\n")
    zipapp.create_archive(tmp_path / "folder", tmp_path / "app.pyz")
    return tmp_path


def run(arguments: list[str], folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        input=textwrap.dedent(APP) if arguments == ["-"] else None,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env=surroundings() | changes,
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_however_a_program_is_launched_its_functions_reach_its_children(programs: Path, way: str) -> None:
    pytest.importorskip("cloudpickle")
    done = run(WAYS[way], programs)
    expected = ["3", "mine", "helped"] if way not in ("folder", "zip") else ["3", "mine"]
    assert done.stdout.splitlines() == expected, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("way", ["package", "folder", "zip"])
def test_without_cloudpickle_the_error_says_where_the_functions_belong(programs: Path, way: str) -> None:
    (programs / "cloudpickle.py").write_text("raise ImportError")
    done = run(WAYS[way], programs, PYTHONPATH=os.pathsep.join([str(programs), surroundings()["PYTHONPATH"]]))
    assert "the __main__ of a package, a folder or a zip file, which another process can't import" in done.stderr
    assert "at the top level of a module of their own" in done.stderr
    assert "install gpu-director[process]" in done.stderr


@pytest.mark.slow
def test_a_function_under_the_guard_is_missed_with_advice(program: Callable[..., Any]) -> None:
    done = program("""
        import asyncio
        from director import Director

        async def main():
            async with Director("cpu", executor="process") as director:
                await director.run(hidden)

        if __name__ == "__main__":
            def hidden(device): return 1
            asyncio.run(main())
    """)
    assert "Can't get attribute 'hidden'" in done.stderr
    assert "what it defines only when its name is __main__ is missing" in done.stderr
    assert "move the functions to a module of their own" in done.stderr


@pytest.mark.slow
def test_a_director_in_a_zip_file_is_refused_when_it_starts(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/__main__.py").write_text(textwrap.dedent(APP))
    shutil.copytree(
        Path(package.__file__).parent, tmp_path / "app/director", ignore=shutil.ignore_patterns("__pycache__")
    )
    archive = tmp_path / "app.pyz"
    zipapp.create_archive(tmp_path / "app", archive)
    done = run([str(archive)], tmp_path, PYTHONPATH="")
    last = done.stderr.splitlines()[-1]
    assert last.startswith('RuntimeError: executor="process" runs a file of this package, and '), done.stderr
    assert "app.pyz is no folder" in last


# ---- what a child finds


def facts_of_multiprocessing(_device: object) -> dict[str, Any]:
    parent = parent_process()
    assert parent is not None
    return {
        "authkey": bytes(multiprocessing.current_process().authkey),
        "name": multiprocessing.current_process().name,
        "parent": (parent.pid, parent.name, parent.is_alive()),
        "method": multiprocessing.get_start_method(allow_none=True),
    }


async def test_a_child_is_a_process_of_its_parents_multiprocessing(director: Director) -> None:
    assert await director.run(facts_of_multiprocessing) == {
        "authkey": bytes(multiprocessing.current_process().authkey),
        "name": "cpu:0",
        "parent": (os.getpid(), multiprocessing.current_process().name, True),
        "method": multiprocessing.get_start_method(allow_none=True),
    }


def put(_device: object, queue: Any, value: int) -> str:
    queue.put(value)
    return "put"


async def test_a_proxy_of_a_manager_works_in_a_child(director: Director) -> None:
    with multiprocessing.get_context("spawn").Manager() as manager:
        queue = manager.Queue()
        assert await director.run(put, queue, 3) == "put"
        assert queue.get(timeout=PATIENCE) == 3


def attach(_device: object, name: str) -> bytes:
    from multiprocessing import shared_memory  # which imports the tracker

    memory = shared_memory.SharedMemory(name)
    content = bytes(memory.buf[:2])
    memory.close()
    return content


def create(_device: object) -> str:
    from multiprocessing import shared_memory  # which imports the tracker

    memory = shared_memory.SharedMemory(create=True, size=8)
    memory.buf[:2] = b"me"
    memory.close()
    return memory.name


async def test_shared_memory_outlives_the_children_that_used_it() -> None:
    from multiprocessing import shared_memory  # which imports the tracker

    mine = shared_memory.SharedMemory(create=True, size=8)
    try:
        mine.buf[:2] = b"hi"
        async with Director("cpu", executor="process") as director:
            assert await director.run(attach, mine.name) == b"hi"
            theirs = await director.run(create)
        for name, content in ((mine.name, b"hi"), (theirs, b"me")):
            memory = shared_memory.SharedMemory(name)
            assert bytes(memory.buf[:2]) == content
            memory.close()
        shared_memory.SharedMemory(theirs).unlink()
    finally:
        mine.close()
        mine.unlink()


@pytest.mark.slow
def test_children_take_the_executable_and_the_start_method_of_multiprocessing(program: Callable[..., Any]) -> None:
    done = program("""
        import asyncio, multiprocessing, os, pathlib, sys
        from director import Director
        from executors.process import calls

        async def main():
            async with Director("cpu", executor="process") as director:
                print(await director.run(calls.environment, "STARTED_BY"))
                print(await director.run(calls.start_method))

        if __name__ == "__main__":
            shell = pathlib.Path(__file__).with_name("python")
            shell.write_text(f'#!/bin/sh\\nSTARTED_BY=me exec {sys.executable} "$@"\\n')
            shell.chmod(0o700)
            multiprocessing.set_executable(str(shell))
            multiprocessing.set_start_method("forkserver")
            asyncio.run(main())
    """)
    assert done.stdout.splitlines() == ["['me']", "forkserver"], done.stderr


@pytest.mark.slow
def test_a_child_has_no_signal_blocked_and_can_wait_for_its_programs(program: Callable[..., Any]) -> None:
    done = program("""
        import asyncio, signal, warnings
        from director import Director
        from executors.process import calls

        async def main():
            async with Director("cpu", executor="process") as director:
                print(*await director.run(calls.signals))

        if __name__ == "__main__":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM})
            asyncio.run(main())
    """)
    assert done.stdout == "0 3\n", done.stderr
    done = program("""
        import asyncio, os, signal
        from director import Director
        from executors.process import calls

        async def main():
            director = Director("cpu", executor="process")
            await director.start()
            print(*await director.run(calls.signals), flush=True)
            os._exit(0)

        if __name__ == "__main__":
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            asyncio.run(main())
    """)
    assert done.stdout == "0 3\n", done.stderr


ODD = [Path("/tmp/data"), 42, "text", type("Text", (str,), {})("more")]


async def test_whatever_is_in_argv_children_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *ODD])
    async with Director("cpu", executor="process") as director:
        assert await director.run(calls.arguments) == ["program", "/tmp/data", "42", "text", "more"]
    monkeypatch.delattr(sys, "argv")
    async with Director("cpu", executor="process") as director:
        assert await director.run(calls.arguments) == []


async def test_a_level_of_an_enum_does_not_keep_children_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    logger = logging.getLogger("director.tests.odd")
    monkeypatch.setattr(logger, "level", signal.SIGUSR1)  # an IntEnum
    async with Director("cpu", executor="process") as director:
        assert await director.run(calls.echo, 1) == 1


async def test_only_children_of_our_own_are_waited_for_and_each_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: set[int] = set()

    def recorded(name: str, position: int) -> None:
        wait = getattr(os, name)

        def record(*args: Any) -> Any:
            waited.add(args[position])
            return wait(*args)

        monkeypatch.setattr(os, name, record)

    recorded("waitpid", 0)
    recorded("waitid", 1)
    async with Director("cpu", executor="process") as director:
        first = await director.run(calls.process_id)
        with pytest.raises(WorkerDied):
            await director.run(calls.die, 7)
        second = await director.run(calls.process_id)
    assert waited == {first, second}


# ---- how many threads


SHARED = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS"}
OWN = {"VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"}


@pytest.mark.parametrize(("cores", "slots", "share"), [(8.0, 2, "4"), (3.9, 2, "1"), (0.5, 1, "1"), (2.0, 4, "1")])
async def test_children_share_the_cores(monkeypatch: pytest.MonkeyPatch, cores: float, slots: int, share: str) -> None:
    names = sorted(SHARED | OWN)
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("director._executors.process.spawn.usable_cores", lambda: cores)
    async with Director(f"cpu:{slots}", executor="process") as director:
        assert await director.run(calls.environment, *names) == [share] * len(names)


def test_variables_that_are_set_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SHARED | OWN:
        monkeypatch.delenv(name, raising=False)
    cpu = Device(0, "CPU-0", "cpu:0", "cpu", None)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    found = environment(cpu, 1000)
    assert {name: found[name] for name in SHARED | OWN} == dict.fromkeys(SHARED | OWN, "1") | {"MKL_NUM_THREADS": "7"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    found = environment(cpu, 1000)
    assert {name for name in SHARED if name in found} == {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}, "the others follow OMP"
    assert found["OMP_NUM_THREADS"] == "5"
    assert all(found[name] == "1" for name in OWN)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 0.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/a\n3:memory:/a\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "25000\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
            },
            0.25,
        ),
        (
            {
                "proc/self/cgroup": "5:cpuset:/a\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_the_cores_of_a_control_group(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert usable_cores(tmp_path) == (len(os.sched_getaffinity(0)) if cores is None else cores)


# ---- what is left of a program that is killed


@pytest.mark.slow
@pytest.mark.parametrize("how", ["run", "stopped"])
def test_programs_that_jobs_have_started_end_when_the_parent_is_killed(how: str, tmp_path: Path) -> None:
    path = tmp_path / "parent.py"
    path.write_text(
        textwrap.dedent("""
            import asyncio, os, signal, sys
            from director import Director
            from executors.process import calls

            async def main():
                async with Director("cpu:2", executor="process") as director:
                    ids = [await director.run(fn, devices=n) for n in (0, 1)
                           for fn in (calls.process_id, calls.start_program, calls.start_pool)]
                    if sys.argv[1] == "stopped":
                        os.kill(ids[0], signal.SIGSTOP)
                    print(*ids, flush=True)
                    await asyncio.sleep(60)

            if __name__ == "__main__":
                asyncio.run(main())
        """)
    )
    command = [sys.executable, str(path), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings()) as parent:
        assert isinstance(parent.stdout, io.TextIOBase)
        ids = [int(number) for number in parent.stdout.readline().split()]
        assert len(ids) == 6
        assert all(map(is_alive, ids))
        parent.kill()
    wait_until(lambda: not any(map(is_alive, ids)))
