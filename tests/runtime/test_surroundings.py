"""Other loops, other threads, loops that are closed too early, Directors that nobody closes."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from harness.stage import PATIENCE, Stage

from director import Director, Model
from director._api.lifecycle import DirectorState
from director.errors import DirectorClosed
from director.testing import TestClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from harness.stage import Stage

    from director._system.threads import DaemonThreadExecutor

    Make = Callable[..., Awaitable[Stage]]


async def test_another_loop_and_another_thread_are_told(make_stage: Make) -> None:
    stage = await make_stage()
    director = stage.director

    async def use() -> None:
        with pytest.raises(RuntimeError, match="another event loop or thread"):
            director.submit(lambda device: 1)
        with pytest.raises(RuntimeError, match="another event loop or thread"):
            await director.run(lambda device: 1)
        with pytest.raises(RuntimeError, match="another event loop or thread"):
            await director.drain()

    def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="another event loop or thread"):
            director.submit(lambda device: 1)
        asyncio.run(use())

    await asyncio.to_thread(elsewhere)
    gate, job = stage.submit()
    await stage.quiet()
    with pytest.raises(RuntimeError, match="event loop of its Director"):
        await asyncio.to_thread(job.cancel)
    gate.open("result")
    assert await job == "result"


async def test_a_close_from_another_loop_is_told(make_stage: Make) -> None:
    stage = await make_stage()
    with pytest.raises(RuntimeError, match="another event loop or thread"):
        await asyncio.to_thread(asyncio.run, stage.director.close())


def test_restarted_in_another_loop() -> None:
    director = Director("cpu:2", slots=2)
    model = Model(lambda device: device.index)

    async def use() -> set[int]:
        async with director:
            return {result async for result in director.map(lambda replica, item: replica, range(50), model=model)}

    for _ in range(3):
        assert asyncio.run(use()) <= {0, 1}
        assert director.state is DirectorState.CLOSED


def test_the_loop_is_closed_under_the_director(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is left behind ends, and has nobody to complain to."""
    complaints: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", complaints.append)
    with pytest.warns(ResourceWarning, match="was never closed"):
        collect_after(leave_in_the_middle)
    assert not complaints


def collect_after(leave: Callable[[], list[DaemonThreadExecutor]]) -> None:
    """Call `leave`, which returns threads of slots; let them end, and let the Director become garbage."""
    for thread in leave():
        thread.shutdown()  # joins it
    gc.collect()


def threads_of(director: Director) -> list[DaemonThreadExecutor]:
    assert director._runtime is not None
    return [slot.thread for slot in director._runtime.scheduler.slots]


def leave_in_the_middle() -> list[DaemonThreadExecutor]:
    """Close a loop while a job runs; returns the threads of the slots."""
    go, begun = threading.Event(), threading.Event()
    director = Director("cpu")
    loop = asyncio.new_event_loop()

    async def begin() -> list[DaemonThreadExecutor]:
        await director.start()
        director.submit(lambda device: begun.set() or go.wait(PATIENCE))
        await asyncio.to_thread(begun.wait)
        await loop.shutdown_default_executor()
        return threads_of(director)

    threads = loop.run_until_complete(begin())
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    go.set()
    return threads


def test_a_forgotten_close_is_warned_of() -> None:
    async def main() -> list[DaemonThreadExecutor]:
        director = Director("cpu", name="mine")
        await director.start()
        assert await director.run(lambda device: 1) == 1
        return threads_of(director)

    with pytest.warns(ResourceWarning, match="<Director 'mine' .* was never closed"):
        collect_after(lambda: asyncio.run(main()))


def test_a_director_that_was_never_made_leaves_in_silence() -> None:
    """pytest reports what its `__del__` raises."""
    with pytest.raises(ValueError, match="at least one slot"):
        Director(slots=0)
    gc.collect()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_restarts_leave_no_descriptors_behind() -> None:
    director = Director("cpu")
    async with director:
        await director.run(lambda device: 1)
    gc.collect()
    gc.disable()
    try:
        before = descriptors()
        for _ in range(5):
            async with director:
                await director.run(lambda device: 1)
        assert descriptors() <= before
    finally:
        gc.enable()


