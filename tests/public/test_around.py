"""`around=`: a context manager that is entered around each call, on the thread that makes it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Recorder, outcome

from director import Device, Director, Model
from director.events import JobStarted

if TYPE_CHECKING:
    from collections.abc import Iterator

here = threading.local()
EXECUTORS = ["thread", "process"]


def depth() -> list[str]:
    if not hasattr(here, "names"):
        here.names = []
    return here.names  # type: ignore[no-any-return]


@contextlib.contextmanager
def outer() -> Iterator[None]:
    depth().append("outer")
    yield
    depth().remove("outer")


@contextlib.contextmanager
def inner() -> Iterator[None]:
    depth().append("inner")
    yield
    depth().remove("inner")


@contextlib.contextmanager
def broken() -> Iterator[None]:
    raise KeyError("around")
    yield


def names(_resource: Any, *_args: Any) -> list[str]:
    return list(depth())


def plain_names() -> list[str]:
    return list(depth())


def batch_of_names(_resource: Any, items: list[Any]) -> list[list[str]]:
    return [list(depth())] * len(items)


def stream_of_names(_resource: Any) -> Iterator[list[str]]:
    for _ in range(3):
        yield list(depth())


def load(_device: Device) -> list[str]:
    return list(depth())


def seen_at_load(replica: list[str]) -> list[str]:
    return replica


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_each_call_is_within_it(executor: Any) -> None:
    async with Director("simulated:1", executor=executor, around=outer) as director:
        assert await director.run(names) == ["outer"]
        assert await director.submit(names, 1, priority=1) == ["outer"]
        assert await director.function(names)(1) == ["outer"]
        assert [each async for each in director.map(names, [1, 2])] == [["outer"]] * 2
        assert await asyncio.wrap_future(director.as_executor().submit(plain_names)) == ["outer"]


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_the_directors_is_outside_the_models(executor: Any) -> None:
    model = Model(load, around=inner)
    async with Director("simulated:1", executor=executor, around=outer) as director:
        assert await director.run(names, model=model) == ["outer", "inner"]
        assert await director.run(names) == ["outer"]
        assert await director.run(names, model=Model(load)) == ["outer"]
    async with Director("simulated:1", executor=executor) as director:
        assert await director.run(names) == []
        assert await director.run(names, model=model) == ["inner"]
        assert await director.run(names) == []


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_a_batch_is_one_call(executor: Any) -> None:
    async with Director("simulated:1", executor=executor, around=outer) as director:
        function = director.function(batch_of_names, max_batch_size=4)
        assert await asyncio.gather(*[function(n) for n in range(4)]) == [["outer"]] * 4


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_a_stream_is_within_it_as_a_whole(executor: Any) -> None:
    async with Director("simulated:1", executor=executor, around=outer) as director:
        assert [each async for each in director.stream(stream_of_names)] == [["outer"]] * 3
        assert await director.run(names) == ["outer"], "it was left at the end"


async def test_a_stream_whose_reader_leaves_leaves_it() -> None:
    async with Director("simulated:1", around=outer) as director:
        async for _ in director.stream(stream_of_names):
            break
        assert await director.run(names) == ["outer"]


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_loads_are_not_within_it(executor: Any) -> None:
    model = Model(load, around=inner)
    async with Director("simulated:1", executor=executor, around=outer) as director:
        await director.load(model)
        assert await director.run(seen_at_load, model=model) == []


async def test_loads_in_advance_and_leases_do_not_enter_it() -> None:
    entered: list[int] = []

    @contextlib.contextmanager
    def counted() -> Iterator[None]:
        entered.append(1)
        yield

    async with Director("simulated:1", around=counted) as director:
        await director.load(Model(load, around=counted, warmup=lambda _: None))
        async with director.lease():
            pass
        assert entered == []


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_its_errors_fail_the_call(executor: Any) -> None:
    async with Director("simulated:1", executor=executor, around=broken) as director:
        assert isinstance(await outcome(director.run(names)), KeyError)
    async with Director("simulated:1", executor=executor) as director:
        assert isinstance(await outcome(director.run(names, model=Model(load, around=broken))), KeyError)
        assert await director.run(names) == []


async def test_what_the_function_raises_goes_through_it() -> None:
    seen: list[type] = []

    @contextlib.contextmanager
    def watching() -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            seen.append(type(error))
            raise

    def fail(_device: Device) -> None:
        raise ValueError("on purpose")

    async with Director("simulated:1", around=watching) as director:
        assert isinstance(await outcome(director.run(fail)), ValueError)
    assert seen == [ValueError]


async def test_jobs_keep_their_names() -> None:
    recorder = Recorder()
    async with Director("simulated:1", around=outer, hooks=[recorder]) as director:
        job = director.submit(names)
        assert job.name == "names"
        await job
        assert job.name == "names"
    assert recorder.of(JobStarted)


@pytest.mark.parametrize("around", [1, "torch", ()])
def test_it_is_a_callable(around: Any) -> None:
    with pytest.raises(TypeError, match="around must be a callable"):
        Director("simulated:1", around=around)
    with pytest.raises(TypeError, match="around must be a callable"):
        Model(load, around=around)


async def test_what_children_cannot_get_is_refused_early() -> None:
    lock = threading.Lock()

    class Held:
        def __call__(self) -> Any:
            return lock

        def __reduce__(self) -> Any:
            raise TypeError("a lock can't be pickled")

    with pytest.raises(TypeError, match="child processes"):
        Director("simulated:1", executor="process", around=Held())
    async with Director("simulated:1", executor="process") as director:
        with pytest.raises(TypeError, match="child processes"):
            director.submit(names, model=Model(load, around=Held()))
    Director("simulated:1", around=Held())


async def test_without_it_the_function_is_the_one_that_was_given() -> None:
    async with Director("simulated:1") as director:
        job: Any = director.submit(names)
        assert job.fn is names
        await job


async def test_what_is_no_context_manager_fails_the_call() -> None:
    async with Director("simulated:1", around=lambda: 1) as director:  # type: ignore[arg-type,return-value]
        assert isinstance(await outcome(director.run(names)), TypeError)
