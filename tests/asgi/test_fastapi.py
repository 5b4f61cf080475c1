"""A Director in a FastAPI application, behind a real server."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator  # noqa: TC003 - FastAPI reads the annotations
from concurrent.futures import Executor  # noqa: TC003 - as above
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Annotated, Any

import anyio.from_thread
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, File, Request, UploadFile, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from harness.gates import Gate, rested, turns, until
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.testclient import TestClient

from asgi.wire import PATIENCE, Served, served
from director import Device, Director, DirectorClosed, DirectorState, JobAborted, Model, QueueFull
from director.asgi import MEDIA_TYPE, time_left
from director.fastapi import PROBLEMS, DirectorDep, install, lifespan


@pytest.fixture
async def director() -> Director:
    return Director("simulated:1", max_queue=2)


@pytest.fixture
async def app(director: Director, gate: Gate) -> FastAPI:
    app = FastAPI(lifespan=lifespan(director))

    @app.get("/run")
    async def run(director: DirectorDep) -> str:
        return await director.run(gate, "run")

    @app.post("/submit")
    async def submit(director: DirectorDep) -> str:
        return await director.submit(gate, "submit", deadline=time_left())

    @app.post("/upload")
    async def upload(director: DirectorDep, file: Annotated[UploadFile, File()]) -> int:
        return await director.run(gate, len(await file.read()))

    @app.get("/stream")
    async def stream(director: DirectorDep) -> StreamingResponse:
        async def lines() -> AsyncIterator[bytes]:
            async with aclosing(director.map(gate, range(100), window=2)) as items:
                async for item in items:
                    yield b"%d\n" % item

        return StreamingResponse(lines())

    return app


async def get_busy(director: Director, gate: Gate) -> None:
    """Take the only slot."""
    director.submit(gate, "busy")
    await gate.begun()


async def closes(director: Director, gate: Gate) -> None:
    """Nothing waits any more and every slot is free."""
    await until(lambda: director.stats().queued == 0)
    gate.open()
    await rested(director)


async def test_an_endpoint_runs_a_job(app: FastAPI, director: Director, gate: Gate) -> None:
    install(app, director)
    gate.open()
    async with served(app) as site:
        reply = await site.get("/run")
        assert (reply.status, reply.json()) == (200, "run")
        assert director.state is DirectorState.OPEN
    assert director.state is DirectorState.CLOSED


async def test_a_full_queue_is_answered_with_503(app: FastAPI, director: Director, gate: Gate) -> None:
    install(app, director)
    async with served(app) as site:
        await get_busy(director, gate)
        waiting = [await site.ask("POST", "/submit") for _ in range(2)]
        await until(lambda: director.stats().queued == 2)
        reply = await site.post("/submit")
        assert (reply.status, reply.headers["content-type"]) == (503, MEDIA_TYPE)
        assert reply.headers["retry-after"] == "1"
        assert reply.json()["kind"] == "queue-full"
        gate.open()
        assert [(await client.reply()).status for client in waiting] == [200, 200]


async def test_a_deadline_is_answered_with_504(app: FastAPI, director: Director, gate: Gate) -> None:
    install(app, director, request_deadlines=True)
    async with served(app) as site:
        await get_busy(director, gate)
        for path in ("/submit", "/submit"):
            reply = await site.post(path, x_request_timeout="0.05")
            assert (reply.status, reply.json()["kind"]) == (504, "timeout")
        assert (await site.get("/run", x_request_timeout="0.05")).status == 504
        assert director.stats().queued == 0
        gate.open()


async def test_when_the_director_drains_requests_are_answered_with_503(
    app: FastAPI, director: Director, gate: Gate
) -> None:
    install(app, director)
    gate.open()
    async with served(app) as site:
        await director.drain()
        reply = await site.get("/run")
        assert (reply.status, reply.json()["kind"], reply.headers["retry-after"]) == (503, "closed", "1")
        assert (await site.get("/readyz")).status == 503
        assert (await site.get("/livez")).status == 200


async def test_a_request_whose_job_never_runs_because_of_the_close_is_answered(
    app: FastAPI, director: Director, gate: Gate
) -> None:
    install(app, director)
    async with served(app) as site:
        await get_busy(director, gate)
        client = await site.ask("GET", "/run")
        await until(lambda: director.stats().queued == 1)
        closing = asyncio.create_task(director.close(0))
        reply = await client.reply()
        assert (reply.status, reply.json()["kind"], reply.headers["retry-after"]) == (503, "closed", "1")
        gate.open()
        await closing


async def test_a_request_whose_call_outlives_the_close_is_answered(
    app: FastAPI, director: Director, gate: Gate
) -> None:
    install(app, director)
    async with served(app) as site:
        client = await site.ask("GET", "/run")
        await gate.begun()
        await director.close(0, grace=0)
        reply = await client.reply()
        assert (reply.status, reply.json()["kind"]) == (503, "aborted")
        assert "retry-after" not in reply.headers  # nobody knows what it has done
        gate.open()


async def test_the_lifespan_passes_its_limits_to_the_close(director: Director, gate: Gate) -> None:
    async with lifespan(director, close_timeout=0, close_grace=0.01)(None):
        running = director.submit(gate)
        await gate.begun()
        waiting = director.submit(gate)
    error = running.exception()
    assert isinstance(error, JobAborted)
    assert error.grace == 0.01
    assert isinstance(waiting.exception(), DirectorClosed)
    gate.open()


async def test_a_def_endpoint_has_the_loop_await_the_call(app: FastAPI, director: Director, gate: Gate) -> None:
    install(app, director)

    @app.get("/from-thread")
    def from_thread(director: DirectorDep) -> str:
        return anyio.from_thread.run(partial(director.run, gate, "from a thread", when_full="refuse"))

    @app.get("/bare")
    def bare(director: DirectorDep) -> str:
        with pytest.raises(RuntimeError, match="another event loop or thread"):
            director.submit(gate)
        return "refused"

    async with served(app) as site:
        assert (await site.get("/bare")).json() == "refused"
        await get_busy(director, gate)
        waiting = [director.submit(gate) for _ in range(2)]
        reply = await site.get("/from-thread")
        assert (reply.status, reply.json()["kind"]) == (503, "queue-full")
        gate.open()
        await asyncio.gather(*waiting)
        assert (await site.get("/from-thread")).json() == "from a thread"


async def test_what_was_asked_before_the_server_ends_is_answered(app: FastAPI, director: Director, gate: Gate) -> None:
    install(app, director)
    async with served(app) as site:
        client = await site.ask("GET", "/run")
        await gate.begun()
        site.server.should_exit = True
        await until(lambda: not site.server.servers[0].is_serving())
        gate.open()
        assert (await client.reply()).status == 200
    assert director.state is DirectorState.CLOSED


@pytest.mark.parametrize("between", [False, True], ids=["plain", "BaseHTTPMiddleware"])
@pytest.mark.parametrize("method", ["GET /run", "POST /submit"])
@pytest.mark.every_loop
async def test_a_client_who_leaves_takes_the_waiting_job_along(
    app: FastAPI, director: Director, gate: Gate, between: bool, method: str
) -> None:
    if between:
        app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    install(app, director)
    async with served(app) as site:
        await get_busy(director, gate)
        client = await site.ask(*method.split())
        await until(lambda: director.stats().queued == 1)
        await client.leave()
        await closes(director, gate)
    assert gate.items == ["busy"]


async def test_without_it_the_job_stays(app: FastAPI, director: Director, gate: Gate) -> None:
    """What the middleware is for: FastAPI itself cancels nobody."""
    install(app, director, cancel_on_disconnect=False)
    async with served(app) as site:
        await get_busy(director, gate)
        client = await site.ask("GET", "/run")
        await until(lambda: director.stats().queued == 1)
        await client.leave()
        await asyncio.sleep(0.05)
        assert director.stats().queued == 1
        gate.open()
        await until(lambda: director.stats().queued == 0)
        await rested(director)


def multipart(content: bytes) -> tuple[bytes, dict[str, str]]:
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.pgm"\r\n\r\n'
    return head + content + b"\r\n--x--\r\n", {"content_type": "multipart/form-data; boundary=x"}


async def test_an_upload_of_some_size_arrives(app: FastAPI, director: Director, gate: Gate) -> None:
    install(app, director)
    gate.open()
    content, headers = multipart(bytes(3_000_000))
    async with served(app) as site:
        assert (await site.post("/upload", content, **headers)).json() == 3_000_000


async def test_a_client_who_leaves_in_the_middle_of_an_upload(app: FastAPI, director: Director, gate: Gate) -> None:
    install(app, director)
    left = asyncio.Event()

    class Watching:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await self._app(scope, receive, send)
            except asyncio.CancelledError:
                left.set()
                raise

    app.user_middleware.append(type(app.user_middleware[0])(Watching))
    content, headers = multipart(bytes(300_000))
    async with served(app) as site:
        client = await site.connect()
        head = f"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n"
        head += f"content-type: {headers['content_type']}\r\n\r\n"
        await client.write(head.encode() + content[:200_000])
        await turns(200)
        await client.leave()
        await asyncio.wait_for(left.wait(), PATIENCE)
    assert gate.calls == []


async def test_a_client_who_leaves_after_an_upload(app: FastAPI, director: Director, gate: Gate) -> None:
    install(app, director)
    content, headers = multipart(bytes(300_000))
    async with served(app) as site:
        await get_busy(director, gate)
        client = await site.ask("POST", "/upload", content, **headers)
        await until(lambda: director.stats().queued == 1)
        await client.leave()
        await closes(director, gate)
    assert gate.items == ["busy"]


async def test_a_client_who_leaves_a_stream(app: FastAPI, director: Director, gate: Gate) -> None:
    install(app, director)
    async with served(app) as site:
        client = await site.ask("GET", "/stream")
        gate.let(3)
        await client.reader.readuntil(b"\r\n\r\n")
        assert await anext(client.chunks()) == b"0\n"
        await client.leave()
        await closes(director, gate)
    assert len(gate.items) < 10, "the rest was never begun"


async def test_a_client_who_leaves_server_sent_events(app: FastAPI, director: Director, gate: Gate) -> None:
    from fastapi.sse import EventSourceResponse

    @app.get("/events", response_class=EventSourceResponse)
    async def events(director: DirectorDep) -> AsyncIterator[dict[str, int]]:
        async with aclosing(director.map(gate, range(100), window=2)) as items:
            async for item in items:
                yield {"item": item}

    install(app, director)
    async with served(app) as site:
        client = await site.ask("GET", "/events")
        gate.let(3)
        async with asyncio.timeout(PATIENCE):
            await client.reader.readuntil(b'data: {"item":0}')
        await client.leave()
        await closes(director, gate)
    assert len(gate.items) < 10
    gc.collect()  # FastAPI leaves a generator that stands at its `yield` to the collector, and the map in it too


async def test_what_cleans_up_after_a_client_who_left_may_wait(app: FastAPI, director: Director, gate: Gate) -> None:
    cleaned = asyncio.Event()

    async def session() -> AsyncIterator[str]:
        try:
            yield "session"
        finally:
            await asyncio.sleep(0.01)
            cleaned.set()

    @app.get("/session")
    async def with_session(director: DirectorDep, open_session: str = Depends(session)) -> str:
        return await director.run(gate, open_session)

    install(app, director)
    async with served(app) as site:
        await get_busy(director, gate)
        client = await site.ask("GET", "/session")
        await until(lambda: director.stats().queued == 1)
        await client.leave()
        await asyncio.wait_for(cleaned.wait(), PATIENCE)
        await closes(director, gate)


async def test_background_tasks_are_not_cancelled(app: FastAPI, director: Director, gate: Gate) -> None:
    done = asyncio.Event()

    async def afterwards() -> None:
        await asyncio.sleep(0.02)
        done.set()

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(afterwards)
        return "at once"

    install(app, director)
    async with served(app) as site:
        client = await site.ask("GET", "/background")
        assert (await client.reply()).status == 200
        await client.leave()
        await asyncio.wait_for(done.wait(), PATIENCE)


async def test_a_def_endpoint_works_too(app: FastAPI, director: Director, gate: Gate) -> None:
    async def executor(director: DirectorDep) -> Executor:
        return director.as_executor()

    @app.get("/thread")
    def thread(executor: Executor = Depends(executor)) -> str:  # noqa: B008 - FastAPI's way
        return executor.submit(threading.current_thread).result(PATIENCE).name

    install(app, director)
    async with served(app) as site:
        assert (await site.get("/thread")).json() == "director:simulated:0/0"


async def test_the_apps_own_lifespan_runs_inside(director: Director, gate: Gate) -> None:
    story = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        story.append(director.state)
        yield {"db": "database"}
        story.append(director.state)

    app = FastAPI(lifespan=lifespan(director, own))

    @app.get("/db")
    async def db(request: Request) -> list[str]:
        return [request.state.db, request.state.director.state.value]

    async with served(app) as site:
        assert (await site.get("/db")).json() == ["database", "open"]
    assert story == [DirectorState.OPEN, DirectorState.OPEN]
    assert director.state is DirectorState.CLOSED


async def test_models_are_loaded_before_the_first_request(director: Director) -> None:
    loaded = Model(lambda device: "replica", name="digits")
    app = FastAPI(lifespan=lifespan(director, load=[loaded]))
    install(app, director, models=[loaded])
    async with served(app) as site:
        assert director.stats().devices[0].models == ("digits",)
        assert (await site.get("/readyz")).status == 200


async def test_models_may_be_loaded_beside_the_first_requests(director: Director, gate: Gate) -> None:
    loading = Model(gate, name="digits")
    app = FastAPI(lifespan=lifespan(director, load=[loading], wait_for_load=False))
    install(app, director, models=[loading])
    async with served(app) as site:
        assert (await site.get("/livez")).status == 200
        assert (await site.get("/readyz")).json() == {"ready": False, "because": ["digits is not loaded"]}
        gate.open()
        await until(lambda: director.stats().devices[0].models)
        assert (await site.get("/readyz")).status == 200


async def test_a_model_that_fails_beside_the_requests_is_logged(
    director: Director, caplog: pytest.LogCaptureFixture
) -> None:
    def load(device: object) -> None:
        raise ValueError("no weights")

    app = FastAPI(lifespan=lifespan(director, load=[Model(load, name="digits")], wait_for_load=False))
    async with served(app):
        await until(lambda: "loading digits failed" in caplog.text)
    assert "no weights" in caplog.text


async def test_a_model_that_fails_keeps_the_server_from_starting(director: Director) -> None:
    def load(device: object) -> None:
        raise ValueError("no weights")

    app = FastAPI(lifespan=lifespan(director, load=[Model(load)]))
    with pytest.raises(ValueError, match="no weights"):
        async with app.router.lifespan_context(app):
            pytest.fail("started")
    assert director.state is DirectorState.CLOSED


@pytest.mark.parametrize("wait_for_load", [True, False])
async def test_a_model_that_one_device_can_load_is_enough_if_that_is_asked_for(
    wait_for_load: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def load(device: Device) -> str:
        if device.index == 0:
            raise ValueError("no room")
        return "replica"

    loaded, director = Model(load, name="digits"), Director("simulated:2")
    app = FastAPI(lifespan=lifespan(director, load=[loaded], require="any", wait_for_load=wait_for_load))
    install(app, director, models=[loaded])
    async with served(app) as site:
        await until(lambda: director.stats().devices[1].models == ("digits",))
        assert (await site.get("/readyz")).status == 200
        await rested(director)
    assert "loading digits failed" not in caplog.text

    director = Director("simulated:2")
    app = FastAPI(lifespan=lifespan(director, load=[loaded]))
    with pytest.raises(ValueError, match="no room"):
        async with app.router.lifespan_context(app):
            pytest.fail("started")


@pytest.mark.parametrize("wrong", ["some", None, ["all"]])
def test_any_other_word_for_how_many_must_load_is_refused(director: Director, wrong: Any) -> None:
    with pytest.raises(ValueError, match="require must be 'all' or 'any'"):
        lifespan(director, require=wrong)


async def test_an_own_lifespan_that_fails_closes_the_director(director: Director) -> None:
    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[None]:
        raise ValueError("no database")
        yield

    app = FastAPI(lifespan=lifespan(director, own))
    with pytest.raises(ValueError, match="no database"):
        async with app.router.lifespan_context(app):
            pytest.fail("started")
    assert director.state is DirectorState.CLOSED


async def test_the_apps_own_answer_to_an_error_comes_first(app: FastAPI, director: Director, gate: Gate) -> None:
    install(app, director)

    @app.exception_handler(QueueFull)
    async def mine(request: Request, error: QueueFull) -> JSONResponse:
        return JSONResponse({"mine": True}, 418)

    async with served(app) as site:
        await get_busy(director, gate)
        for _ in range(2):
            await site.ask("POST", "/submit")
        await until(lambda: director.stats().queued == 2)
        assert (await site.post("/submit")).status == 418
        gate.open()


async def test_a_websocket_finds_the_director(app: FastAPI, director: Director, gate: Gate) -> None:
    @app.websocket("/ws")
    async def socket(websocket: WebSocket, director: DirectorDep) -> None:
        await websocket.accept()
        await websocket.send_json(await director.run(gate, "over a socket"))
        await websocket.close()

    install(app, director)
    gate.open()

    def talk() -> object:
        with TestClient(app) as client, client.websocket_connect("/ws") as websocket:
            return websocket.receive_json()

    assert await asyncio.to_thread(talk) == "over a socket"


def test_without_a_lifespan_the_dependency_says_what_is_missing() -> None:
    app = FastAPI()

    @app.get("/run")
    async def run(director: DirectorDep) -> None:
        pytest.fail("there is none")

    with pytest.raises(RuntimeError, match=r"FastAPI\(lifespan=lifespan\(director\)\)"):
        TestClient(app).get("/run")


def test_the_problems_stand_in_the_document() -> None:
    app = FastAPI(responses=PROBLEMS)

    @app.get("/run")
    async def run() -> None: ...

    answers = app.openapi()["paths"]["/run"]["get"]["responses"]
    assert set(answers) == {"200", "429", "503", "504"}
    assert list(answers["503"]["content"]) == [MEDIA_TYPE]


async def test_the_site_stays_whole_under_leaving_clients(app: FastAPI, director: Director, gate: Gate) -> None:
    install(app, director)
    async with served(app) as site:
        await get_busy(director, gate)

        async def come_and_go(site: Served) -> None:
            client = await site.ask("GET", "/run")
            await turns(20)
            await client.leave()

        await asyncio.gather(*[come_and_go(site) for _ in range(100)])
        await closes(director, gate)
        assert gate.items == ["busy"]
        assert (await site.get("/run")).status == 200
