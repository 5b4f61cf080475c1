"""How long a client will wait, from its headers."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import turns, until

from asgi.wire import Exchange
from director import Director, JobTimeout
from director.asgi import RequestDeadline, time_left

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from harness.gates import Gate

OK = {"type": "http.response.start", "status": 200, "headers": []}
DONE = {"type": "http.response.body", "body": b"done"}


class Telling:
    """An application that tells how much time it has."""

    def __init__(self) -> None:
        self.left: float | None = -1.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.left = time_left()
        await send(OK)
        await send(DONE)


async def left(headers: dict[str, str], **options: Any) -> float | None:
    app = Telling()
    exchange = await Exchange(headers=headers).through(RequestDeadline(app, **options))
    assert exchange.status == 200
    return app.left


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


WAYS = {
    "a timeout": lambda: {"x-request-timeout": "30"},
    "a fraction, and capitals": lambda: {"X-Request-Timeout": "30.0"},
    "seconds since 1970": lambda: {"x-request-deadline": str(in_seconds(30).timestamp())},
    "RFC 3339": lambda: {"x-request-deadline": in_seconds(30).isoformat()},
    "Zulu time": lambda: {"x-request-deadline": in_seconds(30).replace(tzinfo=None).isoformat() + "Z"},
    "no time zone is UTC": lambda: {"x-request-deadline": in_seconds(30).replace(tzinfo=None).isoformat()},
    "another time zone": lambda: {
        "x-request-deadline": in_seconds(30).astimezone(timezone(-timedelta(hours=9))).isoformat()
    },
    "both": lambda: {"x-request-timeout": "30", "x-request-deadline": in_seconds(90).isoformat()},
}


async def test_without_a_header_there_is_no_limit() -> None:
    assert await left({}) is None
    assert time_left() is None


@pytest.mark.parametrize("way", WAYS)
async def test_seconds_and_moments(way: str) -> None:
    seconds = await left(WAYS[way]())
    assert seconds is not None
    assert 20 < seconds <= 30


async def test_a_default_and_a_bound() -> None:
    assert 9 < (await left({}, default=10) or 0) <= 10
    assert 4 < (await left({"x-request-timeout": "30"}, most=5) or 0) <= 5
    assert 4 < (await left({}, default=10, most=5) or 0) <= 5
    assert await left({}, most=5) is None, "who says nothing has no limit"


@pytest.mark.every_loop
@pytest.mark.parametrize("header", ["x-request-timeout", "x-request-deadline"])
@pytest.mark.parametrize("said", ["1e10", "1e300", "9" * 300, "9999-12-31T23:59:59-23:59"])
async def test_more_seconds_than_a_timer_keeps_are_cut(header: str, said: str) -> None:
    if header == "x-request-timeout" and "-" in said:
        pytest.skip("no seconds")
    seconds = await left({header: said})
    assert seconds is not None
    assert 10**9 - 10 < seconds <= 10**9


@pytest.mark.parametrize("said", ["-1e300", "-" + "9" * 300, "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"])
async def test_a_moment_long_ago_has_passed(said: str) -> None:
    exchange = await Exchange(headers={"x-request-deadline": said}).through(RequestDeadline(Telling()))
    assert exchange.status in (400, 503, 504)


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf"), 1e10, 10**400])
def test_a_limit_must_be_positive(wrong: float) -> None:
    with pytest.raises(ValueError, match="default must be positive seconds"):
        RequestDeadline(Telling(), default=wrong)
    with pytest.raises(ValueError, match="most must be positive seconds"):
        RequestDeadline(Telling(), most=wrong)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-timeout": "soon"},
        {"x-request-timeout": "nan"},
        {"x-request-timeout": "1e400"},
        {"x-request-timeout": "9" * 400},
        {"x-request-timeout": "\xb2"},
        {"x-request-timeout": ""},
        {"x-request-deadline": "-1e400"},
        {"x-request-deadline": "inf"},
        {"x-request-deadline": "at five"},
    ],
    ids=str,
)
async def test_what_cannot_be_read_is_refused(headers: dict[str, str]) -> None:
    exchange = await Exchange(headers=headers).through(RequestDeadline(Telling()))
    assert (exchange.status, exchange.json()["kind"]) == (400, "bad-deadline")
    assert next(iter(headers)).title() in exchange.json()["detail"]


@pytest.mark.parametrize(
    "headers", [{"x-request-timeout": "0"}, {"x-request-deadline": str(time.time() - 1)}], ids=["timeout", "deadline"]
)
async def test_a_request_that_is_too_late_is_not_begun(headers: dict[str, str]) -> None:
    app = Telling()
    exchange = await Exchange(headers=headers).through(RequestDeadline(app))
    assert (exchange.status, exchange.json()["ran"]) == (504, False)
    assert app.left == -1.0


@pytest.mark.sim
async def test_a_request_that_takes_too_long_is_cancelled_and_answered() -> None:
    ended = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            ended.append("cleaned up")

    exchange = await Exchange(headers={"x-request-timeout": "0.5"}).through(RequestDeadline(app))
    assert (exchange.status, exchange.json()["kind"]) == (504, "timeout")
    assert ended == ["cleaned up"]


@pytest.mark.sim
async def test_the_limit_ends_when_the_answer_begins() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.4)
        await send(OK)
        await asyncio.sleep(60)
        await send(DONE)

    exchange = await Exchange(headers={"x-request-timeout": "0.5"}).through(RequestDeadline(app))
    assert (exchange.status, exchange.text) == (200, b"done")


@pytest.mark.sim
async def test_an_application_that_answers_at_the_last_moment_has_answered() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await send(OK)
            await send(DONE)

    exchange = await Exchange(headers={"x-request-timeout": "0.5"}).through(RequestDeadline(app))
    assert (exchange.status, exchange.text) == (200, b"done")


@pytest.mark.sim
async def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    """It began while the application cleaned up. The server has to break it off, so it needs the error."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await send(OK)

    exchange = Exchange(headers={"x-request-timeout": "0.5"})
    with pytest.raises(TimeoutError):
        await exchange.through(RequestDeadline(app))
    assert exchange.sent == [OK]


