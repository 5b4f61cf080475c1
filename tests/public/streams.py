"""Generators for the tests of streams."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

from harness.gates import until

from director import (
    Device,
    Director,
    current_job,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director import Job


class Boom(Exception):
    pass


def count(_device: Device, stop: int) -> Iterator[int]:
    yield from range(stop)


def endless(_device: Device) -> Iterator[int]:
    yield from itertools.count()


class Source:
    """A generator function that remembers how far it came, and where and how it ended."""

    def __init__(self, values: Any = None) -> None:
        self.values = itertools.count() if values is None else values
        self.made = 0
        self.thread = ""
        self.job: Job[Any] | None = None
        self.ended = threading.Event()
        self.ending: BaseException | None = None

    def __call__(self, _resource: Any) -> Iterator[Any]:
        self.job = current_job()
        try:
            for value in self.values:
                self.made += 1
                yield value
        except BaseException as error:
            self.ending = error
            raise
        finally:
            self.thread = threading.current_thread().name
            self.ended.set()

    async def is_over(self) -> None:
        await until(self.ended.is_set)


async def stalled(director: Director, source: Source) -> None:
    """Wait until the generator waits for its reader, and the loop knows if that is timed; nothing public tells it."""

    def waits() -> bool:
        assert director._runtime is not None
        bridges = [call.channel for _, call in director._runtime._streams()]
        return all(bridge._is_blocked and bridge._is_timed == (bridge._timer is not None) for bridge in bridges)

    await until(lambda: source.made and (source.ended.is_set() or waits()))
