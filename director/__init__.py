"""Run blocking GPU inference on all GPUs of the machine, each item on whichever is free, inside your asyncio app.

Its names are imported when they are first asked for: a child process, which needs three of them, starts in a third of
the time.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from director._core.job import Job
    from director._core.states import DirectorState, Health, JobState
    from director._current import check_cancelled, current_device, current_job, report
    from director._device import Device
    from director._devices.discovery import discover_devices
    from director._director import Director
    from director._executors._base import Executor
    from director._executors._process.executor import ProcessExecutor
    from director._executors._ray.sharing import share
    from director._faces.executor import DirectorExecutor
    from director._faces.function import Function
    from director._faces.lease import Lease
    from director._health_rules import HealthRules
    from director._models import Model
    from director._options import BatchOptions, JobOptions
    from director._stats import DeviceStats, FunctionStats, Stats
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
    "SlowReader",
    "Stats",
    "WorkerDied",
    "check_cancelled",
    "current_device",
    "current_job",
    "discover_devices",
    "report",
    "share",
]

_HOMES = {  # of those that are not errors
    "_core.job": "Job",
    "_core.states": "DirectorState Health JobState",
    "_current": "check_cancelled current_device current_job report",
    "_device": "Device",
    "_devices.discovery": "discover_devices",
    "_director": "Director",
    "_executors._base": "Executor",
    "_executors._process.executor": "ProcessExecutor",
    "_executors._ray.sharing": "share",
    "_faces.executor": "DirectorExecutor",
    "_faces.function": "Function",
    "_faces.lease": "Lease",
    "_health_rules": "HealthRules",
    "_models": "Model",
    "_options": "BatchOptions JobOptions",
    "_stats": "DeviceStats FunctionStats Stats",
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