@pytest.mark.sim
async def test_there_is_no_deadline_once_the_answer_has_begun() -> None:
    """Neither for what streams on nor for background tasks."""
    left = []

    async def tell() -> None:
        left.append(time_left())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await tell()
        await send(OK)
        await tell()
        await asyncio.create_task(tell())

    await Exchange(headers={"x-request-timeout": "0.5"}).through(RequestDeadline(app))
    assert left[0] is not None
    assert left[1:] == [None, None]


async def test_an_applications_own_timeout_passes() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        await Exchange(headers={"x-request-timeout": "30"}).through(RequestDeadline(app))


async def test_when_no_time_is_left_there_is_none_to_give() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            time_left()

    exchange = Exchange(headers={"x-request-timeout": "0.001"})
    with pytest.raises(JobTimeout):
        await exchange.through(RequestDeadline(app))


async def test_it_is_the_deadline_of_jobs() -> None:
    async with Director("simulated:1") as director:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            job = director.submit(lambda _: None, deadline=time_left())
            assert job.options.deadline is not None
            await job
            await send(OK)
            await send(DONE)

        exchange = await Exchange(headers={"x-request-timeout": "30"}).through(RequestDeadline(app))
        assert exchange.status == 200


async def test_requests_do_not_see_each_others_deadlines() -> None:
    several = [left({"x-request-timeout": str(10 * n)}) for n in range(1, 5)]
    seconds = await asyncio.gather(*several, left({}))
    assert [round(each / 10) for each in seconds[:4] if each] == [1, 2, 3, 4]
    assert seconds[4] is None


async def test_other_kinds_of_connections_pass() -> None:
    app = Telling()
    await Exchange(kind="websocket", headers={"x-request-timeout": "0"}).through(RequestDeadline(app))
    assert app.left is None


# ---- streamed answers, and whether anything ran


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[None]]:
    """Has the timers of the event loop ring that are due within a hundred seconds."""

    async def jump() -> None:
        loop = asyncio.get_running_loop()
        now = loop.time
        with monkeypatch.context() as patch:
            patch.setattr(loop, "time", lambda: now() + 100.0)
            await turns()

    return jump


