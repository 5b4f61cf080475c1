"""Run blocking GPU inference on all GPUs of the machine, each item on whichever is free, inside your asyncio app.

Its names are imported when they are first asked for: a child process, which needs three of them, starts in a third of
the time.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from director._api.director import Director
    from director._api.function import Function
    from director._api.futures_executor import DirectorExecutor
    from director._api.lease import Lease
    from director._api.lifecycle import DirectorState
    from director._api.sync import SyncDirector
    from director._device import Device
    from director._devices.discovery import discover_devices
    from director._devices.health.rules import Health, HealthRules
    from director._executors.base import Executor
    from director._executors.process.executor import ProcessExecutor
    from director._executors.ray.sharing import share
    from director._jobs.current import check_cancelled, current_device, current_job, report
    from director._jobs.job import Job
    from director._jobs.job_runner import SlotInfo
    from director._jobs.model import Model
    from director._jobs.options import BatchOptions, JobOptions
    from director._jobs.runner import Call, Runner, RunnerEvents
    from director._jobs.state import JobState
    from director._runtime.stats import DeviceStats, FunctionStats, Stats
    from director.errors import (
        AdmissionError,
        BatchMismatch,
        DeadlineUnreachable,
        DeviceError,
        DeviceLost,
        DirectorClosed,
        DirectorError,
        DiscoveryError,
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
    "Function",
    "FunctionStats",
    "Health",
    "HealthRules",
    "Job",
    "JobError",
    "JobOptions",
    "JobState",
    "JobTimeout",
    "Lease",
    "Model",
    "NoDevices",
    "PlacementError",
    "ProcessExecutor",
    "QueueFull",
    "Runner",
    "RunnerEvents",
    "SlotInfo",
    "SlowReader",
    "Stats",
    "SyncDirector",
    "WorkerDied",
    "check_cancelled",
    "current_device",
    "current_job",
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
    "_api.sync": "SyncDirector",
    "_device": "Device",
    "_devices.discovery": "discover_devices",
    "_devices.health.rules": "Health HealthRules",
    "_executors.base": "Executor",
    "_executors.process.executor": "ProcessExecutor",
    "_executors.ray.sharing": "share",
    "_jobs.current": "check_cancelled current_device current_job report",
    "_jobs.job": "Job",
    "_jobs.model": "Model",
    "_jobs.options": "BatchOptions JobOptions",
    "_jobs.job_runner": "SlotInfo",
    "_jobs.runner": "Call Runner RunnerEvents",
    "_jobs.state": "JobState",
    "_runtime.stats": "DeviceStats FunctionStats Stats",
}

if not TYPE_CHECKING:  # a type checker would believe that every name is there

    def __getattr__(name: str) -> object:
        """Import a public name."""
        from importlib import import_module

        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = next((home for home, names in _HOMES.items() if name in names.split()), "errors")
        value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__() -> list[str]:
        """What there is, imported or not."""
        return sorted({*globals(), *__all__})
