"""Jobs that other threads submit: whatever the event loop does meanwhile, each has its own outcome."""

from __future__ import annotations

import asyncio
import operator
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import pytest
from harness import served

from director import SyncDirector
from director._ipc.server.peer import Kind
from director._system.threads import DaemonThreadExecutor
from server.conftest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from director import Director

    Make = Callable[..., Awaitable[Director]]

pytestmark = pytest.mark.programs
THREADS, EACH = 8, 100


@pytest.fixture
def impatient() -> Iterator[None]:
    """The interpreter switches between threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(call: Callable[[int], Any], count: int = THREADS) -> Awaitable[list[Any]]:
    """What so many threads have returned."""
    loop = asyncio.get_running_loop()
    waits = (loop.run_in_executor(DaemonThreadExecutor("test"), call, number) for number in range(count))
    return asyncio.wait_for(asyncio.gather(*waits), 2 * PATIENCE)


async def test_an_answer_may_come_before_the_submission_returns(make: Make) -> None:
    director = await make()
    backend: Any = director._runtime
    link = backend.queue.link
    send, take, answered = link.peer.send, link.take, threading.Event()

    def send_slowly(kind: int, *args: Any, **options: Any) -> None:
        send(kind, *args, **options)
        if kind == Kind.SUBMIT:
            assert answered.wait(PATIENCE)

    def note(of: Any, messages: list[Any]) -> None:
        if any(message.kind in (Kind.STARTED, Kind.RETURNED) for message in messages):
            answered.set()
        take(of, messages)

    link.peer.send, link.take = send_slowly, note
    executor = director.as_executor()

    assert await in_threads(lambda _: executor.submit(operator.add, 1, 2).result(PATIENCE), 1) == [3]


@pytest.mark.usefixtures("impatient")
async def test_jobs_of_many_threads_get_their_own_results(make: Make) -> None:
    director = await make("simulated:2")
    executor = director.as_executor()

    def work(number: int) -> list[int]:
        calls = range(number * EACH, (number + 1) * EACH)
        return [executor.submit(operator.add, call, 1).result(PATIENCE) for call in calls]

    results = await in_threads(work)

    assert [value for values in results for value in values] == list(range(1, THREADS * EACH + 1))


def test_a_sync_director_has_a_server_for_its_threads(runtime_dir: Path) -> None:
    with SyncDirector("simulated:2", server="s", server_linger=0.0) as director, ThreadPoolExecutor(THREADS) as threads:

        def work(number: int) -> tuple[list[int], list[int]]:
            sums = [director.run(served.add, call, number) for call in range(EACH // 5)]
            return sums, list(director.stream(served.count, 5))

        results = list(threads.map(work, range(THREADS), timeout=2 * PATIENCE))

    assert results == [(list(range(n, n + EACH // 5)), list(range(5))) for n in range(THREADS)]


@pytest.mark.usefixtures("impatient")
async def test_calls_that_other_threads_cancel_end(make: Make) -> None:
    director = await make("simulated:2")
    executor = director.as_executor()
    large = bytes(1 << 20)  # is copied on a thread, and what follows it waits for that

    def work(number: int) -> int:
        ended = 0
        for call in range(EACH // 2):
            future = executor.submit(len, large if call % 2 else b"")
            if number % 2:
                future.cancel()
            done, _ = wait([future], PATIENCE)
            ended += len(done)
        return ended

    assert await in_threads(work) == [EACH // 2] * THREADS
    assert await asyncio.wait_for(director.run(served.add, 1, 1), PATIENCE) == 2
