"""The doors through which a hostile object gets into a Director, each a coroutine function that ends with the outcome.

A door returns what the caller gets: a value, or the exception, never raised, for some would end the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

import director
from director import Director, Model
from director.asgi import RequestDeadline
from harness.zoo import CLOSING, ERRORS, NUMBERS, OBJECTS, Inside, ZooError, make

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Door = Callable[[Director, str], Awaitable[Any]]

_variable: ContextVar[Any] = ContextVar("zoo")
_logger = logging.getLogger("zoo")
FIVE_SECONDS = 5.0

# ---- what is called


def ignore(_resource: Any, *_: Any) -> str:
    return "done"


def give(_resource: Any, name: str) -> Any:
    return make(name)


def give_yields(_resource: Any, name: str) -> Iterator[Any]:
    yield 1
    yield make(name)
    yield 2


def throw(_resource: Any, name: str) -> NoReturn:
    thing = make(name)
    raise thing if isinstance(thing, BaseException) else ZooError(thing)


def throw_yields(_resource: Any, name: str) -> Iterator[Any]:
    yield 1
    throw(None, name)


def throw_chained(_resource: Any, name: str) -> NoReturn:
    try:
        throw(None, name)
    except BaseException as error:
        raise ValueError("caused") from error


def tell(_resource: Any, name: str) -> str:
    director.report(make(name))
    director.report(1)
    return "done"


def log(_resource: Any, name: str) -> str:
    _logger.warning("a thing: %s", make(name))
    _logger.warning(make(name), extra={"thing": make(name)})
    return "done"


def look_at_context(_resource: Any) -> str:
    _variable.get(None)
    return "done"


def give_all(_resource: Any, items: list[Any]) -> list[Any]:
    return items


def give_made(_resource: Any, items: list[str]) -> list[Any]:
    return [make(name) for name in items]


def give_instead(_resource: Any, items: list[str]) -> Any:
    return make(items[0])


def throw_all(_resource: Any, items: list[str]) -> NoReturn:
    throw(None, items[0])


def load_five(_device: Any) -> int:
    return 5


def load_named(name: str, _device: Any) -> Any:
    return make(name)


def load_badly(name: str, _device: Any) -> NoReturn:
    throw(None, name)


# ---- waiting


async def outcome(*jobs: Any) -> Any:
    """The exception of the first of these that has one, else the first one's value."""
    Inside.job = jobs[0] if isinstance(jobs[0], director.Job) else None
    await asyncio.wait(jobs)
    found: list[BaseException] = []
    for job in jobs:
        if job.cancelled():
            found.append(asyncio.CancelledError())
        elif (error := job.exception()) is not None:
            found.append(error)
    return found[0] if found else jobs[0].result()


async def values(stream: Any) -> Any:
    """What a stream ends in."""
    last = None
    try:
        async for value in stream:
            last = value
    finally:
        await stream.aclose()
    return last


def option(name: str) -> Door:
    """The thing as an option of a job."""

    async def door(d: Director, thing: str) -> Any:
        options: dict[str, Any] = {name: make(thing)}
        if name == "retry_on":
            options["retries"] = 1
        return await outcome(*[d.submit(ignore, **options) for _ in range(3)])

    return door


def function_option(name: str) -> Door:
    """The thing as an option of a function of batches."""

    async def door(d: Director, thing: str) -> Any:
        options: dict[str, Any] = {"max_batch_size": 3, name: make(thing)}  # as many as there are: it need not wait
        if name == "max_batch_cost":
            options["batch_cost"] = int
        function = d.function(give_all, **options)
        return await outcome(*[function.submit(n) for n in range(3)])

    return door


