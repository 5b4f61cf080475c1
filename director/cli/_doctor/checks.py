"""Findings about sockets, environment variables, limits and versions."""

from __future__ import annotations

import math
import platform
import sys
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal, TypeAlias

from director import __version__, _format
from director._untrusted.numbers import number_in, shortened
from director.dashboard._socket_paths import check_folder, is_open, known_paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from director import Device
    from director.cli._doctor.system import System

Level: TypeAlias = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding.

    Args:
        part: Which part of the examination: ``"versions"``, ``"devices"``, ``"environment"``, ``"limits"``, ``"apps"``.
        code: A name that stays the same, for scripts and for the documentation.
        level: ``"wrong"``: something won't work. ``"note"``: worth knowing.
        text: The observation.
        remedy: How to fix it.
    """

    part: str
    code: str
    level: Level
    text: str
    remedy: str | None = None


def examine_apps() -> Iterator[Finding]:
    """Findings about the sockets that `director top` reads."""
    paths = known_paths()
    running = [path for path in paths if is_open(path)]
    names = ", ".join(_process_of(path.stem) for path in running)
    yield Finding("apps", "apps", "ok", f"apps with an open socket: {names or 'none'}")
    stale = " ".join(str(path) for path in paths if path not in running)
    if stale:
        text = f"of apps that have died: {stale}"
        yield Finding("apps", "stale-socket", "note", text, "none needed: the next app removes them")
    try:
        check_folder()
    except PermissionError as error:
        yield Finding("apps", "socket-folder", "wrong", str(error))


def _process_of(socket: str) -> str:
    first, _, rest = socket.partition("-")
    return f"server process {rest}" if first == "server" else f"process {first}"


_environment = partial(Finding, "environment")
_SHOWN = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "CUDA_MPS_PIPE_DIRECTORY",
    "OMP_NUM_THREADS",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
)


def examine_environment(variables: Mapping[str, str], gpus_are_near: bool, cpus: float = math.inf) -> Iterator[Finding]:
    """Findings about environment variables.

    Args:
        variables: All of them.
        gpus_are_near: Whether the machine has GPUs, usable by this process or not.
        cpus: CPUs that this process may use.
    """
    known = ", ".join(f"{name}={shortened(variables[name])}" for name in _SHOWN if name in variables)
    yield _environment("environment", "ok", known or "nothing is set that concerns GPUs")
    if variables.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0"):
        text = "CUDA_LAUNCH_BLOCKING makes every kernel wait for the one before: for finding errors, not for work"
        yield _environment("launch-blocking", "note", text, "unset CUDA_LAUNCH_BLOCKING")
    runtime = variables.get("NVIDIA_VISIBLE_DEVICES", "all")
    if runtime in ("none", "void", "") and gpus_are_near:
        text = f"NVIDIA_VISIBLE_DEVICES={runtime!r} makes the container runtime leave the GPUs out"
        yield _environment(
            "container-without-gpus", "wrong", text, "docker run --gpus all, or NVIDIA_VISIBLE_DEVICES=all"
        )
    wanted = variables.get("NVIDIA_DRIVER_CAPABILITIES", "all").split(",")
    if not {"all", "compute"} & set(wanted) and gpus_are_near:
        text = f"NVIDIA_DRIVER_CAPABILITIES={shortened(','.join(wanted))} leaves CUDA's library out of the container"
        yield _environment("container-without-cuda", "wrong", text, "NVIDIA_DRIVER_CAPABILITIES=compute,utility")
    stubs = [part for part in variables.get("LD_LIBRARY_PATH", "").split(":") if part.rstrip("/").endswith("/stubs")]
    if stubs:
        folder = shortened(stubs[0])
        text = f"LD_LIBRARY_PATH leads to {folder}, whose libcuda is for linking only and knows no GPU"
        yield _environment("stub-library", "wrong", text, f"take {folder} out of LD_LIBRARY_PATH")
    threads = variables.get("OMP_NUM_THREADS", "1").partition(",")[0]
    if threads.isdecimal() and number_in(threads) > max(1, cpus):
        text = (
            f"OMP_NUM_THREADS={shortened(threads, 20)} and {cpus:.3g} CPUs: the threads of one computation take turns"
        )
        yield _environment("many-threads", "note", text, "set it to the CPUs divided by the slots, or unset it")
    workers = variables.get("WEB_CONCURRENCY", "1")
    if workers.isdecimal() and number_in(workers) > 1:
        workers = shortened(workers, 20)
        text = f"WEB_CONCURRENCY={workers} starts as many server processes, and each Director takes every GPU"
        yield _environment(
            "many-workers",
            "note",
            text,
            "one process for each machine, or Director(shared=...), with which they take turns",
        )


_limit = partial(Finding, "limits")
_GIB = 2**30
_FEW_THREADS = 64  # frameworks start dozens of threads
_FEW_FILES = 1024
_LITTLE_SHARED = _GIB


def examine_limits(system: System, devices: Sequence[Device]) -> Iterator[Finding]:
    """Findings about CPUs, threads, files and memory."""
    yield _limit("limits", "ok", _summary(system))
    if system.threads_left is not None and system.threads_left < _FEW_THREADS + len(devices):
        text = f"only {_format.counted(system.threads_left, 'thread')} more can be started, by {system.threads_limit}"
        yield _limit("few-threads", "wrong", text, "raise the limit (docker run --pids-limit, ulimit -u, TasksMax=)")
    if system.open_files is not None and system.open_files < _FEW_FILES:
        text = f"a process may open only {_format.counted(system.open_files, 'file')}"
        yield _limit("few-files", "wrong", text, "ulimit -n 65536, or LimitNOFILE= of the service")
    if system.address_space is not None and devices:
        text = f"addresses are limited to {_gib(system.address_space)}; CUDA reserves more than all GPUs have memory"
        yield _limit("little-address-space", "wrong", text, "ulimit -v unlimited")
    if devices and system.cpus < len(devices):
        text = (
            f"{_format.counted(len(devices), 'GPU')} are fed by {system.cpus:.3g} CPUs: they will wait for each other"
        )
        yield _limit("few-cpus", "note", text, "give the container or service more CPUs")
    yield from _memory(system, devices)


def _memory(system: System, devices: Sequence[Device]) -> Iterator[Finding]:
    biggest = max((device.total_memory or 0 for device in devices), default=0)
    if system.memory is not None and system.memory < biggest:
        text = f"a GPU has {_gib(biggest)} of memory and this machine {_gib(system.memory)}: big models load through it"
        yield _limit("little-memory", "note", text, "load models in pieces (safetensors), or raise the limit")
    if system.shared_memory is not None and system.shared_memory < _LITTLE_SHARED:
        text = f"shared memory is {_gib(system.shared_memory)}; arrays between processes travel through it"
        yield _limit("little-shared-memory", "note", text, "docker run --shm-size=8g, or --ipc=host")


def _summary(system: System) -> str:
    parts = [
        f"{system.cpus:.3g} CPUs",
        f"memory {_gib(system.memory)}",
        f"shared memory {_gib(system.shared_memory)}",
        f"open files {'unlimited' if system.open_files is None else _format.count(system.open_files)}",
        f"threads left {'unlimited' if system.threads_left is None else _format.count(system.threads_left)}",
    ]
    return ", ".join(parts) + (", in a container" if system.in_container else "")


def _gib(size: int | None) -> str:
    return "unlimited" if size is None else f"{size / _GIB:.3g} GiB"


_version = partial(Finding, "versions")
_NEEDED = ("anyio", "nvidia-ml-py")
_EXTRAS = {"rich": "cli", "uvicorn": "dashboard"}
_LOOKED_AT = (*_NEEDED, *_EXTRAS, "pynvml", "torch", "numpy", "uvloop", "uvicorn", "fastapi")


def installed() -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    found = {}
    for package in _LOOKED_AT:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def examine_versions(packages: Mapping[str, str], gpus: int) -> Iterator[Finding]:
    """Findings about Python and packages."""
    known = ", ".join(f"{name} {number}" for name, number in packages.items())
    yield _version("versions", "ok", f"director {__version__}, Python {platform.python_version()}; {known}")
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        yield _version("free-threaded", "note", "this Python runs without the GIL, which director is not tested with")
    for package in _NEEDED:
        if package not in packages:
            yield _version("package-missing", "wrong", f"{package} is not installed", f"pip install {package}")
    yield from _pynvml(packages.get("pynvml"))
    torch = packages.get("torch", "")
    if torch.endswith("+cpu") and gpus:
        yield _version(
            "torch-without-cuda",
            "wrong",
            f"torch {torch} is the build without CUDA, and there are GPUs",
            "install the build for your driver, as https://pytorch.org/get-started/locally/ says",
        )
    for package, extra in _EXTRAS.items():
        if package not in packages:
            what = {"cli": "live views on a terminal", "dashboard": "`director top --web`"}[extra]
            yield _version(
                f"without-{package}",
                "note",
                f"without {package} there are no {what}",
                f"pip install 'gpu-director[{extra}]'",
            )


def _pynvml(number: str | None) -> Iterator[Finding]:
    """Findings about the package `pynvml`, which hides NVIDIA's module of that name."""
    if number is None:
        return
    remedy = "pip uninstall pynvml, then pip install --force-reinstall nvidia-ml-py"
    if int(number.partition(".")[0]) < 12:
        text = f"the old package pynvml {number} hides NVIDIA's own module of that name"
        yield _version("pynvml-hides", "wrong", text, remedy)
    else:
        text = (
            f"the abandoned package pynvml {number} makes the import of NVIDIA's module warn (an error under -W error)"
        )
        yield _version("pynvml-warns", "note", text, remedy)
