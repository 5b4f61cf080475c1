"""A client who leaves takes his work along; nobody else is disturbed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, turns

from asgi.wire import LEFT, PATIENCE, Exchange, body
from director import Director, JobState
from director.asgi import CancelOnDisconnect
from director.asgi._disconnect import MOST

if TYPE_CHECKING:
    from director.asgi._types import Message

OK = {"type": "http.response.start", "status": 200, "headers": []}


class Waiting:
    """An application that waits for ever, having done what `first` says."""

    def __init__(self, first: Any = None) -> None:
        self._first = first
        self.began = asyncio.Event()
        self.ended: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            if self._first is not None:
                await self._first(receive, send)
            self.began.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # cleaning up may wait
            self.ended.append("cleaned up")
            raise


async def serve(app: Any, exchange: Exchange) -> asyncio.Task[Any]:
    task = asyncio.create_task(exchange.through(CancelOnDisconnect(app)))
    await turns()
    return task


async def test_a_client_who_leaves_cancels_the_application_once() -> None:
    app, exchange = Waiting(), Exchange()
    exchange.say(body())
    task = await serve(app, exchange)
    exchange.say(LEFT)
    await asyncio.wait_for(task, PATIENCE)
    assert app.ended == ["cleaned up"]
    assert exchange.sent == []


async def test_a_client_who_leaves_while_the_answer_is_under_way() -> None:
    async def first(receive: Any, send: Any) -> None:
        await send(OK)
        await send({"type": "http.response.body", "body": b"part", "more_body": True})

    app, exchange = Waiting(first), Exchange()
    task = await serve(app, exchange)
    exchange.say(LEFT)
    await asyncio.wait_for(task, PATIENCE)
    assert app.ended == ["cleaned up"]


@pytest.mark.parametrize(
    "last",
    [
        {"type": "http.response.body", "body": b"all"},
        {"type": "http.response.pathsend", "path": "/x"},
        {"type": "http.response.zerocopysend", "file": 3},
    ],
)
async def test_what_is_done_after_the_answer_is_left_alone(last: dict[str, Any]) -> None:
    """Servers say "disconnected" as soon as the answer is complete; background tasks come after that."""

    async def first(receive: Any, send: Any) -> None:
        await send(OK)
        await send(last)

    app, exchange = Waiting(first), Exchange()
    task = await serve(app, exchange)
    exchange.say(LEFT)
    await turns()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_answer_with_trailers_is_complete_with_the_last_of_them() -> None:
    async def first(receive: Any, send: Any) -> None:
        await send(OK | {"trailers": True})
        await send({"type": "http.response.body", "body": b"all"})

    app, exchange = Waiting(first), Exchange()
    task = await serve(app, exchange)
    exchange.say(LEFT)
    await asyncio.wait_for(task, PATIENCE)
    assert app.ended == ["cleaned up"]


async def test_the_application_gets_the_whole_request() -> None:
    got = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive()).get("more_body"):
            got.append(message["body"])
            await asyncio.sleep(0)
        got.append(message["body"])
        await send(OK)
        await send({"type": "http.response.body", "body": b"all"})

    exchange = Exchange()
    exchange.say(*[body(b"%d" % n, more=True) for n in range(100)], body(b"end"))
    await exchange.through(CancelOnDisconnect(app))
    assert got == [*[b"%d" % n for n in range(100)], b"end"]
    assert len(exchange.sent) == 2


async def test_reading_ahead_is_bounded() -> None:
    """An upload that nobody reads stays with the server, which holds its client back."""
    exchange = Exchange()
    chunk = MOST // 4
    exchange.say(*[body(bytes(chunk), more=True) for _ in range(100)])
    task = await serve(Waiting(), exchange)
    assert exchange.asked == 5
    task.cancel()
    await asyncio.wait([task])


async def test_an_upload_goes_on_as_it_is_read() -> None:
    total = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal total
        await turns()  # so that the most is read ahead
        more = True
        while more:
            message = await receive()
            total += len(message["body"])
            more = message["more_body"]

    exchange = Exchange()
    exchange.say(*[body(bytes(40_000), more=True) for _ in range(50)], body())
    await asyncio.wait_for(exchange.through(CancelOnDisconnect(app)), PATIENCE)
    assert total == 2_000_000


async def test_a_client_who_waits_for_leave_to_upload_is_not_told_to_go_on() -> None:
    exchange = Exchange(headers={"expect": "100-continue"})
    task = await serve(Waiting(), exchange)
    assert exchange.asked == 0
    task.cancel()
    await asyncio.wait([task])


async def test_asking_gives_leave_to_upload() -> None:
    async def first(receive: Any, send: Any) -> None:
        assert (await receive())["body"] == b"image"

    exchange = Exchange(headers={"expect": "100-continue"})
    exchange.say(body(b"image"), LEFT)
    app = Waiting(first)
    task = await serve(app, exchange)
    await asyncio.wait_for(task, PATIENCE)
    assert app.ended == ["cleaned up"]


async def test_who_asks_for_a_message_hears_that_the_client_has_left_however_often() -> None:
    """For a complete answer: otherwise there would be nobody left to ask."""
    heard = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(OK)
        await send({"type": "http.response.body", "body": b"all"})
        heard.extend([await receive(), await receive()])

    exchange = Exchange()
    exchange.say(LEFT)
    await exchange.through(CancelOnDisconnect(app))
    assert heard == [LEFT, LEFT]


async def test_an_error_comes_out_as_it_is() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Exchange().through(CancelOnDisconnect(app))


async def test_an_error_of_the_server_reaches_who_asks() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async def broken() -> Any:
        raise ConnectionError("broken")

    exchange = Exchange()
    with pytest.raises(ConnectionError, match="broken"):
        await CancelOnDisconnect(app)(exchange.scope, broken, exchange.send)


async def test_somebody_elses_cancellation_passes() -> None:
    app, exchange = Waiting(), Exchange()
    task = await serve(app, exchange)
    exchange.say(LEFT)
    task.cancel()  # both at once
    with pytest.raises(asyncio.CancelledError):
        await task
    assert app.ended == ["cleaned up"]


async def test_a_timeout_around_it_still_works() -> None:
    app, exchange = Waiting(), Exchange()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await exchange.through(CancelOnDisconnect(app))


async def test_who_survives_somebody_elses_cancellation_is_cancelled_then() -> None:
    """Such as a timeout of the application's own that ends at the moment at which the client leaves."""

    async def first(receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await turns()  # cleaning up; the client leaves meanwhile
            task.uncancel()

    app, exchange = Waiting(first), Exchange()
    task = await serve(app, exchange)
    exchange.say(LEFT)
    task.cancel()
    await asyncio.wait_for(task, PATIENCE)
    assert app.ended == ["cleaned up"]


async def test_all_who_ask_at_once_hear_of_it() -> None:
    heard: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await turns()  # somebody else watches by now
        await send(OK)
        await send({"type": "http.response.body", "body": b"all"})
        asking = [asyncio.create_task(receive()) for _ in range(3)]
        await turns()
        exchange.say(body(b"image"), LEFT)
        heard.extend(await asyncio.gather(*asking))

    exchange = Exchange()
    await asyncio.wait_for(exchange.through(CancelOnDisconnect(app)), PATIENCE)
    assert heard.count(LEFT) == 2
    assert heard.count(body(b"image")) == 1


async def test_what_came_before_the_client_left_is_heard_first() -> None:
    """Asked for after the answer, by a background task for one."""
    heard: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(OK)
        await send({"type": "http.response.body", "body": b"all"})
        await turns()
        heard.extend([await receive(), await receive(), await receive()])

    exchange = Exchange()
    exchange.say(body(b"image"), LEFT)
    await asyncio.wait_for(exchange.through(CancelOnDisconnect(app)), PATIENCE)
    assert heard == [body(b"image"), LEFT, LEFT]


async def test_who_asks_after_the_end_leaves_nobody_behind() -> None:
    late: list[asyncio.Task[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        late.append(asyncio.create_task(receive()))

    exchange = Exchange()
    await exchange.through(CancelOnDisconnect(app))
    exchange.say(body(b"image"))
    assert (await asyncio.wait_for(late[0], PATIENCE))["body"] == b"image"
    await turns()
    assert [task.get_name() for task in asyncio.all_tasks() if "disconnect" in task.get_name()] == []


async def test_an_application_that_ignores_it_leaves_no_trace_of_it() -> None:
    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    exchange = Exchange()
    exchange.say(LEFT)
    await exchange.through(CancelOnDisconnect(stubborn))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_requests_that_never_wait_are_not_watched() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == body()
        await send(OK)

    exchange = Exchange()
    exchange.say(body(), LEFT)
    await exchange.through(CancelOnDisconnect(app))
    await turns()
    assert exchange.asked == 1


@pytest.mark.parametrize("pause", [0, 5])
async def test_an_upload_that_breaks_off_is_no_error(pause: int) -> None:
    """Whether it is the application that asks or somebody beside it."""
    seen: list[BaseException | Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await turns(pause)
            seen.append(await receive())
        except BaseException as error:
            seen.append(error)
            raise

    exchange = Exchange()
    exchange.say(body(b"image", more=True), LEFT)
    await asyncio.wait_for(exchange.through(CancelOnDisconnect(app)), PATIENCE)
    assert [type(each) for each in seen] == [asyncio.CancelledError]


async def test_a_websocket_passes_untouched() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert receive == exchange.receive

    exchange = Exchange(kind="websocket")
    await exchange.through(CancelOnDisconnect(app))


@pytest.mark.parametrize("how", ["run", "submit"])
async def test_the_jobs_of_a_client_who_left_are_cancelled(gate: Gate, how: str) -> None:
    async with Director("simulated:1") as director:
        busy = director.submit(gate)
        await gate.begun()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await (director.run(gate, "never") if how == "run" else director.submit(gate, "never"))

        exchange = Exchange()
        task = await serve(app, exchange)
        assert director.stats().queued == 1
        exchange.say(LEFT)
        await asyncio.wait_for(task, PATIENCE)
        assert director.stats().queued == 0
        gate.open()
        await busy
    assert gate.items == [None]


async def test_an_awaited_job_gives_its_result_and_its_error(gate: Gate) -> None:
    gate.open()
    async with Director("simulated:1") as director:
        assert await director.submit(gate, "x") == "x"
        with pytest.raises(ZeroDivisionError):
            await director.submit(lambda _: 1 / 0)
        job = director.submit(gate)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert job.state is JobState.CANCELLED
