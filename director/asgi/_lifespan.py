"""A lifespan for web applications in which a Director is open."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from director import Director, Model

    Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]
    AnyLifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]

logger = logging.getLogger("director")

_KEY = "director"  # of the state that a lifespan hands to its requests


def lifespan(
    director: Director,
    inner: AnyLifespan | None = None,
    *,
    load: Iterable[Model[Any]] = (),
    wait_for_load: bool = True,
    close_timeout: float | None = 20.0,
) -> Lifespan:
    """A lifespan for ``FastAPI(lifespan=...)`` or ``Starlette(lifespan=...)`` in which `director` is open.

    Requests find it as ``request.state.director``.

    Args:
        director: Started before the first request and closed after the last; may be at the top of a module.
        inner: The application's own lifespan; runs while the Director is open, and its state is kept.
        load: Models to load everywhere.
        wait_for_load: Accept requests only when they are loaded, and don't start if loading fails. If false they are
            loaded while the server runs: ``/livez`` is answered, and ``/readyz`` reports when they are loaded.
        close_timeout: Seconds that jobs may take to end when the server shuts down; see `Director.close`. The server's
            own limit (``uvicorn --timeout-graceful-shutdown``) applies before it, to requests.
    """
    models = tuple(load)

    @asynccontextmanager
    async def open_director(app: Any) -> AsyncIterator[dict[str, Any]]:
        async with director:
            async with _loading(director, models, wait_for_load):
                if inner is None:
                    yield {_KEY: director}
                else:
                    async with inner(app) as state:
                        yield {**(state or {}), _KEY: director}
            await director.close(close_timeout)

    return open_director


@asynccontextmanager
async def _loading(director: Director, models: tuple[Model[Any], ...], wait: bool) -> AsyncIterator[None]:
    """Load the models before the block, or, without `wait`, during the block."""
    if wait:
        for model in models:
            await director.load(model)
        yield
        return
    loading = [asyncio.create_task(_load(director, model), name=f"director:load {model.name}") for model in models]
    try:
        yield
    finally:
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)


async def _load(director: Director, model: Model[Any]) -> None:
    try:
        await director.load(model)
    except Exception:
        logger.exception("loading %s failed; the next job that needs it tries again", model.name)
