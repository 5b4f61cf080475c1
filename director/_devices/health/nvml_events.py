"""Waits for errors of devices that NVIDIA's driver reports, on a thread of its own.

NVML has no callback for events, and a wait can't be interrupted. So the thread waits in slices: four wake-ups a second
cost less than a thousandth of a core, and closing takes at most a quarter of a second.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from director._devices.health.diagnosis import Xid
from director._devices.nvml import opened
from director._system.threads import Flag
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SLICE = 250  # milliseconds; never 0, which is "without end" for some drivers
_BACKOFF = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)  # seconds after a failed wait, because each wait may fail at once

# Of nvml.h, by number, because older versions of nvidia-ml-py don't have all the names.
_XID = 0x8
_UNAVAILABLE, _RECOVERY_ACTION = 0x4000, 0x8000
_WHOLE_GPU = 0xFFFFFFFF


class DeviceChanged:
    """An event of some device that does not say which; checkups have to find out."""


CHANGED = DeviceChanged()


@dataclass(frozen=True, slots=True)
class _Registered:
    """A device that is registered for events: a GPU, or a slice of one, which gets the events of its GPU."""

    uuid: str
    gpu: int
    instances: tuple[int, int] | None

    def matches(self, event: Any) -> bool:
        if self.gpu != _address(event.device):
            return False
        meant = (event.gpuInstanceId, event.computeInstanceId)
        return self.instances is None or all(
            theirs in (mine, _WHOLE_GPU) for mine, theirs in zip(self.instances, meant, strict=True)
        )


class NvmlEvents:
    """Receives the events of devices.

    Args:
        uuids: The devices.
        post: Called with each event on the listening thread; must not block.
    """

    def __init__(self, uuids: Iterable[str], post: Callable[[Xid | DeviceChanged], object]) -> None:
        self._uuids = tuple(uuids)
        self._post = post
        self._over = False
        # Set when the thread has to check for `stop` or `renew`.
        self._wakeup = Flag()
        self._thread = threading.Thread(target=self._run, name="director:xids", daemon=True)

    def start(self) -> None:
        """Start to listen; the thread ends if no device has events."""
        self._thread.start()

    def renew(self) -> None:
        """Register all devices again: one that was lost and is back has lost its registration."""
        self._wakeup.set()

    def stop(self) -> None:
        """Stop listening. The thread ends within a slice."""
        self._over = True
        self._wakeup.set()

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until the thread has ended; returns whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            nvml = opened()
        except DiscoveryError:
            return
        failures = 0
        while nvml is not None and not self._over:
            try:
                if not self._listen(nvml):
                    return
                failures = 0
            except nvml.NVMLError as error:
                self._post(CHANGED)
                _start_again(nvml, error)
                self._wakeup.wait(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
                failures += 1

    def _listen(self, nvml: Any) -> bool:
        """Listen until `_wakeup` is set; returns False if no device has events at all."""
        self._wakeup.clear()
        # `stop` may have set the flag that was just cleared.
        if self._over:
            return False
        try:
            events = nvml.nvmlEventSetCreate()
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
            return False
        try:
            registered, later = self._register(nvml, events)
            if not registered:
                if later:
                    self._wakeup.wait()
                return later
            while not self._wakeup.is_set():
                self._wait(nvml, events, registered, SLICE)
            # Post the events that have come since.
            while not self._over and self._wait(nvml, events, registered, 1):
                pass
        finally:
            # Freed by the thread that waits on it, because freeing it during a wait is undefined.
            nvml.nvmlEventSetFree(events)
        return True

    def _register(self, nvml: Any, events: Any) -> tuple[list[_Registered], bool]:
        """The devices that could be registered, and whether others may be registered later."""
        registered, later, gpus = [], False, set()
        for uuid in self._uuids:
            try:
                device, gpu = _find(nvml, uuid)
                if device.gpu not in gpus:
                    wanted = nvml.nvmlDeviceGetSupportedEventTypes(gpu) & (_XID | _UNAVAILABLE | _RECOVERY_ACTION)
                    nvml.nvmlDeviceRegisterEvents(gpu, wanted, events)
                    gpus.add(device.gpu)
                registered.append(device)
            except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission):
                continue
            except nvml.NVMLError:
                # The device may be lost; the checkups will find out.
                later = True
        return registered, later

    def _wait(self, nvml: Any, events: Any, registered: list[_Registered], milliseconds: int) -> bool:
        """Wait for one event and post it; returns False if none came."""
        try:
            event = nvml.nvmlEventSetWait_v2(events, milliseconds)
        except nvml.NVMLError_Timeout:
            return False
        for device in registered:
            if event.eventType == _XID and device.matches(event):
                self._post(Xid(device.uuid, int(event.eventData)))
        self._post(CHANGED)
        return True


def _find(nvml: Any, uuid: str) -> tuple[_Registered, Any]:
    """A device, and the handle of the GPU that reports its events."""
    handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    if not uuid.startswith("MIG-"):
        return _Registered(uuid, _address(handle), None), handle
    gpu = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    instances = nvml.nvmlDeviceGetGpuInstanceId(handle), nvml.nvmlDeviceGetComputeInstanceId(handle)
    return _Registered(uuid, _address(gpu), instances), gpu


def _address(handle: Any) -> int:
    """The address in a handle, by which two handles of one GPU are compared; as objects they are never equal."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _start_again(nvml: Any, error: Any) -> None:
    """Initialise NVML again if other code in this process has shut it down."""
    if isinstance(error, nvml.NVMLError_Uninitialized):
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            return
