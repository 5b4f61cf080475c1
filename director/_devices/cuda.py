"""Asks CUDA which devices this process would see, in a short-lived child process.

Only CUDA knows its order of devices and the effect of `CUDA_VISIBLE_DEVICES` on this driver. Initialising it in this
process would fix the mask, break later forks and may allocate memory on a GPU; even its library is never loaded here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeAlias

from director._devices.isolated import ScriptResult, run_script
from director.errors import DiscoveryError

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
