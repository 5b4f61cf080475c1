"""Stages for the tests of the core; each is checked for wholeness when its test is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from director.testing import TestClock
from harness.gates import Gate
from harness.stage import PATIENCE, Stage, Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    """Holds calls until it is opened; opened at the end in any case."""
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def clock() -> TestClock:
    """Stands still until the test moves it."""
    return TestClock()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Sees every move of jobs and slots, and fails the test if one was illegal."""
    watch = Watch().install(monkeypatch)
    yield watch
    assert not watch.illegal


@pytest.fixture
async def make_stage(watch: Watch) -> AsyncIterator[Callable[..., Awaitable[Stage]]]:
    """Open stages; in the end each is closed, and all permits must be back."""
    stages: list[Stage] = []

    async def make(devices: Any = "cpu", **options: Any) -> Stage:
        stages.append(Stage(watch, devices, **options))
        return await stages[-1].open()

    yield make
    for stage in stages:
        stage.open_gates()
        await asyncio.wait_for(stage.director.close(), PATIENCE)
        await stage.quiet()
        assert stage.is_whole
