"""Run blocking GPU inference on all GPUs of the machine, each item on whichever is free, inside your asyncio app."""

from director._core.job import Job
from director._core.states import DirectorState, Health, JobState
from director._current import check_cancelled, current_device, current_job, report
from director._device import Device
from director._devices.discovery import discover_devices
from director._director import Director
from director._executors._base import Executor
from director._executors._process.executor import ProcessExecutor
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
]
