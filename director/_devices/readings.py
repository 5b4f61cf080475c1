"""Readings of the GPUs by NVML: memory, load, temperature, power. No state.

Like all calls of NVML it blocks, perhaps for ever: call it through `nvml.within`, never on an event loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from director._devices.nvml import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU or MIG slice at one time; `None` is what this GPU, driver or user does not have.

    Args:
        uuid: The GPU or slice.
        used_memory: Bytes that are not free, of all processes.
        load: Share of the last sampling period, up to a second, in which a kernel ran; not how many of its cores were
            used.
        temperature: Degrees Celsius.
        power: Watts.
        compute_mode: ``"default"``, ``"exclusive"`` or ``"prohibited"``.
        error: Why it can't be read at all.
    """

    uuid: str
    used_memory: int | None = None
    load: float | None = None
    temperature: int | None = None
    power: float | None = None
    compute_mode: str | None = None
    error: str | None = None


def read_memory(uuid: str) -> tuple[int, int] | None:
    """The free memory of a GPU or MIG slice, and its total, in bytes; `None` if that is not known.

    Raises:
        DiscoveryError: There is a driver and it can't be used.
    """
    nvml = opened()
    if nvml is None:
        return None
    try:
        memory = _optional(nvml, nvml.nvmlDeviceGetMemoryInfo, nvml.nvmlDeviceGetHandleByUUID(uuid))
    except nvml.NVMLError:  # it is lost, or needs a reset: that is for the checkups to say
        return None
    return (int(memory.free), int(memory.total)) if memory and memory.total else None


def read(uuids: Sequence[str]) -> tuple[Reading, ...]:
    """A reading of each GPU; empty on a machine without NVML.

    Raises:
        DiscoveryError: There is a driver and it can't be used.
    """
    nvml = opened()
    return () if nvml is None else tuple(_read(nvml, uuid) for uuid in uuids)


def _read(nvml: Any, uuid: str) -> Reading:
    try:
        gpu = nvml.nvmlDeviceGetHandleByUUID(uuid)
        memory = _optional(nvml, nvml.nvmlDeviceGetMemoryInfo, gpu)
        load = _optional(nvml, nvml.nvmlDeviceGetUtilizationRates, gpu)
        power = _optional(nvml, nvml.nvmlDeviceGetPowerUsage, gpu)
        return Reading(
            uuid,
            used_memory=memory.total - memory.free if memory and memory.total else None,  # `used` differs by version
            load=None if load is None else load.gpu / 100,
            temperature=_optional(nvml, nvml.nvmlDeviceGetTemperature, gpu, nvml.NVML_TEMPERATURE_GPU),
            power=None if power is None else power / 1000,
            compute_mode=_compute_mode(nvml, gpu),
        )
    except nvml.NVMLError as error:
        return Reading(uuid, error=str(error))


def _compute_mode(nvml: Any, gpu: Any) -> str | None:
    modes = {
        nvml.NVML_COMPUTEMODE_DEFAULT: "default",
        nvml.NVML_COMPUTEMODE_PROHIBITED: "prohibited",
        nvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS: "exclusive",
    }
    mode = _optional(nvml, nvml.nvmlDeviceGetComputeMode, gpu)
    return None if mode is None else modes.get(mode)


def _optional(nvml: Any, call: Callable[..., T], *args: Any) -> T | None:
    """The result of `call`; `None` if it is not available. A MIG slice has memory and little else."""
    try:
        return call(*args)
    except (
        nvml.NVMLError_NotSupported,
        nvml.NVMLError_FunctionNotFound,
        nvml.NVMLError_NoPermission,
        nvml.NVMLError_InvalidArgument,
    ):
        return None
