"""One item of a batch that can't be sent or read, in either direction, fails alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE

if TYPE_CHECKING:
    from director import Device, Director


class Unreadable:
    """Can be pickled, and not be unpickled."""

    def __reduce__(self) -> Any:
        return int, ("x",)


class Unsendable:
    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


class Exit:
    def __reduce__(self) -> Any:
        raise SystemExit(3)


class ExitThere:
    def __reduce__(self) -> Any:
        return exit_now, ()


class KeywordOnly(Exception):
    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Frozen(Exception):
    code: str


def exit_now() -> None:
    raise SystemExit(3)


ODD = {
    "unreadable": Unreadable,
    "unsendable": Unsendable,
    "exit": Exit,
    "exit there": ExitThere,
    "keyword": lambda: KeywordOnly("of one item", code=1),
    "frozen": lambda: Frozen("of one item"),
}
sizes: list[int] = []  # of the calls, in the child


def take(_device: Device, items: list[Any]) -> list[Any]:
    sizes.append(len(items))
    return [type(item).__name__ for item in items]


def give(_device: Device, items: list[Any]) -> list[Any]:
    sizes.append(len(items))
    return [ODD[item]() if item in ODD else [item] for item in items]


def give_tuple(device: Device, items: list[Any]) -> tuple[Any, ...]:
    return tuple(give(device, items))


def told(_device: Device) -> list[int]:
    return sizes


def arrays(_device: Device, items: list[int]) -> list[Any]:
    return [bytearray(item) for item in items]


async def outcomes(director: Director, fn: Any, items: list[Any]) -> list[Any]:
    function = director.function(fn, max_batch_size=len(items))
    async with director.lease():
        jobs = [function.submit(item) for item in items]
    return await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), PATIENCE)


async def test_an_argument_fails_alone_and_runs_nothing(director: Director) -> None:
    for place, name in enumerate(["unreadable", "unsendable", "exit", "exit there"]):
        items: list[Any] = [1, 2, 3, 4, 5]
        items[place] = ODD[name]()
        found = await outcomes(director, take, items)
        assert isinstance(found.pop(place), BaseException)
        assert found == ["int"] * 4
    assert sum(await director.run(told)) == 16


@pytest.mark.parametrize("fn", [give, give_tuple])
async def test_a_result_fails_alone_and_its_batch_is_not_run_again(director: Director, fn: Any) -> None:
    for name in ODD:
        found = await outcomes(director, fn, ["a", "b", name, "c"])
        assert isinstance(found.pop(2), Exception)
        assert found == [["a"], ["b"], ["c"]]
    assert await director.run(told) == [4] * len(ODD)


async def test_an_exception_that_is_a_result_comes_as_itself_or_says_what_it_was(director: Director) -> None:
    found = await outcomes(director, give, ["a", "keyword", "frozen", "unsendable"])
    assert [type(error) for error in found[1:3]] == [KeywordOnly, Frozen]
    assert [found[1].code, found[2].code] == [1, "of one item"]
    assert "the result can't be sent to another process: TypeError: not to be pickled" in str(found[3])


async def test_all_items_may_be_at_fault(director: Director) -> None:
    found = await outcomes(director, take, [Unsendable(), Unreadable(), Unsendable()])
    assert all(isinstance(each, Exception) for each in found)
    assert await director.run(told) == []


async def test_large_results_stay_apart(director: Director) -> None:
    found = await outcomes(director, arrays, [1, 5_000_000, 0, 2_000_000])
    assert [(type(each), len(each)) for each in found] == [(bytearray, n) for n in (1, 5_000_000, 0, 2_000_000)]