def director_option(name: str) -> Door:
    """The thing as an option of a Director of its own."""

    async def door(_: Director, thing: str) -> Any:
        options: dict[str, Any] = {name: make(thing)}
        if name in ("hooks", "devices"):
            options[name] = [options[name]]
        if name == "tenants":
            options[name] = {"a": make(thing)}
        if name == "slots" and isinstance(options[name], int) and options[name] > 100:
            return None  # may be had, one by one
        async with Director(**({"devices": "simulated:1"} | options)) as d:
            Inside.director = d
            return await outcome(d.submit(ignore), d.submit(ignore, tenant="a", priority=1))

    return door


async def through_function(d: Director, thing: str) -> Any:
    return await outcome(d.submit(make(thing)))


async def through_bound_function(d: Director, thing: str) -> Any:
    if (fn := make(thing)) is None:
        return None  # that makes a decorator
    function = d.function(fn, priority=1)
    repr(function)
    return await outcome(function.submit(1))


async def through_argument(d: Director, thing: str) -> Any:
    return await outcome(d.submit(ignore, make(thing), [make(thing)]))


async def through_keyword(d: Director, thing: str) -> Any:
    return await outcome(d.submit(functools.partial(ignore, make(thing))))


async def through_result(d: Director, thing: str) -> Any:
    return await outcome(d.submit(give, thing))


async def through_yield(d: Director, thing: str) -> Any:
    return await values(d.stream(give_yields, thing))


async def through_stream_function(d: Director, thing: str) -> Any:
    return await values(d.stream(make(thing)))


async def through_exception(d: Director, thing: str) -> Any:
    return await outcome(d.submit(throw, thing), d.submit(throw, thing, retries=1))


async def through_retried_exception(d: Director, thing: str) -> Any:
    return await outcome(d.submit(throw, thing, retries=1, retry_on=Exception))


async def through_chained_exception(d: Director, thing: str) -> Any:
    return await outcome(d.submit(throw_chained, thing))


async def through_exception_in_stream(d: Director, thing: str) -> Any:
    return await values(d.stream(throw_yields, thing))


async def through_loader(d: Director, thing: str) -> Any:
    return await outcome(d.submit(ignore, model=Model(make(thing))))


async def through_replica(d: Director, thing: str) -> Any:
    return await outcome(d.submit(ignore, model=Model(functools.partial(load_named, thing), name="a")))


async def through_failing_loader(d: Director, thing: str) -> Any:
    model = Model(functools.partial(load_badly, thing), name="a")
    with contextlib.suppress(Exception):
        await d.load(model)
    return await outcome(d.submit(ignore, model=model))


async def through_warmup(d: Director, thing: str) -> Any:
    return await outcome(d.submit(ignore, model=Model(load_five, warmup=make(thing))))


async def through_model_name(d: Director, thing: str) -> Any:
    return await outcome(d.submit(ignore, model=Model(load_five, name=make(thing))))


async def through_replicas(d: Director, thing: str) -> Any:
    return await outcome(d.submit(ignore, model=Model(load_five, replicas=make(thing))))


async def through_unload(_: Director, thing: str) -> Any:
    async with Director("simulated:1") as d:
        Inside.director = d
        return await outcome(d.submit(ignore, model=Model(load_five, unload=make(thing))))


async def through_batch_key(d: Director, thing: str) -> Any:
    function = d.function(give_all, max_batch_size=4, batch_key=lambda _: make(thing))
    return await outcome(*[function.submit(n) for n in range(3)])


async def through_batch_key_function(d: Director, thing: str) -> Any:
    function = d.function(give_all, max_batch_size=4, batch_key=make(thing))
    return await outcome(*[function.submit(n) for n in range(3)])


async def through_batch_cost(d: Director, thing: str) -> Any:
    function = d.function(give_all, max_batch_size=4, batch_cost=lambda _: make(thing), max_batch_cost=5)
    return await outcome(*[function.submit(n) for n in range(3)])


async def through_batch_item(d: Director, thing: str) -> Any:
    function = d.function(give_all, max_batch_size=4)
    return await outcome(*[function.submit(make(thing)) for _ in range(3)])


async def through_batch_result(d: Director, thing: str) -> Any:
    function = d.function(give_made, max_batch_size=4)
    return await outcome(*[function.submit(thing) for _ in range(3)])


