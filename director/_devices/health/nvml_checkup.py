"""Reads the state of one device by NVML: whether it works, needs a reset, and how much of its memory is free.

A checkup makes two or three cheap calls, because each of them holds a lock of the driver that jobs need too: it reads
no utilisation and no list of processes. Memory is computed from `free`, because drivers disagree on whether `used`
includes what they reserve.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from director._devices.health.diagnosis import Checkup
from director._devices.nvml import opened
from director._untrusted.objects import text_of
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Of nvml.h, by number, because older versions of nvidia-ml-py don't have all the names.
_NOT_FOUND, _UNKNOWN = 6, 999
_LOST = {
    _NOT_FOUND: "NVML does not know it any more",
    9: "the NVIDIA driver is not loaded any more",
    15: "the GPU is lost: it has fallen off the bus, or can't be reached",
    16: "the GPU needs a reset",
    18: "the NVIDIA driver was updated under the running kernel module",
}
_OFF = {2, 3, 13}  # invalid argument, not supported, function not found: the driver does not have the field
_RECOVERY, _REMAP_PENDING, _REMAP_FAILED = 230, 144, 145
_NEEDS = {
    1: "the GPU needs a reset",
    2: "the machine needs a reboot",
    4: "the GPU has to be drained and reset",
    6: "the GPU needs a reset of its bus",
    7: "the machine needs a reboot",
}
_WANTS = {3: "its peer-to-peer traffic has to be drained", 5: "its IMEX domain has to be recovered"}
_WEARS = {
    _REMAP_PENDING: "rows of its memory wait for a reset to be remapped",
    _REMAP_FAILED: "a row of its memory could not be remapped: NVIDIA replaces such GPUs",
}


class NvmlCheckup:
    """Reads one device. Used by one thread at a time."""

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._handles: tuple[Any, Any] | None = None  # of the device, and of the GPU that it is a slice of
        self._known = False  # whether it has been read successfully once
        self._fields = [_RECOVERY, _REMAP_PENDING, _REMAP_FAILED]  # those that this device does not have are removed
        self._has_memory = True

    def read(self) -> Checkup | None:
        """Read the device. Blocks, for ever if the driver hangs; returns `None` if NVML can't watch it."""
        begun = time.monotonic()
        try:
            nvml = opened()
        except DiscoveryError:
            return None
        if nvml is None:
            return None
        try:
            checkup = self._again(nvml, lambda: self._read(nvml, begun))
        except nvml.NVMLError as error:
            self._handles = None  # handles are invalid after a reset
            return self._failed(nvml, error, begun)
        self._known = True
        return checkup

    def _again(self, nvml: Any, call: Callable[[], T]) -> T:
        """The call's result; NVML is initialised again if other code in this process has shut it down."""
        try:
            return call()
        except nvml.NVMLError_Uninitialized:
            self._handles = None
            nvml.nvmlInit()
            return call()

    def _read(self, nvml: Any, begun: float) -> Checkup:
        if self._handles is None:
            device = nvml.nvmlDeviceGetHandleByUUID(self._uuid)
            is_slice = self._uuid.startswith("MIG-")
            self._handles = device, nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device) if is_slice else device
        device, gpu = self._handles
        free, total = self._memory(nvml, device)
        values = self._values(nvml, gpu)
        needed = values.pop(_RECOVERY, 0)
        if needed in _NEEDS:
            return Checkup(self._uuid, begun, "lost", _NEEDS[needed], total, free)
        wears = [_WEARS[field] for field, value in values.items() if value]
        if needed:
            wears.append(_WANTS.get(needed, f"it needs a recovery that is not known here ({needed})"))
        return Checkup(self._uuid, begun, "degraded" if wears else "fine", "; ".join(wears), total, free)

    def _memory(self, nvml: Any, device: Any) -> tuple[int | None, int | None]:
        if not self._has_memory:
            return None, None
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(device)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission):
            self._has_memory = False
            return None, None
        return (
            (int(memory.free), int(memory.total)) if memory.total else (None, None)
        )  # 0: it shares the machine's memory

    def _values(self, nvml: Any, gpu: Any) -> dict[int, int]:
        """The fields that the driver supports, read in one call."""
        if not self._fields:
            return {}
        try:
            answers = nvml.nvmlDeviceGetFieldValues(gpu, self._fields)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission):
            self._fields = []
            return {}
        codes = {int(answer.fieldId): int(answer.nvmlReturn) for answer in answers}
        for code in codes.values():
            if code in _LOST and code != _NOT_FOUND:
                raise nvml.NVMLError(code)
        self._fields = [field for field, code in codes.items() if code not in _OFF]
        # They are small numbers of different widths; the low bytes are the value in each case.
        return {int(answer.fieldId): int(answer.value.uiVal) for answer in answers if answer.nvmlReturn == 0}

    def _failed(self, nvml: Any, error: Any, begun: float) -> Checkup | None:
        code = error.value
        if not self._known and isinstance(
            error, (nvml.NVMLError_NotFound, nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission)
        ):
            return None
        if code in _LOST:
            return Checkup(self._uuid, begun, "lost", _LOST[code])
        reason = f"NVML answers {text_of(error)} (code {code})"
        return Checkup(self._uuid, begun, "doubtful" if code == _UNKNOWN else "degraded", reason)
