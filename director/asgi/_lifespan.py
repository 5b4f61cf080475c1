"""A lifespan for web applications in which a Director is open."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from director._untrusted.numbers import shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager
    from typing import Literal

    from director import Director, Model
    from director.dashboard import Dashboard

    Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]
    _Require: TypeAlias = Literal["all", "any"]
    AnyLifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]

logger = logging.getLogger("director")

_KEY = "director"  # of the state that a lifespan hands to its requests


def lifespan(
    director: Director,
    inner: AnyLifespan | None = None,
    *,
    load: Iterable[Model[Any]] = (),
    require: _Require = "all",
    wait_for_load: bool = True,
    close_timeout: float | None = 20.0,
    close_grace: float = 1.0,
    dashboard: Dashboard | None = None,
) -> Lifespan:
    """A lifespan for ``FastAPI(lifespan=...)`` or ``Starlette(lifespan=...)`` in which `director` is open.

    Requests find it as ``request.state.director``.

    Args:
        director: Started before the first request and closed after the last; may be at the top of a module.
        inner: The application's own lifespan; runs while the Director is open, and its state is kept.
        load: Models to load everywhere.
        require: ``"any"``: a model counts as loaded when one device has it, and fails only if none can load it; see
            `Director.load`.
        wait_for_load: Accept requests only when they are loaded, and don't start if loading fails. If false they are
            loaded while the server runs: ``/livez`` is answered, and ``/readyz`` reports when they are loaded.
        close_timeout: Seconds that jobs may take to end when the server shuts down; see `Director.close`. The server's
            own limit (``uvicorn --timeout-graceful-shutdown``) applies before it, to requests.
        close_grace: Seconds that running calls then get to end, asked to by `director.check_cancelled`.
        dashboard: Open its socket for `director top` meanwhile. Where that is not possible a warning says why, and the
            application starts all the same.

    Raises:
        ValueError: `require` is neither ``"all"`` nor ``"any"``.
    """
    models = tuple(load)
    if type(require) is not str or require not in ("all", "any"):
        raise ValueError(f"require must be 'all' or 'any', not {shown(require)}")

    @asynccontextmanager
    async def open_director(app: Any) -> AsyncIterator[dict[str, Any]]:
        async with _socket_of(dashboard), director:
            async with _loading(director, models, require, wait_for_load):
                if inner is None:
                    yield {_KEY: director}
                else:
                    async with inner(app) as state:
                        yield {**(state or {}), _KEY: director}
            await director.close(close_timeout, close_grace)

    return open_director


def with_socket(dashboard: Dashboard, inner: AnyLifespan) -> AnyLifespan:
    """A lifespan in which the dashboard's socket is open, around another one."""

    @asynccontextmanager
    async def open_socket(app: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        async with _socket_of(dashboard), inner(app) as state:
            yield state

    return open_socket


@asynccontextmanager
async def _socket_of(dashboard: Dashboard | None) -> AsyncIterator[None]:
    """Open a dashboard's socket, if there is one and if that is possible."""
    async with AsyncExitStack() as stack:
        if dashboard is not None:
            try:
                await stack.enter_async_context(dashboard.serve())
            except OSError as error:
                logger.warning("`director top` won't find this application, as its socket can't be opened: %s", error)
        yield


@asynccontextmanager
async def _loading(
    director: Director, models: tuple[Model[Any], ...], require: _Require, wait: bool
) -> AsyncIterator[None]:
    """Load the models before the block, or, without `wait`, during the block."""
    if wait:
        for model in models:
            await director.load(model, require)
        yield
        return
    loading = [
        asyncio.create_task(_load(director, model, require), name=f"director:load {model.name}") for model in models
    ]
    try:
        yield
    finally:
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)


async def _load(director: Director, model: Model[Any], require: _Require) -> None:
    try:
        await director.load(model, require)
    except Exception:
        logger.exception("loading %s failed; the next job that needs it tries again", model.name)
