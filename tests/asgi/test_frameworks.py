"""The same parts in other frameworks, behind a real server each."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, rested, turns, until
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi.wire import served
from director import Director, DirectorState
from director.asgi import (
    MEDIA_TYPE,
    CancelOnDisconnect,
    HealthEndpoints,
    ProblemMiddleware,
    lifespan,
    problem_of,
)
from director.errors import DirectorError

if TYPE_CHECKING:
    from starlette.requests import Request as StarletteRequest


@pytest.fixture
async def director() -> Director:
    return Director("simulated:1", max_queue=1)


def starlette(director: Director, gate: Gate) -> Any:
    async def run(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse(await request.state.director.submit(gate, "run"))

    middleware = [
        Middleware(HealthEndpoints, director=director),
        Middleware(CancelOnDisconnect),
        Middleware(ProblemMiddleware),
    ]
    return Starlette(routes=[Route("/run", run)], lifespan=lifespan(director), middleware=middleware)


def litestar(director: Director, gate: Gate) -> Any:
    from litestar import Litestar, MediaType, Request, Response, get

    @get("/run", media_type=MediaType.TEXT)
    async def run() -> str:
        return await director.submit(gate, "run")

    def answer(_request: Request[Any, Any, Any], error: DirectorError) -> Response[dict[str, Any]]:
        problem = problem_of(error)
        return Response(problem.content, status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE)

    app = Litestar([run], lifespan=[lambda _app: director], exception_handlers={DirectorError: answer})
    return HealthEndpoints(CancelOnDisconnect(app), director=director)


def django(director: Director, gate: Gate) -> Any:
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse
    from django.urls import path

    async def run(_request: object) -> HttpResponse:
        return HttpResponse(await director.submit(gate, "run"))

    class Answered:
        """Django's middleware: it answers every error by itself, unless a middleware of its own does."""

        async_capable, sync_capable = True, False

        def __init__(self, get_response: Any) -> None:
            from asgiref.sync import markcoroutinefunction

            self._get_response = get_response
            markcoroutinefunction(self)

        async def __call__(self, request: Any) -> Any:
            return await self._get_response(request)

        def process_exception(self, _request: Any, error: Exception) -> HttpResponse | None:
            if not isinstance(error, DirectorError):
                return None
            from django.http import JsonResponse

            problem = problem_of(error)
            return JsonResponse(
                problem.content, status=problem.status, headers=problem.headers, content_type=MEDIA_TYPE
            )

    module = sys.modules[__name__]
    module.urlpatterns = [path("run", run)]  # type: ignore[attr-defined]
    module.Answered = Answered  # type: ignore[attr-defined]
    middleware = [f"{__name__}.Answered"]
    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=__name__, MIDDLEWARE=middleware, ALLOWED_HOSTS=["*"], DEBUG=False, LOGGING_CONFIG=None
        )
        django.setup()
    app = get_asgi_application()

    async def with_life(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        async with director:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return HealthEndpoints(with_life, director=director)  # Django watches for clients who leave by itself


FRAMEWORKS = [starlette, litestar, django]


@pytest.mark.parametrize("make", FRAMEWORKS, ids=lambda make: make.__name__)
@pytest.mark.filterwarnings("ignore:.*Litestar:DeprecationWarning")
async def test_in_another_framework(make: Any, director: Director, gate: Gate) -> None:
    async with served(make(director, gate)) as site:
        assert director.state is DirectorState.OPEN
        assert (await site.get("/readyz")).status == 200
        busy = await site.ask("GET", "/run")
        await gate.begun()
        waiting = await site.ask("GET", "/run")
        await until(lambda: director.stats().queued == 1)

        refused = await site.get("/run")
        assert (refused.status, refused.headers["content-type"]) == (503, MEDIA_TYPE)
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["kind"] == "queue-full"

        await waiting.leave()
        await until(lambda: director.stats().queued == 0)
        gate.let(1)
        reply = await busy.reply()
        assert (reply.status, reply.text) == (200, b"run")
        await rested(director)
    assert len(gate.calls) == 1
    assert director.state is DirectorState.CLOSED


async def test_in_aiohttp(director: Director, gate: Gate) -> None:
    """Which is no ASGI: it has the life of an application, and cancels by itself if it is told to."""
    from aiohttp import ClientSession, web

    key = web.AppKey("director", Director)

    async def life(app: web.Application) -> Any:
        async with app[key]:
            yield

    @web.middleware
    async def answered(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            found: web.StreamResponse = await handler(request)
            return found
        except DirectorError as error:
            problem = problem_of(error)
            return web.json_response(
                problem.content, status=problem.status, headers=problem.headers, content_type=MEDIA_TYPE
            )

    async def run(request: web.Request) -> web.Response:
        return web.Response(text=await request.app[key].submit(gate, "run"))

    app = web.Application(middlewares=[answered])
    app[key] = director
    app.cleanup_ctx.append(life)
    app.router.add_get("/run", run)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/run"
        async with ClientSession() as session:
            busy = asyncio.create_task(session.get(url))
            await gate.begun()
            waiting = asyncio.create_task(session.get(url))
            await until(lambda: director.stats().queued == 1)
            async with session.get(url) as refused:
                assert (refused.status, refused.headers["retry-after"]) == (503, "1")
                assert (await refused.json(content_type=MEDIA_TYPE))["kind"] == "queue-full"
            waiting.cancel()
            await until(lambda: director.stats().queued == 0)
            gate.let(1)
            assert await (await busy).text() == "run"
            await turns()
    finally:
        await runner.cleanup()
    assert len(gate.calls) == 1
