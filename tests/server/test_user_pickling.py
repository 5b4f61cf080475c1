"""Pickling runs code of the user's: it may block, call the Director or fail, and nobody else notices."""

from __future__ import annotations

import asyncio
import gc
import operator
import threading
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
from harness import served

from director import Director, DirectorClosed, Model
from director._system.threads import DaemonThreadExecutor
from server.conftest import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from server.conftest import Holder

    Make = Callable[..., Awaitable[Director]]

pytestmark = pytest.mark.programs


class Calls:
    """A value whose pickling makes a call; it unpickles as 1."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def __reduce__(self) -> Any:
        self._call()
        return int, (1,)


async def within(waited: Awaitable[Any]) -> Any:
    """What comes, and not a test that hangs."""
    return await asyncio.wait_for(waited, PATIENCE)


def from_thread(director: Director, fn: Any, *args: Any, model: Any = None) -> Awaitable[Any]:
    """The result of a call that another thread submits."""
    executor = director.as_executor(model=model)

    def submit() -> Any:
        return executor.submit(fn, *args).result(PATIENCE)

    return asyncio.get_running_loop().run_in_executor(DaemonThreadExecutor("test"), submit)


async def test_an_argument_that_blocks_while_it_is_pickled_blocks_its_own_thread_only(make: Make) -> None:
    director = await make()
    may_go, begun = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        assert may_go.wait(2 * PATIENCE)

    blocked = from_thread(director, operator.add, Calls(block), 1)
    try:
        await until(begun.is_set)
        assert [await within(director.run(served.add, n, 1)) for n in range(3)] == [1, 2, 3]
    finally:
        may_go.set()

    assert await within(blocked) == 2


async def test_an_argument_may_wait_for_the_event_loop_while_it_is_pickled(make: Make) -> None:
    director = await make()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        asyncio.run_coroutine_threadsafe(director.run(served.add, 1, 1), loop).result(PATIENCE)

    assert await within(from_thread(director, operator.add, Calls(ask), 1)) == 2


async def test_an_argument_may_submit_while_it_is_pickled(make: Make) -> None:
    director = await make()
    inner: list[Any] = []

    job = director.submit(served.add, Calls(lambda: inner.append(director.submit(served.add, 2, 2))), 1)

    assert (await within(job), await within(inner[0])) == (2, 4)


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_an_item_of_a_batch_that_exits_as_it_is_pickled_or_unpickled_fails_alone(
    make: Make, executor: str
) -> None:
    director = await make(executor=executor)
    leave = director.function(served.leave, max_batch_size=4)

    jobs = [leave.submit(item) for item in (1, served.Leaves(), -1, 2)]
    await within(asyncio.wait(jobs))

    assert [jobs[0].result(), jobs[3].result()] == [1, 2]
    assert [str(job.exception()) for job in jobs[1:3]] == ["3", "4"]


async def test_a_job_whose_director_closes_while_it_is_pickled_has_an_end(make: Make) -> None:
    director = await make()
    loop = asyncio.get_running_loop()

    def close() -> None:
        asyncio.run_coroutine_threadsafe(director.close(0), loop).result(PATIENCE)

    with pytest.raises((DirectorClosed, asyncio.CancelledError)):
        await within(from_thread(director, operator.add, Calls(close), 1))


async def test_a_loader_that_is_pickled_slowly_blocks_nobody_else(make: Make) -> None:
    director = await make()
    may_go, begun = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        assert may_go.wait(2 * PATIENCE)

    model = Model(partial(served.load_with, Calls(block)))  # type: ignore[arg-type]  # it is sent as 1
    blocked = from_thread(director, served.number_of_replica, model=model)
    try:
        await until(begun.is_set)
        assert await within(director.run(served.add, 1, 1)) == 2
    finally:
        may_go.set()

    assert await within(blocked) == 1


async def test_progress_that_is_pickled_slowly_blocks_its_own_job_only(make: Make, hold: Callable[[], Holder]) -> None:
    director, holder = await make("simulated:2"), hold()
    reports: list[Any] = []
    job = director.submit(served.report_slowly, holder.path)
    job.add_done_callback(lambda done: reports.append(done.progress))
    await within(holder.begun())

    assert await within(director.run(served.add, 1, 1)) == 2
    holder.let_go()
    await within(job)
    assert reports == ["slow"]


async def test_models_and_functions_that_are_dropped_are_forgotten_on_both_sides(make: Make, tmp_path: Any) -> None:
    director, other = await make(), await make()
    backend: Any = director._runtime
    kept = Model(served.load)
    await within(director.run(served.replica, model=kept))

    async def use(number: int) -> None:
        model = Model(partial(served.load_with, number), unload=partial(served.note_unload, str(tmp_path / "log")))
        batched = director.function(served.batch, max_batch_size=2)
        assert (await within(director.run(served.replica, model=model)))["number"] == number
        await within(batched(number))
        watched.append(ref(model))

    watched: list[Any] = []
    for number in range(5):
        await use(number)
    await until(lambda: gc.collect() >= 0 and not any(each() for each in watched))

    def unloaded() -> int:
        return len((tmp_path / "log").read_text().split()) if (tmp_path / "log").exists() else 0

    await until(lambda: unloaded() == 5)
    director._resolver.forget()  # it keeps the options of the last 256 functions
    await until(lambda: gc.collect() >= 0 and len(backend.queue.link._told) == 2)
    assert len(backend._encoder._named) == 2  # the function that gets the replica, and the model that is kept
    assert (await within(other.run(served.replica, model=Model(served.load))))["process"]


async def test_the_models_of_an_application_that_has_left_are_unloaded_after_the_linger(
    make: Make, tmp_path: Any
) -> None:
    director, other = await make(), await make()
    model = Model(partial(served.load_with, 1), unload=partial(served.note_unload, str(tmp_path / "log")))
    shared = Model(partial(served.load_with, 2), unload=partial(served.note_unload, str(tmp_path / "log")))
    for each in (model, shared):
        await within(other.run(served.replica, model=each))
    mine = Model(shared.load, unload=shared.unload)
    await within(director.run(served.replica, model=mine))

    await within(other.close())

    await until(lambda: (tmp_path / "log").exists())
    assert (tmp_path / "log").read_text() == "1\n"
    assert (await within(director.run(served.add, 1, 1))) == 2
