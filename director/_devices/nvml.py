"""The GPUs of this machine as NVML lists them. The only importer of pynvml, which is loaded on first use.

Every call blocks, and when a GPU dies it may block for ever in the kernel, where it can't be interrupted. So none of
this runs on an event loop or on a pool whose threads are joined at exit: call through `within`. NVML is thread-safe.

NVML is initialised once for the life of the process and never shut down: the driver stays awake and handles stay valid.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from director._devices.inventory import Gpu, Inventory, LostGpu, MigSlice
from director._devices.isolated import CallTimedOut, NoThread, on_thread
from director._system.threads import NoThreadsHere
from director._untrusted.objects import text_of
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_log = logging.getLogger("director")

_LIBRARY = "libnvidia-ml.so.1"
_REINSTALL = "Run `pip uninstall pynvml`, then `pip install --force-reinstall nvidia-ml-py`."
_UNKNOWN = 999
_NO_TEXT = -1  # instead of a code of NVML
_REMEDIES = {
    4: "Give this process access to /dev/nvidiactl and /dev/nvidia* (in a container: through the NVIDIA runtime).",
    13: "The driver is too old for this version of nvidia-ml-py: update the driver.",
    18: "The driver was updated under the running kernel module: reboot, or reload the nvidia modules "
    "(in a container: restart it).",
    _UNKNOWN: "In a container this is what follows a `systemctl daemon-reload` on the host, which takes the GPUs away: "
    "restart the container. Elsewhere look for `Xid` in `dmesg`, then reboot.",
}

# Guards _started. Reentrant, because a finalizer or a signal handler may call `opened` too.
_starting = threading.RLock()
_started = False


def within(seconds: float, call: Callable[[], T]) -> T:
    """Run a blocking NVML `call` on a daemon thread of its own and wait for its result.

    Args:
        seconds: How long to wait. A call that hangs keeps its thread, which does not keep the process from exiting.
        call: What to run.

    Raises:
        DiscoveryError: `call` did not return in time, or no thread could be started.
        BaseException: Whatever `call` raises.
    """
    try:
        return on_thread(seconds, call, "director-nvml")
    except CallTimedOut:
        raise DiscoveryError(
            f"NVML has not answered for {seconds:g} s: the NVIDIA driver hangs, which it does when a GPU dies. "
            "`nvidia-smi` will hang too; look for `Xid` in `dmesg`, then reset the GPU or reboot."
        ) from None
    except NoThreadsHere as error:
        raise DiscoveryError(str(error)) from None
    except NoThread as error:
        raise DiscoveryError(
            f"NVML can't be asked: {error}. Raise the limit of processes and threads (ulimit -u, pids.max)."
        ) from None


def take_inventory() -> Inventory:
    """List the GPUs, with their MIG slices and memory. Blocks, perhaps for ever: call it through `within`.

    One GPU that fails does not hide the others. For a machine without a driver the inventory is empty and has the
    reason.

    Raises:
        DiscoveryError: There is a driver and it can't be used, or the `pynvml` module is not NVIDIA's.
    """
    nvml = _module()
    nothing = _initialise(nvml)
    if nothing is not None:
        return nothing
    try:
        found = [_read_gpu(nvml, index) for index in range(_count(nvml))]
        driver = _optional(nvml, text, nvml.nvmlSystemGetDriverVersion)
    except nvml.NVMLError as error:
        raise _failure(error) from error
    lost = tuple(gpu for gpu in found if isinstance(gpu, LostGpu))
    if lost and len(lost) == len(found) and all(gpu.code == _UNKNOWN for gpu in lost):
        raise _failure(nvml.NVMLError(_UNKNOWN))
    gpus = tuple(gpu for gpu in found if isinstance(gpu, Gpu))
    return Inventory(gpus, lost, tuple(index for index, gpu in enumerate(found) if gpu is None), driver)


def opened() -> Any:
    """NVIDIA's module with NVML initialised, `None` where there is none. Blocks like `take_inventory`.

    Raises:
        DiscoveryError: There is a driver and it can't be used, or the `pynvml` module is not NVIDIA's.
    """
    nvml = _module()
    return nvml if _initialise(nvml) is None else None


def _module() -> Any:
    try:
        import pynvml
    except (ImportError, FutureWarning) as error:  # the deprecated distribution warns, and warnings may be errors
        raise DiscoveryError(f"pynvml can't be imported ({error}). {_REINSTALL}") from error
    if hasattr(pynvml, "__path__"):
        raise DiscoveryError(f"The old package {pynvml.__path__[0]} hides NVIDIA's own pynvml module. {_REINSTALL}")
    return pynvml


def _initialise(nvml: Any) -> Inventory | None:
    """Initialise NVML unless that has been done. Without NVML, returns an empty inventory with the reason."""
    global _started
    with _starting:
        if _started:
            return None
        try:
            nvml.nvmlInit()
        except nvml.NVMLError_LibraryNotFound:
            return Inventory(absence=_explain_missing_library())
        except nvml.NVMLError_DriverNotLoaded:
            return Inventory(absence="the NVIDIA driver is not loaded", driver_loaded=False)
        except nvml.NVMLError as error:
            raise _failure(error) from error
        _started = True
        return None


def _explain_missing_library() -> str:
    """Distinguish a missing library from a broken one, which pynvml reports in the same way."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError as error:
        why = str(error)
        # Container images that were built with a mounted driver have its libraries as empty files.
        if "file too short" in why or (_LIBRARY in why and "no such file" in why.lower()):
            return f"there is no NVIDIA driver ({why})"
        raise DiscoveryError(f"NVIDIA's {_LIBRARY} can't be loaded: {why}. Reinstall the driver.") from error
    return f"{_LIBRARY} appeared only just now"


