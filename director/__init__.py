"""Run blocking GPU inference on all GPUs of the machine, each item on whichever is free, inside your asyncio app.

Its names are imported when they are first asked for: a child process, which needs three of them, starts in a third of
the time.
"""

from typing import TYPE_CHECKING

from director._system import launched as _launched  # noqa: F401 - now: programs change their directory later

if TYPE_CHECKING:
    from director._api.director import Director
    from director._api.function import Function
    from director._api.futures_executor import DirectorExecutor
    from director._api.lease import Lease
    from director._api.lifecycle import DirectorState
    from director._api.stream import Stream
    from director._api.sync import SyncDirector
    from director._device import Device
    from director._devices.discovery import discover_devices
    from director._devices.health.rules import Health, HealthRules
    from director._executors.base import Executor
    from director._executors.process.executor import ProcessExecutor
    from director._executors.ray.sharing import share
    from director._jobs.current import check_cancelled, current_device, current_job, current_replica, report
    from director._jobs.job import Job
    from director._jobs.job_runner import SlotInfo
    from director._jobs.model import Model
    from director._jobs.options import BatchOptions, JobOptions, StreamOptions
    from director._jobs.runner import Call, Runner, RunnerEvents
    from director._jobs.state import JobState
    from director._runtime.stats import DeviceStats, FunctionStats, Stats
    from director._scheduler.explanation import Explanation, Reason
    from director._scheduler.memory.report import MemoryStats, ReplicaStats
    from director.errors import (
        AdmissionError,
        BatchMismatch,
        DeadlineUnreachable,
        DeviceError,
        DeviceLost,
        DirectorClosed,
        DirectorError,
        DiscoveryError,
        JobAborted,
        JobError,
        JobTimeout,
        NoDevices,
        PlacementError,
        QueueFull,
        SlowReader,
        WorkerDied,
    )

__version__ = "0.1.0"

__all__ = [
    "AdmissionError",
    "BatchMismatch",
    "BatchOptions",
    "Call",
    "DeadlineUnreachable",
    "Device",
    "DeviceError",
    "DeviceLost",
    "DeviceStats",
    "Director",
    "DirectorClosed",
    "DirectorError",
    "DirectorExecutor",
    "DirectorState",
    "DiscoveryError",
    "Executor",
    "Explanation",
    "Function",
    "FunctionStats",
    "Health",
    "HealthRules",
    "Job",
    "JobAborted",
    "JobError",
    "JobOptions",
    "JobState",
    "JobTimeout",
    "Lease",
    "MemoryStats",
    "Model",
    "NoDevices",
    "PlacementError",
    "ProcessExecutor",
    "QueueFull",
    "Reason",
    "ReplicaStats",
    "Runner",
    "RunnerEvents",
    "SlotInfo",
    "SlowReader",
    "Stats",
    "Stream",
    "StreamOptions",
    "SyncDirector",
    "WorkerDied",
    "check_cancelled",
    "current_device",
    "current_job",
    "current_replica",
    "discover_devices",
    "report",
    "share",
]

_HOMES = {  # of those that are not errors
    "_api.director": "Director",
    "_api.function": "Function",
    "_api.futures_executor": "DirectorExecutor",
    "_api.lease": "Lease",
    "_api.lifecycle": "DirectorState",
    "_api.stream": "Stream",
    "_api.sync": "SyncDirector",
    "_device": "Device",
    "_devices.discovery": "discover_devices",
    "_devices.health.rules": "Health HealthRules",
    "_executors.base": "Executor",
    "_executors.process.executor": "ProcessExecutor",
    "_executors.ray.sharing": "share",
    "_jobs.current": "check_cancelled current_device current_job current_replica report",
    "_jobs.job": "Job",
    "_jobs.model": "Model",
    "_jobs.options": "BatchOptions JobOptions StreamOptions",
    "_jobs.job_runner": "SlotInfo",
    "_jobs.runner": "Call Runner RunnerEvents",
    "_jobs.state": "JobState",
    "_runtime.stats": "DeviceStats FunctionStats Stats",
    "_scheduler.explanation": "Explanation Reason",
    "_scheduler.memory.report": "MemoryStats ReplicaStats",
}

_MODULES = (
    "events",
    "hooks",
    "errors",
    "testing",
    "timeline",
    "guard",
    "logs",
    "prometheus",
    "otel",
    "fastapi",
    "asgi",
    "dashboard",
    "ray",
)

if not TYPE_CHECKING:  # a type checker would believe that every name is there

    def __getattr__(name: str) -> object:
        """Import a public name or module."""
        from importlib import import_module

        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = next((home for home, names in _HOMES.items() if name in names.split()), "errors")
        value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__() -> list[str]:
        """What there is, imported or not."""
        return sorted({*globals(), *__all__})