async def through_whole_batch_result(d: Director, thing: str) -> Any:
    function = d.function(give_instead, max_batch_size=4)
    return await outcome(*[function.submit(thing) for _ in range(3)])


async def through_batch_exception(d: Director, thing: str) -> Any:
    function = d.function(throw_all, max_batch_size=4, isolate_failures=True)
    return await outcome(*[function.submit(thing) for _ in range(3)])


async def through_report(d: Director, thing: str) -> Any:
    return await outcome(d.submit(tell, thing))


async def through_log(d: Director, thing: str) -> Any:
    return await outcome(d.submit(log, thing))


async def through_context(d: Director, thing: str) -> Any:
    token = _variable.set(make(thing))
    try:
        job = d.submit(look_at_context)
    finally:
        _variable.reset(token)
    return await outcome(job)


async def through_callback(d: Director, thing: str) -> Any:
    callback = make(thing)
    if not callable(callback) or type(callback) is weakref.CallableProxyType:
        return None  # asyncio says so when it calls it, and stops where the object is gone
    job = d.submit(ignore)
    job.add_done_callback(callback)
    return await outcome(job, d.submit(ignore))


async def through_items(d: Director, thing: str) -> Any:
    async for last in d.map(ignore, make(thing)):
        return last  # one is enough of an endless one
    return None


async def through_item(d: Director, thing: str) -> Any:
    return await values(d.map(ignore, [make(thing), 1]))


async def through_window(d: Director, thing: str) -> Any:
    return await values(d.map(ignore, [1, 2], window=make(thing)))


async def through_buffer(d: Director, thing: str) -> Any:
    return await values(d.stream(give_yields, "zero", buffer=make(thing)))


async def through_slow_reader_timeout(d: Director, thing: str) -> Any:
    return await values(d.stream(give_yields, "zero", slow_reader_timeout=make(thing), on_slow_reader="cancel"))


async def through_cancel_message(d: Director, thing: str) -> Any:
    job = d.submit(ignore)
    job.cancel(make(thing))
    return await outcome(job)


async def through_executor(d: Director, thing: str) -> Any:
    executor = d.as_executor()
    futures = [executor.submit(make(thing)), executor.submit(throw, None, thing), executor.submit(give, None, thing)]
    loop = asyncio.get_running_loop()
    events = [asyncio.Event() for _ in futures]
    for future, event in zip(futures, events, strict=True):  # asyncio.wrap_future can't carry a StopIteration
        future.add_done_callback(lambda _, event=event: loop.call_soon_threadsafe(event.set))
    for event in events:
        await event.wait()
    return next((error for future in futures if (error := future.exception()) is not None), None)


async def through_lease_name(d: Director, thing: str) -> Any:
    async with d.lease(name=make(thing)):
        return None


async def through_timeout_of_close(_: Director, thing: str) -> Any:
    d = Director("simulated:1")
    await d.start()
    job = d.submit(ignore)
    try:
        return await d.close(make(thing))
    finally:
        await asyncio.wait([job])
        await d.close()


async def through_header(d: Director, thing: str) -> Any:
    """Of a request, as the text of a number."""
    number = make(thing)
    try:
        text = (number if isinstance(number, str) else repr(number)).encode("utf-8", "surrogateescape")
    except (ValueError, ZooError):
        return None
    got: list[int] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await outcome(d.submit(ignore, deadline=director.asgi.time_left()))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        got.append(message.get("status", 0))

    async def receive() -> Any:
        await asyncio.sleep(FIVE_SECONDS)

    for header in (b"x-request-timeout", b"x-request-deadline"):
        scope: Any = {"type": "http", "method": "GET", "path": "/", "headers": [(header, text[:8000])]}
        await RequestDeadline(app)(scope, receive, send)
    assert got[:1] in ([200], [400], [503], [504]), got
    return got[0]


# ---- which objects come through which door, and where