def _failure(error: Any) -> DiscoveryError:
    remedy = _REMEDIES.get(error.value, "See what `nvidia-smi` and `dmesg` say.")
    return DiscoveryError(f"NVML fails: {text_of(error)} (code {error.value}). {remedy}")


def _count(nvml: Any) -> int:
    try:
        return int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError_Uninitialized:  # other code in this process has shut NVML down
        nvml.nvmlInit()
        return int(nvml.nvmlDeviceGetCount())


def _read_gpu(nvml: Any, index: int) -> Gpu | LostGpu | None:
    """One GPU; `None` if this process has no permission for it. NVML first touches the GPU here, not at its start."""
    try:
        return _describe(nvml, nvml.nvmlDeviceGetHandleByIndex(index), index)
    except nvml.NVMLError_NoPermission:
        return None
    except nvml.NVMLError as error:
        return LostGpu(index, error.value, text_of(error))
    except UnicodeDecodeError as error:  # of its UUID, by which a process is given its GPU
        return LostGpu(index, _NO_TEXT, f"its UUID is no text: {error.object!r}")


def _describe(nvml: Any, gpu: Any, index: int) -> Gpu:
    uuid = nvml.nvmlDeviceGetUUID(gpu)
    current, _pending = _optional(nvml, nvml.nvmlDeviceGetMigMode, gpu) or (0, 0)
    mig = current == nvml.NVML_DEVICE_MIG_ENABLE
    memory = _own_memory(nvml, gpu)
    return Gpu(
        index=index,
        uuid=uuid,
        name=text(nvml.nvmlDeviceGetName, gpu),
        pci_bus_id=text(lambda: nvml.nvmlDeviceGetPciInfo(gpu).busId).lower(),
        total_memory=_machine_memory() if memory == 0 else memory,
        mig=mig,
        slices=_slices(nvml, gpu, uuid) if mig else (),
    )


def _slices(nvml: Any, gpu: Any, parent: str) -> tuple[MigSlice, ...]:
    most = _optional(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, gpu) or 0
    found = [_slice(nvml, gpu, parent, index) for index in range(most)]
    return tuple(piece for piece in found if piece is not None)


def _slice(nvml: Any, gpu: Any, parent: str, index: int) -> MigSlice | None:
    try:
        piece = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)
        return MigSlice(
            uuid=nvml.nvmlDeviceGetUUID(piece),
            parent=parent,
            name=text(nvml.nvmlDeviceGetName, piece),
            total_memory=_own_memory(nvml, piece) or None,
            gpu_instance=nvml.nvmlDeviceGetGpuInstanceId(piece),
            compute_instance=nvml.nvmlDeviceGetComputeInstanceId(piece),
        )
    except (nvml.NVMLError_NotFound, nvml.NVMLError_NoPermission):  # slices are numbered with gaps
        return None
    except nvml.NVMLError_GpuIsLost:
        raise
    except UnicodeDecodeError as error:
        _log.warning("MIG slice %d of %s is left out: its UUID is no text: %r.", index, parent, error.object)
        return None
    except nvml.NVMLError as error:
        _log.warning("MIG slice %d of %s is left out: NVML answers %r.", index, parent, text_of(error))
        return None


def text(call: Callable[..., str], *args: Any) -> str:
    """The text that a call of NVML returns, with replacement characters for bytes that are none.

    Drivers 555 under WSL2 return such bytes as the name of a GPU, and pynvml raises `UnicodeDecodeError`.
    """
    try:
        return call(*args)
    except UnicodeDecodeError as error:
        return error.object.decode(errors="replace")


def _own_memory(nvml: Any, device: Any) -> int | None:
    """Bytes of the device's own memory: 0 if it shares the machine's, `None` if that is not known."""
    for version in (None, nvml.nvmlMemory_v2):
        try:
            total = int(nvml.nvmlDeviceGetMemoryInfo(device, version).total)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
            continue
        except nvml.NVMLError_NoPermission:
            return None
        if total:
            return total
    return 0


def _machine_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _optional(nvml: Any, call: Callable[..., T], *args: Any) -> T | None:
    """The result of `call`; `None` if this GPU, driver or user does not have it."""
    try:
        return call(*args)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission):
        return None
