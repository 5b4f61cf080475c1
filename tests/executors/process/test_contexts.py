"""A call leaves nothing to the next one of its child: context variables, decimal contexts."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
from typing import TYPE_CHECKING

import pytest

from director import Director, Model

if TYPE_CHECKING:
    from collections.abc import Iterator

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="-")
pytestmark = pytest.mark.parametrize("executor", ["thread", "process"])


def seen(_resource: object, name: str) -> tuple[str, str]:
    found = request.get(), str(decimal.Decimal(1) / 3)
    request.set(name)
    decimal.getcontext().prec = 3
    return found


def seen_by_items(resource: object, names: list[str]) -> list[tuple[str, str]]:
    return [seen(resource, names[0])] * len(names)


def values(_device: object) -> Iterator[str]:
    yield request.get()
    request.set("stream")
    decimal.getcontext().prec = 3
    yield request.get()


def plainly(name: str) -> tuple[str, str]:
    return seen(None, name)


def fail(device: object) -> None:
    seen(device, "failed")
    raise ArithmeticError


def load(device: object) -> str:
    seen(device, "loader")
    return "replica"


CLEAN = ("-", "0.3333333333333333333333333333")


async def test_a_call_begins_in_a_clean_context_whatever_came_before(executor: str) -> None:
    async with Director("cpu", executor=executor) as director:  # type: ignore[arg-type]
        for _ in range(3):  # the third one is of a function that the child knows
            assert await director.run(seen, "tenant") == CLEAN
        batch = director.function(seen_by_items, max_batch_size=4)
        assert await asyncio.gather(batch("a"), batch("b")) == [CLEAN, CLEAN]
        assert [value async for value in director.stream(values)] == ["-", "stream"]
        assert await director.run(seen, "after a stream") == CLEAN
        plain = asyncio.wrap_future(director.as_executor().submit(plainly, "executor"))
        assert await plain == CLEAN
        with pytest.raises(ArithmeticError):
            await director.run(fail)
        assert await director.run(seen, "after an error") == CLEAN
        model = Model(load)
        for _ in range(2):
            assert await director.run(seen, "with a model", model=model) == CLEAN
