"""A Director that was never started, as by a forgotten lifespan: the error says it, and the log once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from director import Director, DirectorClosed

if TYPE_CHECKING:
    from collections.abc import Callable


async def calls_of(director: Director) -> list[Callable[[], object]]:
    bound = director.function(repr)
    return [
        lambda: director.submit(repr),
        lambda: director.map(repr, [1]),
        lambda: bound.submit(),
        lambda: director.lease(),
        lambda: director.as_executor(),
    ]


async def test_the_error_names_the_ways_to_start_it_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    director = Director("simulated:1", name="forgotten")
    for call in await calls_of(director):
        with pytest.raises(
            DirectorClosed, match=r"async with director:.*start\(\).*lifespan=director\.fastapi\.lifespan"
        ):
            call()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("director", logging.ERROR)
    assert "'forgotten' new" in record.getMessage()
    assert "FastAPI(lifespan=" in record.getMessage()


async def test_one_that_was_closed_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with Director("simulated:1") as director:
        pass
    for call in await calls_of(director):
        with pytest.raises(DirectorClosed, match="The Director is closed"):
            call()
    assert caplog.records == []
