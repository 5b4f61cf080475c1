"""What functions of batches, their keys and their results can do to a Director."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import outcome

from director import BatchMismatch, Director

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20.0


async def test_a_key_that_looks_hashable_and_is_not_is_refused_before_anything_is_counted() -> None:
    async with Director("simulated:1") as director:
        function = director.function(lambda _, items: items, max_batch_size=4, batch_key=lambda _: (1, [2]))
        with pytest.raises(TypeError, match="batch_key"):
            function.submit("item")
        assert director.stats().queued == 0
        await asyncio.wait_for(director.drain(), PATIENCE)


async def test_a_tenant_that_looks_hashable_and_is_not_is_refused_before_anything_is_counted() -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match="tenant"):
            director.submit(print, tenant=(1, [2]))
        assert director.stats().queued == 0
        await asyncio.wait_for(director.drain(), PATIENCE)


class Frame:
    """As a data frame: its length is that of its rows, and it iterates over its columns."""

    def __init__(self, rows: int, columns: list[str]) -> None:
        self.rows = rows
        self.columns = columns

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


class Broken(list[Any]):
    """Fails when its items are wanted, as an array on a device that has gone."""

    def __iter__(self) -> Iterator[Any]:
        raise OSError("gone")


class Shapeless:
    """As an array without dimensions: it has a length only by its looks."""

    def __len__(self) -> int:
        raise TypeError("len() of unsized object")

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("iteration over a 0-d array")


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        (lambda: Frame(1, []), BatchMismatch),
        (lambda: Frame(1, ["a", "b"]), BatchMismatch),
        (lambda: Broken([1]), OSError),
        (Shapeless, TypeError),
        (lambda: frozenset([1]), BatchMismatch),
        (lambda: {1: 1}, BatchMismatch),
        (lambda: {1: 1}.keys(), BatchMismatch),
        (lambda: "x", BatchMismatch),
        (lambda: bytearray(1), BatchMismatch),
        (lambda: iter([1]), BatchMismatch),
        (lambda: None, BatchMismatch),
        (lambda: [], BatchMismatch),
        (lambda: [1, 2], BatchMismatch),
    ],
)
@pytest.mark.parametrize("isolate", [False, True])
async def test_what_is_no_sequence_of_results_fails_its_batch_and_nothing_else(
    returned: Any, error: type[Exception], isolate: bool
) -> None:
    async with Director("simulated:1") as director:
        function = director.function(lambda *_: returned(), max_batch_size=4, isolate_failures=isolate)
        assert type(await outcome(function.submit(1))) is error
        assert await director.run(lambda _: "alive") == "alive"


FRAME = pytest.param(Frame(1, [5]), id="frame")  # type: ignore[list-item]


@pytest.mark.parametrize("returned", [[5], (5,), range(5, 6), {1: 5}.values(), FRAME], ids=repr)
async def test_whatever_has_a_length_and_an_order_is_a_sequence_of_results(returned: Any) -> None:
    async with Director("simulated:1") as director:
        assert await director.function(lambda *_: returned, max_batch_size=4)(1) == 5
