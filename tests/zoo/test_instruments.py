"""Whether the zoo would find out."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from harness import zoo_run
from harness.zoo_doors import DOORS
from harness.zoo_run import Fault, Shared, summary

from director import Director, JobTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def shared(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shared]:
    monkeypatch.setitem(zoo_run.BOUNDS, "thread", 0.3)
    async with Director("simulated:2") as director:
        yield Shared(director, "thread")


async def kinds(shared: Shared, monkeypatch: pytest.MonkeyPatch, door: Any, name: str = "test") -> list[str]:
    """What is found wrong when the thing ``zero`` goes through `door`."""
    monkeypatch.setitem(DOORS, name, (door, {}))
    return [kind for kind, _ in await shared.run(name, "zero")]


async def test_an_answer_is_well(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    async def door(_d: Director, _thing: str) -> int:
        return 5

    assert await kinds(shared, monkeypatch, door) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TypeError("priority must be an int"), []),
        (JobTimeout("queued"), []),
        (TypeError("unhashable type"), ["does not name the option"]),
        (KeyError(1), ["unclear error"]),
        (SystemExit(3), ["unclear error"]),
    ],
)
async def test_an_error_has_to_be_clear(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: list[str]
) -> None:
    async def door(_d: Director, _thing: str) -> None:
        raise error

    assert await kinds(shared, monkeypatch, door, "priority") == expected


async def test_a_hang_is_found(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    async def door(_d: Director, _thing: str) -> None:
        await asyncio.get_running_loop().create_future()

    assert await kinds(shared, monkeypatch, door) == ["hang"]


async def test_innocents_that_wait_for_ever_are_found(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    async def door(d: Director, _thing: str) -> None:
        for _ in range(2):
            d.submit(lambda _: gate.wait(), priority=1)
        await asyncio.sleep(0)

    found = await kinds(shared, monkeypatch, door)
    gate.set()
    assert set(found) == {"innocent hangs", "counts"}


async def test_innocents_with_the_value_of_another_are_found(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    async def door(_d: Director, _thing: str) -> None:
        monkeypatch.setattr(shared, "number", 1000)

    monkeypatch.setattr(zoo_run, "echo", lambda device, _number: ("innocent", 7, str(device)))
    assert set(await kinds(shared, monkeypatch, door)) == {"innocent's value is foreign"}


async def test_counts_that_do_not_add_up_are_found(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    async def door(d: Director, _thing: str) -> None:
        assert d._runtime is not None
        d._runtime.job_lifecycle.succeeded -= 1

    assert await kinds(shared, monkeypatch, door) == ["counts"]


def test_a_program_that_ends_or_hangs_names_its_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[tuple[Any, ...]]] = [
        [("BEGIN", 0), ("END", 0, []), ("BEGIN", 1), ("ends", 0, "exit status -11")],
        [("BEGIN", 0), ("hangs", 0, "exit status 9")],
        [("BEGIN", 0), ("END", 0, [["hang", "no outcome"]]), ("DONE", 1)],
    ]
    asked: list[list[list[str]]] = []

    def lines(_mode: str, path: Path) -> Any:
        asked.append(json.loads(path.read_text()))
        return iter(told.pop(0))

    monkeypatch.setattr(zoo_run, "_lines", lines)
    cells = [("tenant", name) for name in "abcd"]
    assert zoo_run.sweep("thread", cells, tmp_path) == [
        Fault("hang", "thread", "tenant", "d", "no outcome"),
        Fault("the program ends", "thread", "tenant", "b", "exit status -11"),
        Fault("the program hangs", "thread", "tenant", "c", "exit status 9"),
    ]
    assert [len(each) for each in asked] == [4, 2, 1]


def test_a_real_program(tmp_path: Path) -> None:
    assert zoo_run.sweep("thread", [("argument", "zero"), ("result", "no text")], tmp_path) == []


def test_the_summary_has_one_line_for_each_kind_and_door() -> None:
    faults = [Fault("hang", "thread", "tenant", thing, "?") for thing in ("a", "b")]
    assert summary(faults) == "2 x hang: thread, 'tenant', 'a': ?"