_ALL = OBJECTS | NUMBERS | ERRORS
_VALUES = OBJECTS | NUMBERS
DOORS: dict[str, tuple[Any, dict[str, Any]]] = {
    "function": (through_function, _ALL),
    "bound function": (through_bound_function, OBJECTS),
    "argument": (through_argument, _ALL),
    "partial": (through_keyword, _VALUES),
    "result": (through_result, _ALL),
    "yielded value": (through_yield, _ALL),
    "stream function": (through_stream_function, OBJECTS),
    "exception": (through_exception, _ALL),
    "retried exception": (through_retried_exception, ERRORS),
    "chained exception": (through_chained_exception, ERRORS),
    "exception in a stream": (through_exception_in_stream, ERRORS),
    "loader": (through_loader, OBJECTS),
    "replica": (through_replica, _ALL),
    "failing loader": (through_failing_loader, ERRORS),
    "warm-up": (through_warmup, OBJECTS),
    "unload": (through_unload, OBJECTS),
    "model's name": (through_model_name, _VALUES),
    "replicas": (through_replicas, _VALUES),
    "batch key": (through_batch_key, _ALL),
    "batch key function": (through_batch_key_function, OBJECTS),
    "batch cost": (through_batch_cost, _VALUES),
    "batch item": (through_batch_item, _ALL),
    "batch result": (through_batch_result, _ALL),
    "whole batch result": (through_whole_batch_result, _ALL),
    "batch exception": (through_batch_exception, ERRORS),
    "report": (through_report, _ALL),
    "log": (through_log, _VALUES),
    "context": (through_context, _VALUES),
    "done-callback": (through_callback, OBJECTS),
    "items": (through_items, OBJECTS),
    "item": (through_item, _ALL),
    "window": (through_window, _VALUES),
    "buffer": (through_buffer, _VALUES),
    "slow_reader_timeout": (through_slow_reader_timeout, _VALUES),
    "cancel message": (through_cancel_message, _ALL),
    "executor": (through_executor, _ALL),
    "lease": (through_lease_name, _VALUES),
    "close": (through_timeout_of_close, NUMBERS),
    "header": (through_header, NUMBERS),
}
for _name in (
    "tenant",
    "priority",
    "deadline",
    "timeout",
    "backoff",
    "retries",
    "retry_on",
    "devices",
    "name",
    "model",
):
    DOORS[_name] = (option(_name), _ALL)
for _name in ("max_batch_size", "max_wait", "batch_window", "max_batch_cost", "batch_cost", "isolate_failures"):
    DOORS[_name] = (function_option(_name), _VALUES)
for _name in ("slots", "max_queue", "max_queue_per_tenant", "tenants", "ageing", "admission", "health", "hooks"):
    DOORS[f"Director({_name})"] = (director_option(_name), _VALUES)
for _name in ("executor", "shared", "clock", "devices", "name"):
    DOORS[f"Director({_name})"] = (director_option(_name), _VALUES)

# What crosses to another process; the rest is decided before.
CROSSING = """
    function argument partial result yielded_value exception retried_exception chained_exception exception_in_a_stream
    loader replica failing_loader warm-up model's_name batch_item batch_result whole_batch_result batch_exception report
    log context cancel_message executor tenant priority deadline timeout name
"""
CROSSING_DOORS = [name.replace("_", " ") for name in CROSSING.split()]
CLOSING_DOORS = (
    "function",
    "argument",
    "result",
    "exception",
    "tenant",
    "batch key",
    "report",
    "context",
    "item",
    "name",
)


def cells(mode: str) -> list[tuple[str, str]]:
    """All pairs of a door and a thing that are tried in ``"thread"``, ``"process"`` or ``"ray"``."""
    doors = list(DOORS) if mode == "thread" else CROSSING_DOORS
    found = [(door, thing) for door in doors for thing in DOORS[door][1]]
    if mode == "thread":
        found += [(door, thing) for door in CLOSING_DOORS for thing in CLOSING]
    return found
