"""One argument of `install` opens the dashboard's page and the socket of `director top`."""

from __future__ import annotations

import logging
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dashboard.serving import chromium
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi.wire import served
from director import Director
from director.asgi import lifespan as asgi_lifespan
from director.cli._top.find import find_app
from director.dashboard import Dashboard
from director.dashboard._source import Remote
from director.fastapi import DirectorDep, install, lifespan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

LOCAL = {"host": "localhost"}


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No sockets but those of the test, at a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="director-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setattr("director.dashboard._socket_paths._folders", lambda: [Path(folder) / "director"])
        monkeypatch.delenv("DIRECTOR_TOKEN", raising=False)
        yield Path(folder)


def app_of(director: Director, **settings: Any) -> FastAPI:
    app = FastAPI(lifespan=lifespan(director))
    install(app, director, **settings)

    @app.get("/run")
    async def run(director: DirectorDep) -> str:
        return await director.run(lambda device: device.label)

    return app


@pytest.mark.parametrize(("dashboard", "path"), [(True, "/director"), ("/gpu", "/gpu"), ("/ops/gpu/", "/ops/gpu")])
async def test_one_argument_opens_the_page_and_the_socket(dashboard: bool | str, path: str) -> None:
    async with served(app_of(Director("simulated:1", name="vision"), dashboard=dashboard)) as site:
        assert (await site.get("/run")).json() == "simulated:0"
        page = await site.get(f"{path}/", **LOCAL)
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert (await site.get(f"{path}/snapshot", **LOCAL)).json()["counts"]["succeeded"] == 1
        socket = await find_app("vision")
        assert (await Remote(socket).snapshot())["counts"]["succeeded"] == 1
        assert (await site.get("/livez")).status == 200
    with pytest.raises(ConnectionError):
        await find_app("vision")


async def test_without_the_argument_there_is_neither() -> None:
    async with served(app_of(Director("simulated:1", name="vision"))) as site:
        assert (await site.get("/director/", **LOCAL)).status == 404
        with pytest.raises(ConnectionError):
            await find_app("vision")


async def test_the_page_is_for_this_machine_or_for_those_with_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(app_of(Director("simulated:1"), dashboard=True)) as site:
        assert (await site.get("/director/snapshot", **LOCAL, x_forwarded_for="10.0.0.7")).status == 403
    monkeypatch.setenv("DIRECTOR_TOKEN", "s3cret")
    async with served(app_of(Director("simulated:1"), dashboard=True)) as site:
        assert (await site.get("/director/snapshot", **LOCAL)).status == 401
        assert (await site.get("/director/snapshot", **LOCAL, authorization="Bearer s3cret")).status == 200


@pytest.mark.parametrize("path", ["gpu", "/", "//"])
def test_a_path_that_is_none(path: str) -> None:
    with pytest.raises(ValueError, match='begins with a slash, such as "/gpu"'):
        app_of(Director("simulated:1"), dashboard=path)


async def test_a_director_that_runs_already() -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(RuntimeError):
            app_of(director, dashboard=True)


async def test_a_socket_that_can_not_be_opened_keeps_no_service_from_starting(
    runtime: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (runtime / "director").mkdir(mode=0o777)
    (runtime / "director").chmod(0o777)
    with caplog.at_level(logging.WARNING, "director"):
        async with served(app_of(Director("simulated:1"), dashboard=True)) as site:
            assert (await site.get("/run")).status == 200
            assert (await site.get("/director/", **LOCAL)).status == 200
    assert "`director top` won't find this application, as its socket can't be opened" in caplog.text


async def test_what_a_lifespan_of_ones_own_yields_is_kept() -> None:
    @asynccontextmanager
    async def own(app: Any) -> AsyncIterator[dict[str, str]]:
        yield {"database": "open"}

    director = Director("simulated:1")
    app = FastAPI(lifespan=lifespan(director, own))
    install(app, director, dashboard=True)
    async with app.router.lifespan_context(app) as state:
        assert state == {"database": "open", "director": director}


async def test_in_starlette_the_lifespan_opens_the_socket() -> None:
    director = Director("simulated:1", name="vision")
    dashboard = Dashboard(director)
    app = Starlette(routes=[Mount("/gpu", dashboard)], lifespan=asgi_lifespan(director, dashboard=dashboard))
    async with served(app) as site:
        assert (await site.get("/gpu/", **LOCAL)).status == 200
        assert (await Remote(await find_app("vision")).snapshot())["state"] == "open"
    with pytest.raises(ConnectionError):
        await find_app("vision")


@pytest.mark.slow
async def test_the_page_is_live_within_the_app() -> None:
    """Also through the middleware that watches for clients who leave, and deadlines."""
    app = app_of(Director("simulated:1", name="vision"), dashboard=True, request_deadlines=True)
    async with served(app) as site, chromium() as browser:
        page = await browser.new_page()
        await page.goto(f"http://localhost:{site.port}/director")
        await page.wait_for_selector("[data-link=live]")
        await site.get("/run")
        await page.locator("#figures").get_by_text("last 10 s, 1 in all").wait_for()
        await page.close()