def streaming(director: Director, fn: Any, begun: asyncio.Event | None = None) -> Any:
    """An application that sends its status at once, and then the values of a stream."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        async with director.stream(fn) as values:
            await send(OK)
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            if begun is not None:
                begun.set()
            async for value in values:
                await send({"type": "http.response.body", "body": value, "more_body": True})
            await send(DONE)

    return app


def letters(_device: Any) -> Iterator[bytes]:
    yield b"a"
    yield b"b"


async def test_the_wait_of_a_stream_is_bounded_and_nothing_ran(gate: Gate) -> None:
    async with Director("simulated:1") as director:
        director.submit(gate)
        await gate.begun()
        app = RequestDeadline(streaming(director, letters))
        exchange = await Exchange(headers={"x-request-timeout": "0.02"}).through(app)
        assert (exchange.status, exchange.json()["ran"]) == (504, False)
        assert director.stats().queued == 0
        gate.open()


async def test_what_streams_in_time_is_sent_with_its_status_and_may_take_longer(
    gate: Gate, jump: Callable[[], Awaitable[None]]
) -> None:
    def slowly(device: Any) -> Iterator[bytes]:
        yield b"a"
        gate(device)
        yield b"b"

    async with Director("simulated:1") as director:
        exchange = Exchange(headers={"x-request-timeout": "60"})
        serving = asyncio.ensure_future(exchange.through(RequestDeadline(streaming(director, slowly))))
        await until(lambda: exchange.text == b"a")
        await jump()
        gate.open()
        await serving
        assert (exchange.status, exchange.text) == (200, b"abdone")


async def test_the_answer_says_that_a_job_had_begun(gate: Gate, jump: Callable[[], Awaitable[None]]) -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        assert await director.run(lambda device: 1) == 1
        await director.run(gate)

    async with Director("simulated:1") as director:
        exchange = Exchange(headers={"x-request-timeout": "60"})
        serving = asyncio.ensure_future(exchange.through(RequestDeadline(app)))
        await gate.begun()
        await jump()
        await serving
        assert (exchange.status, exchange.json()["ran"]) == (504, True)
        gate.open()


async def test_a_job_that_has_ended_counts_as_one_that_ran(gate: Gate, jump: Callable[[], Awaitable[None]]) -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        await director.run(lambda device: 1, devices=[0])
        await director.run(lambda device: 2, devices=[1])

    async with Director("simulated:2") as director:
        director.submit(gate, devices=[1])
        await gate.begun()
        exchange = Exchange(headers={"x-request-timeout": "60"})
        serving = asyncio.ensure_future(exchange.through(RequestDeadline(app)))
        await until(lambda: (director.stats().succeeded, director.stats().queued) == (1, 1))
        await jump()
        await serving
        assert (exchange.status, exchange.json()["ran"]) == (504, True)
        gate.open()


async def test_an_error_before_the_first_bytes_is_answered_as_a_problem(gate: Gate) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        async with director.stream(letters, start_within=0.02) as values:
            await send(OK)
            async for _value in values:
                raise AssertionError("there is no slot")

    async with Director("simulated:1") as director:
        director.submit(gate)
        await gate.begun()
        exchange = await Exchange(headers={"x-request-timeout": "30"}).through(RequestDeadline(app))
        assert (exchange.status, exchange.json()["kind"], exchange.json()["ran"]) == (503, "not-started", False)
        gate.open()


async def test_a_request_without_jobs_may_have_done_something() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        await asyncio.sleep(60)

    exchange = await Exchange(headers={"x-request-timeout": "0.01"}).through(RequestDeadline(app))
    assert (exchange.status, exchange.json()["ran"]) == (504, True)


async def test_without_a_limit_and_for_jobs_that_run_the_status_is_sent_at_once(gate: Gate) -> None:
    begun = asyncio.Event()
    async with Director("simulated:1") as director:
        director.submit(gate)
        await gate.begun()
        exchange = Exchange()
        serving = asyncio.ensure_future(exchange.through(RequestDeadline(streaming(director, letters, begun))))
        await begun.wait()
        assert exchange.sent[0] == OK
        gate.open()
        await serving
