"""Finds the line of a stack that is user code, and its source. No state but caches."""

from __future__ import annotations

import linecache
import sysconfig
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import director

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

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