# ---- a thread submits as the loop closes


class SlowClock(TestClock):
    """Holds the thread called "submitter" when it asks for the time, which is just before a job is queued."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.holds, self.go = threading.Event(), threading.Event()

    def time(self) -> float:
        if threading.current_thread().name == "submitter":
            self.holds.set()
            self.go.wait(PATIENCE)
        return super().time()


@pytest.mark.parametrize("end", ["closes", "fails"])
async def test_a_thread_submits_as_the_director_ends(make_stage: Make, end: str) -> None:
    clock = SlowClock()
    stage = await make_stage(clock=clock)
    executor = stage.director.as_executor()
    outcomes: list[Any] = []

    def submit() -> None:
        try:
            outcomes.append(executor.submit(int))
        except BaseException as error:
            outcomes.append(error)

    submitter = threading.Thread(target=submit, name="submitter", daemon=True)
    submitter.start()
    assert clock.holds.wait(PATIENCE)
    if end == "closes":
        await stage.director.close()
    else:
        assert stage.director._runtime.task is not None
        stage.director._runtime.task.cancel()
        await stage.quiet()
    clock.go.set()
    submitter.join()
    await stage.quiet()
    (outcome,) = outcomes
    assert isinstance(outcome, DirectorClosed) or outcome.done(), "the future is never settled"


def test_the_event_loop_of_another_library_is_told_of_asyncio() -> None:
    director = Director("cpu")
    start = director.start()
    with pytest.raises(RuntimeError, match="a Director needs asyncio, and this coroutine is run by another event loop"):
        start.send(None)  # as trio does
    assert director.state is DirectorState.NEW

    async def work() -> int:
        async with director:
            return await director.run(lambda device: 1)

    assert asyncio.run(work()) == 1


SUBINTERPRETER = """
try:
    import _interpreters as interpreters  # Python 3.13
except ImportError:
    import _xxsubinterpreters as interpreters

import os

interpreters.run_string(interpreters.create(), '''
import asyncio
import sys
from director import Director, SyncDirector, discover_devices

async def main():
    await Director("cpu").start()

for use in (lambda: asyncio.run(main()), SyncDirector("cpu").start, discover_devices):
    try:
        use()
    except Exception as error:
        print(type(error).__name__, "can't run in a subinterpreter" in str(error))
        sys.stdout.flush()
''')
os._exit(0)  # Python 3.12.1 crashes when it frees an interpreter that has imported asyncio
"""


def test_a_subinterpreter_is_refused_in_our_words() -> None:
    """As under mod_wsgi, which runs each application in one."""
    done = subprocess.run([sys.executable, "-c", SUBINTERPRETER], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["NoThreadsHere True", "NoThreadsHere True", "DiscoveryError True"], done.stderr


@pytest.mark.parametrize(
    ("devices", "threads", "is_told"),
    [("cpu:4", 8, True), ("cpu:4", 2, False), ("cpu:1", 64, False), ("cpu:4", 1, False), ("simulated:4", 8, False)],
)
async def test_more_threads_of_torch_than_cores_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, devices: str, threads: int, is_told: bool
) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: threads))  # type: ignore[arg-type]
    monkeypatch.setattr("director._devices.host.usable_cores", lambda: 8.0)
    async with Director(devices):
        pass
    said = "4 slots compute on 8 cores, and torch starts 8 threads in each: they slow each other down. Call "
    assert (said + "torch.set_num_threads(2), or set OMP_NUM_THREADS=2" in caplog.text) is is_told


WATCHER = """
from director._system.forks import watch

class Watcher:
    def be_forked(self, origin): pass

watcher = Watcher()
watch(watcher.be_forked)
"""


def test_what_is_told_of_forks_ends_with_the_interpreter_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "watching.py").write_text(WATCHER)
    command = [sys.executable, "-c", "import sys; sys.path.append(sys.argv[1]); import watching", str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""
