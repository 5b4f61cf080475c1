"""The files of the package that a job passes, from `await director.run(f, x)` to its result: few, and none twice."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import director
from director import Director

if TYPE_CHECKING:
    from types import FrameType

ROOT = f"{Path(director.__file__).parent}/"
MOST = 13


class Journey:
    """Records the files that are entered while it is on, by every thread that has started since it was made."""

    def __init__(self) -> None:
        self.is_on = False
        self.files: dict[str, list[str]] = {}
        self.returns: list[str] = []  # calls back into a file that was left by a call which goes on

    def profile(self, frame: FrameType, event: str, _arg: Any) -> None:
        """For `sys.setprofile`."""
        if not self.is_on or event != "call" or (file := file_of(frame)) is None:
            return
        self.files.setdefault(file, []).append(frame.f_code.co_name)
        between, caller = False, frame.f_back
        while caller is not None and caller.f_code.co_flags & 0x80 == 0:  # up to a coroutine, which the loop steps
            other = file_of(caller)
            if other == file and between:
                self.returns.append(f"{file} {caller.f_code.co_name} -> {frame.f_code.co_name}")
                return
            between = between or other not in (file, None)
            caller = caller.f_back


def file_of(frame: FrameType) -> str | None:
    file = frame.f_code.co_filename
    return file.removeprefix(ROOT) if file.startswith(ROOT) else None


def double(_device: Any, x: int) -> int:
    return 2 * x


def divide(_device: Any, x: int) -> float:
    return 1 / x


async def journey_of(fn: Any, x: int, **options: Any) -> Journey:
    """That of a job on an open Director with a worker."""
    journey = Journey()
    threading.setprofile(journey.profile)
    try:
        async with Director("cpu") as one:
            for _ in range(2):
                assert await one.run(double, 1) == 2
            sys.setprofile(journey.profile)
            journey.is_on = True
            try:
                await one.run(fn, x, **options)
            except ZeroDivisionError:
                assert fn is divide
            finally:
                journey.is_on = False
                sys.setprofile(None)
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]
    return journey


async def test_a_plain_run_passes_few_files() -> None:
    journey = await journey_of(double, 3)
    assert "_executors/thread.py" in journey.files
    assert len(journey.files) <= MOST, "\n".join(f"{file}: {calls}" for file, calls in journey.files.items())


@pytest.mark.parametrize("options", [{}, {"retries": 1, "retry_on": ZeroDivisionError}], ids=["once", "twice"])
async def test_a_job_that_fails_comes_back_to_no_file_by_a_call_of_what_that_has_called(options: Any) -> None:
    journey = await journey_of(divide, 0, **options)
    assert "_runtime/job_lifecycle.py" in journey.files
    assert journey.returns == []
