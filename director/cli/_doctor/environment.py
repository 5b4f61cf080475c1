"""Variables that change what a process sees of the GPUs, or how fast they are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from director._numbers import number_in, shortened
from director.cli._doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_finding = partial(Finding, "environment")
_SHOWN = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "CUDA_MPS_PIPE_DIRECTORY",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
)


def examine_environment(variables: Mapping[str, str], gpus_are_near: bool) -> Iterator[Finding]:
    """Findings about environment variables.

    Args:
        variables: All of them.
        gpus_are_near: Whether there are GPUs, in this process's reach or beyond.
    """
    known = ", ".join(f"{name}={shortened(variables[name])}" for name in _SHOWN if name in variables)
    yield _finding("environment", "ok", known or "nothing is set that concerns GPUs")
    if variables.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0"):
        text = "CUDA_LAUNCH_BLOCKING makes every kernel wait for the one before: for finding errors, not for work"
        yield _finding("launch-blocking", "note", text, "unset CUDA_LAUNCH_BLOCKING")
    runtime = variables.get("NVIDIA_VISIBLE_DEVICES", "all")
    if runtime in ("none", "void", "") and gpus_are_near:
        text = f"NVIDIA_VISIBLE_DEVICES={runtime!r} tells the container runtime to leave the GPUs out"
        yield _finding("container-without-gpus", "wrong", text, "docker run --gpus all, or NVIDIA_VISIBLE_DEVICES=all")
    wanted = variables.get("NVIDIA_DRIVER_CAPABILITIES", "all").split(",")
    if not {"all", "compute"} & set(wanted) and gpus_are_near:
        text = f"NVIDIA_DRIVER_CAPABILITIES={shortened(','.join(wanted))} leaves CUDA's library out of the container"
        yield _finding("container-without-cuda", "wrong", text, "NVIDIA_DRIVER_CAPABILITIES=compute,utility")
    stubs = [part for part in variables.get("LD_LIBRARY_PATH", "").split(":") if part.rstrip("/").endswith("/stubs")]
    if stubs:
        folder = shortened(stubs[0])
        text = f"LD_LIBRARY_PATH leads to {folder}, whose libcuda is for linking only and knows no GPU"
        yield _finding("stub-library", "wrong", text, f"take {folder} out of LD_LIBRARY_PATH")
    workers = variables.get("WEB_CONCURRENCY", "1")
    if workers.isdecimal() and number_in(workers) > 1:
        workers = shortened(workers, 20)
        text = f"WEB_CONCURRENCY={workers} starts as many server processes, and each Director takes every GPU"
        yield _finding(
            "many-workers",
            "note",
            text,
            "one process for each machine, or Director(shared=...), by which they take turns",
        )
