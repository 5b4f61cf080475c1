"""A survey: this machine's GPUs by NVML and by CUDA, and the resulting devices. No state.

CUDA says which devices this process sees and in which order, NVML describes them; they are joined by UUID. If CUDA
can't be asked, the mask is applied to NVML's list. CUDA is asked in a short-lived child process: initialising it in
this one would fix the mask, break later forks and may allocate memory on a GPU; even its library is never loaded here.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from typing import Any, TypeAlias

from director._device import Device
from director._devices.inventory import Inventory, Unit, gpu_uuid, hex_digits
from director._devices.isolated import ScriptResult, run_script
from director._devices.nvml import take_inventory, within
from director._devices.visible_devices import visible_units
from director._untrusted.numbers import shortened
from director.errors import DiscoveryError

NVML_TIMEOUT = 60.0  # seconds; without persistence mode the first access takes seconds per GPU
CUDA_TIMEOUT = 60.0

_log = logging.getLogger("director")


@dataclass(frozen=True, slots=True)
class Survey:
    """The devices that were found, and the data they are based on."""

    mask: str | None
    order: str | None
    inventory: Inventory
    cuda: CudaAnswer
    devices: tuple[Device, ...]

    @property
    def absence(self) -> str:
        """Why there are no devices, if there are none."""
        why = self._why_none()
        return f"{why}; {self.cuda.reason}" if isinstance(self.cuda, CudaUnavailable) and self.cuda.installed else why

    def _why_none(self) -> str:
        there = self.inventory
        if there.absence is not None:
            return there.absence
        if there.gpus and self.mask is not None:
            mask = repr(shortened(self.mask))
            return f"CUDA_VISIBLE_DEVICES={mask} selects none of the GPUs, of which there are {len(there.gpus)}"
        if there.gpus:
            return f"CUDA shows none of the GPUs, of which NVML lists {len(there.gpus)}"
        if there.lost:
            return f"GPU {there.lost[0].index} can't be used ({there.lost[0].reason})"
        if there.hidden:
            return "this process has no permission for any GPU"
        return "the NVIDIA driver knows of no GPU"


def take_survey(*, nvml_timeout: float = NVML_TIMEOUT, cuda_timeout: float = CUDA_TIMEOUT) -> Survey:
    """Survey the machine's GPUs. Blocks for about a second if they work.

    Raises:
        DiscoveryError: They can't be listed; the message names cause and remedy.
    """
    mask, order = mask_and_order()
    inventory = within(nvml_timeout, take_inventory)
    _warn_of_lost_gpus(inventory)
    cuda = (
        ask_cuda(cuda_timeout) if inventory.driver_loaded else CudaUnavailable("CUDA needs the driver", installed=False)
    )
    if isinstance(cuda, CudaUnavailable):
        if inventory.gpus:
            _log.warning("The order of the GPUs comes from NVML and the mask alone, for %s.", cuda.reason)
        devices = tuple(
            Device(ordinal, unit.uuid, unit.name, "cuda", unit.total_memory)
            for ordinal, unit in enumerate(visible_units(inventory, mask, order))
        )
    else:
        devices = _join(cuda, inventory)
    return Survey(mask, order, inventory, cuda, devices)


def mask_and_order() -> tuple[str | None, str | None]:
    """The two variables that decide which devices CUDA shows, and in which order."""
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("CUDA_DEVICE_ORDER")


def _warn_of_lost_gpus(inventory: Inventory) -> None:
    for gpu in inventory.lost:
        _log.warning("GPU %d (NVML index) is there and can't be used: NVML answers %r.", gpu.index, gpu.reason)
    if inventory.hidden:
        _log.info("This process has no permission for the GPUs with NVML index %s.", inventory.hidden)


def _join(cuda: tuple[CudaDevice, ...], inventory: Inventory) -> tuple[Device, ...]:
    known = {hex_digits(unit.uuid): unit for unit in inventory.units}
    return tuple(_from_cuda(ordinal, found, known.get(found.digits)) for ordinal, found in enumerate(cuda))


def _from_cuda(ordinal: int, found: CudaDevice, unit: Unit | None) -> Device:
    """A device that CUDA shows, with NVML's description; without one, with that of CUDA."""
    if unit is None:
        return Device(ordinal, gpu_uuid(found.digits), found.name, "cuda", found.total_memory)
    return Device(ordinal, unit.uuid, unit.name, "cuda", unit.total_memory or found.total_memory)


