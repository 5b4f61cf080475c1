"""The findings of the guard, and the lines they name. Written by slots' threads and that which watches the loop."""

from __future__ import annotations

import linecache
import logging
import sysconfig
import threading
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import director

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from director import Device

logger = logging.getLogger("director.guard")


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake, and the line where it was seen.

    Args:
        kind: ``"loop blocked"``, ``"other device"`` or ``"autograd"``.
        file: The source file.
        line: The line in it, from 1.
        function: The function it is in.
        source: The source of the line.
        message: What is wrong and how to fix it.
        seconds: The longest time that the loop was blocked there; 0 for another device.
        times: How often it was seen.
    """

    kind: Literal["loop blocked", "other device", "autograd"]
    file: str
    line: int
    function: str
    source: str
    message: str
    seconds: float = 0.0
    times: int = 1


class FindingLog:
    """Records findings, each line once, and decides which calls are traced."""

    def __init__(self, first: int, every: int) -> None:
        self._first = first
        self._every = every
        # By name and thread, so that each key is written by one thread only.
        self._calls: Counter[tuple[str, int]] = Counter()
        # Reentrant: a finalizer or a signal handler that runs during `_note` may read `findings`.
        self._lock = threading.RLock()
        self._findings: dict[tuple[str, str, int], Finding] = {}

    def findings(self) -> tuple[Finding, ...]:
        """All so far, oldest first."""
        with self._lock:
            return tuple(self._findings.values())

    # ---- traced calls

    def is_traced(self, key: tuple[str, int]) -> bool:
        """Count a call by its function's name and its thread; returns whether it is to be traced."""
        number = self._calls[key]
        self._calls[key] = number + 1
        return self._first > 0 and (number < self._first or number % self._every == 0)

    def trace_next(self, key: tuple[str, int]) -> None:
        """An untraced call has changed the device of its thread: trace the next call, to find the line."""
        self._calls[key] = 0

    # ---- findings

    def note_device(self, name: str, given: Device, place: Place, used: int, what: str) -> None:
        """The job `name` was `given` a device, and `what` is on another one at `place`."""
        remedy = f"Use the device that the job is given (str(device) == {str(given)!r}) instead of one of its own."
        self._note(
            "other device", place, f"job {name!r} was given {given.label}, and {what} is on cuda:{used}. {remedy}"
        )

    def note_autograd(self, name: str, place: Place, what: str) -> None:
        """In the job `name` autograd has recorded `what` at `place`, though the event loop's thread has it off."""
        message = (
            f"autograd records {what} in job {name!r}, though it is switched off on the event loop's thread: torch "
            "keeps that for each thread. Enter it around each call: Director(around=torch.inference_mode)."
        )
        self._note("autograd", place, message)

    def note_block(self, place: Place, seconds: float, on_gpu: bool) -> None:
        """The event loop was blocked at `place`."""
        if on_gpu:
            message = "GPU work blocked the event loop; give it to the Director: `await director.run(function, ...)`."
        else:
            message = (
                "Something blocked the event loop; give it to a thread (`asyncio.to_thread`), "
                "or to the Director if it is GPU work."
            )
        self._note("loop blocked", place, message, seconds)

    def _note(
        self,
        kind: Literal["loop blocked", "other device", "autograd"],
        place: Place,
        message: str,
        seconds: float = 0.0,
    ) -> None:
        key = (kind, place.file, place.line)
        with self._lock:
            before = self._findings.get(key)
            if before is not None:
                longest = max(before.seconds, seconds)
                self._findings[key] = replace(before, times=before.times + 1, seconds=longest)
                return
            self._findings[key] = Finding(kind, *place, message, seconds)
        took = f" for {seconds:.3f} s" if seconds else ""
        logger.warning("%s%s at %s\n  %s", kind, took, place, message)


# Packages that work on GPUs: if the user's line calls into one of them, it is GPU work.
_PACKAGES = """
    torch torchvision torchaudio triton cupy cupyx jax jaxlib flax tensorflow keras numba pycuda cuda tensorrt
    onnxruntime transformers diffusers accelerate vllm ctranslate2 faiss cudf cuml warp
"""
GPU_PACKAGES = frozenset(_PACKAGES.split())
_LOOPS = frozenset({"_run", "_run_once", "run_forever", "run_until_complete", "run"})
_PATHS = sysconfig.get_paths()
_LIBRARIES = (
    *{f"{_PATHS[kind]}/" for kind in ("stdlib", "platstdlib", "purelib", "platlib")},
    f"{Path(director.__file__).parent}/",
    "<frozen ",
    "<string>",
)


class Place(NamedTuple):
    """A line of source."""

    file: str
    line: int
    function: str
    source: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}: {self.source}"


def place_of(frame: FrameType, line: int | None = None) -> Place:
    """The current line of a frame, or `line` of it."""
    file, at = frame.f_code.co_filename, line or frame.f_lineno
    source = linecache.getline(file, at, frame.f_globals).strip() or "(source not found)"
    return Place(file, at, frame.f_code.co_qualname, source)


def own_frame(frames: Iterable[FrameType]) -> FrameType | None:
    """The first of `frames`, innermost first, that is not of a library; `None` if there is none."""
    return next((each for each in frames if not is_library(each.f_code.co_filename)), None)


def callback_frames(frame: FrameType | None) -> list[FrameType]:
    """The frames of the callback that an event loop's thread runs at present; none while the loop waits."""
    frames = list(takewhile(lambda each: not _is_loop(each), outward(frame)))
    is_waiting = bool(frames) and frames[0].f_code.co_filename.endswith("selectors.py")
    return [] if is_waiting else frames


def _is_loop(frame: FrameType) -> bool:
    """Whether a frame is of the event loop itself.

    Frames of uvloop are not visible, but the runner that calls it is.
    """
    return frame.f_code.co_name in _LOOPS and "/asyncio/" in frame.f_code.co_filename


def outward(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of a stack, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


@lru_cache(maxsize=4096)
def is_library(file: str) -> bool:
    """Whether a file belongs to Python, an installed package or this one."""
    return file.startswith(_LIBRARIES) or "/site-packages/" in file or "/dist-packages/" in file


def is_gpu_frame(frame: FrameType) -> bool:
    """Whether it belongs to a package that works on GPUs."""
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.partition(".")[0] in GPU_PACKAGES
