"""Streams from a child: in order, bounded, closed when their reader leaves, and with clear ends."""

from __future__ import annotations

import asyncio
import pickle
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, until

from director import Director, JobError, Model, ProcessExecutor, SlowReader, WorkerDied
from director._ipc.shared_page import WINDOW
from executors.process import calls
from executors.process.leaks import shared_memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MEGABYTE = 1 << 20


async def read(values: AsyncIterator[Any]) -> tuple[list[Any], BaseException | None]:
    """What comes, and what it ends with."""
    seen: list[Any] = []
    try:
        async for value in values:
            seen.append(value)  # noqa: PERF401 - it is wanted after an error too
    except Exception as error:
        return seen, error
    return seen, None


def size(path: Path) -> int:
    return path.stat().st_size


async def test_values_come_in_order(director: Director) -> None:
    assert [value async for value in director.stream(calls.count_up, 500)] == list(range(500))
    assert [value async for value in director.stream(calls.count_up, 0)] == []
    assert await director.run(calls.echo, 1) == 1


async def test_a_stream_from_a_model(director: Director) -> None:
    model = Model(calls.load)
    process = await director.run(calls.process_id)
    assert [value async for value in director.stream(calls.weights, 3, model=model)] == [process] * 3


@pytest.mark.parametrize("buffer", [1, 2])
async def test_a_slow_reader_holds_the_generator_up(director: Director, tmp_path: Path, buffer: int) -> None:
    """The window is under way beside what is read and buffered, and the child has made one value more.

    It is woken for each half of the window, so what is read and buffered are some halves. The first stream is left
    with credits of a whole window and more; they are not the second one's.
    """
    taken = 6 * (WINDOW // 2)
    most = taken + WINDOW + 1
    for n in range(2):
        path = tmp_path / str(n)
        path.touch()
        async with aclosing(director.stream(calls.count_up_telling, 1000, str(path), buffer=buffer)) as values:
            assert [await anext(values) for _ in range(taken - buffer)] == list(range(taken - buffer))
            await until(lambda: size(path) >= most)  # noqa: B023 - called at once
        assert await director.run(calls.echo, 1) == 1
        assert size(path) <= most + 1


async def test_large_values_do_not_pile_up(director: Director) -> None:
    before = shared_memory()
    seen = []
    async with aclosing(director.stream(calls.arrays, 60, 8 * MEGABYTE, buffer=1)) as values:
        async for array in values:
            seen.append((int(array[0]), int(array[-1])))
            assert shared_memory() - before < 60 * 8 * MEGABYTE / 2
            del array
    assert seen == [(n, n) for n in range(60)]


@pytest.mark.parametrize("buffer", [1, 16])
async def test_small_and_large_values_of_one_stream_come_in_order(director: Director, buffer: int) -> None:
    sizes = (10, 40_000, 10, 10, 2_000_000, 30_000, 100_000)
    values = [value async for value in director.stream(calls.sizes_in_turn, 100, *sizes, buffer=buffer)]
    assert values == [bytes([n]) * sizes[n % len(sizes)] for n in range(100)]


async def test_values_that_are_kept_stay_whole(director: Director) -> None:
    kept = [array async for array in director.stream(calls.arrays, 40, MEGABYTE)]
    assert all((array == n).all() for n, array in enumerate(kept))


async def test_a_reader_who_leaves_closes_the_generator(director: Director, tmp_path: Path) -> None:
    path = tmp_path / "made"
    async with aclosing(director.stream(calls.count_up, 10**9, str(path))) as values:
        async for value in values:
            if value == 20:
                break
    await until(path.exists)
    before = await director.run(calls.process_id)
    assert [value async for value in director.stream(calls.count_up, 50)] == list(range(50)), "none of the other's"
    assert await director.run(calls.process_id) == before


async def test_a_reader_that_is_too_slow_is_told(director: Director) -> None:
    values = director.stream(calls.count_up, 100, buffer=1, on_slow_reader="cancel", slow_reader_timeout=0.05)
    assert await anext(values) == 0
    await until(lambda: director.stats().failed + director.stats().cancelled)
    assert isinstance((await read(values))[1], SlowReader)
    assert await director.run(calls.echo, 1) == 1


async def test_what_a_generator_raises(director: Director) -> None:
    seen, error = await read(director.stream(calls.break_after, 5))
    assert seen == list(range(5))
    assert isinstance(error, calls.Rich)
    assert "in break_after" in error.__notes__[0]


async def test_a_child_that_dies_in_a_stream(director: Director) -> None:
    seen, error = await read(director.stream(calls.die_after, 5))
    assert isinstance(error, WorkerDied)
    assert seen == list(range(5)), "what had been sent"
    assert [value async for value in director.stream(calls.count_up, 5)] == list(range(5))


async def test_values_that_can_not_travel(director: Director) -> None:
    for fn, words in (
        (calls.yield_lock, "a value of the stream can't be sent"),
        (calls.yield_unloadable, "no way back"),
    ):
        seen, error = await read(director.stream(fn))
        assert seen == [1]
        assert isinstance(error, (pickle.PicklingError, ValueError))
        assert words in str(error)
    assert await director.run(calls.echo, 1) == 1


async def test_the_timeout_of_a_stream_ends_it() -> None:
    async with Director("cpu", executor=ProcessExecutor(grace=0.1)) as director:
        began = time.monotonic()
        assert isinstance((await read(director.stream(calls.count_up, 10**9, timeout=0.3)))[1], TimeoutError)
        assert time.monotonic() - began < PATIENCE
        assert await director.run(calls.echo, 1) == 1


async def test_many_streams_at_once() -> None:
    async with Director("cpu:2", executor="process") as director:
        found = await asyncio.gather(*(read(director.stream(calls.count_up, 20 * n)) for n in range(12)))
    assert found == [(list(range(20 * n)), None) for n in range(12)]


# ---- faults of devices


async def test_a_lack_of_memory_comes_without_the_framework(director: Director) -> None:
    job = director.submit(calls.out_of_memory)
    await asyncio.wait([job])
    error = job.exception()
    assert isinstance(error, JobError)
    assert "CUDA out of memory. Tried to allocate 20.00 GiB" in str(error)
    assert "torch is not imported here" in str(error)
    assert "in out_of_memory" in error.__notes__[0]


async def test_a_batch_that_lacks_memory_is_halved(director: Director) -> None:
    function = director.function(calls.memory_for, max_batch_size=8)
    async with director.lease():
        jobs = [function.submit(n) for n in range(8)]
    assert await asyncio.gather(*jobs) == list(range(8))


async def test_a_child_with_a_broken_context_is_replaced(director: Director) -> None:
    before = await director.run(calls.process_id)
    with pytest.raises(RuntimeError, match="an illegal memory access was encountered"):
        await director.run(calls.sticky)
    assert await director.run(calls.process_id) != before
    assert director.healthy