_MARK = "director-cuda "  # as in list_cuda
_NO_DEVICE = 100
_STUB_LIBRARY = 34  # the library is the toolkit's stub for linking, not a driver
_MEANINGS = {
    3: "not initialised: the driver is shutting down",
    46: "device busy or unavailable: another process has it in exclusive mode",
    101: "invalid device: look at CUDA_VISIBLE_DEVICES",
    802: "system not ready: on machines with NVSwitch start nvidia-fabricmanager",
    803: "driver and library differ in version: reboot, or take an old libcuda.so.1 out of LD_LIBRARY_PATH",
    804: "this GPU can't use forward compatibility: take the cuda-compat directory out of LD_LIBRARY_PATH",
    805: "no connection to the MPS server: start it, or unset CUDA_MPS_PIPE_DIRECTORY",
    999: "unknown error: reload the nvidia_uvm module, or restart the container",
}


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """A device as CUDA lists it; its position in the list is its ordinal.

    Args:
        digits: The 32 hexadecimal digits of its UUID; of the slice's, if it is one.
        name: The product name.
        total_memory: Bytes.
    """

    digits: str
    name: str
    total_memory: int


@dataclass(frozen=True, slots=True)
class CudaUnavailable:
    """CUDA could not be asked."""

    reason: str
    installed: bool


CudaAnswer: TypeAlias = tuple[CudaDevice, ...] | CudaUnavailable


def ask_cuda(timeout: float) -> CudaAnswer:
    """The devices that CUDA shows under the present environment, in its order. Blocks.

    Args:
        timeout: Seconds to wait. The driver may hang when a GPU has died.

    Raises:
        DiscoveryError: CUDA was asked and answered with an error.
    """
    try:
        ended = run_script("list_cuda.py", timeout=timeout)
    except OSError as error:
        return CudaUnavailable(f"no process could be started ({error})", installed=True)
    if ended.exitcode is None:
        return CudaUnavailable(f"CUDA did not answer within {timeout:g} s", installed=True)
    return _read(ended)


def _read(ended: ScriptResult) -> CudaAnswer:
    try:
        line = next(line for line in ended.stdout.splitlines() if line.startswith(_MARK))
        return _parse_answer(json.loads(line.removeprefix(_MARK)))
    except (StopIteration, KeyError, TypeError, ValueError):
        why = f"the process that asked CUDA gave no sense (exit code {ended.exitcode}){ended.last_error_line}"
        return CudaUnavailable(why, installed=True)


def _parse_answer(answer: dict[str, Any]) -> CudaAnswer:
    if "unloadable" in answer:
        return CudaUnavailable(f"CUDA's library can't be loaded ({answer['unloadable']})", installed=False)
    if "code" in answer:
        return _driver_error(answer["function"], answer["code"])
    devices = tuple(_device(**found) for found in answer["devices"])
    if len({device.digits for device in devices}) < len(devices):
        raise ValueError("several devices with one UUID")
    return devices


def _driver_error(function: str, code: int) -> CudaAnswer:
    if code == _NO_DEVICE:
        return ()
    if code == _STUB_LIBRARY:
        return CudaUnavailable("libcuda.so.1 is the stub of a CUDA toolkit, not a driver", installed=False)
    meaning = _MEANINGS.get(code, "see what `nvidia-smi` and `dmesg` say")
    raise DiscoveryError(f"CUDA can't be used: {function} answers {code} ({meaning}).")


def _device(uuid: str, name: str, memory: int) -> CudaDevice:
    if len(bytes.fromhex(uuid)) != 16:
        raise ValueError(f"no UUID: {uuid!r}")
    return CudaDevice(uuid, str(name), int(memory))
