"""Recognises device faults in exceptions of users' calls. No framework is imported for this.

Two faults concern the Director: the device's memory is full, so that a smaller batch or another device may succeed;
and CUDA's context is broken, so that every later call in the process fails and it has to end. Both are recognised by
the exceptions of the frameworks: by class name and package, by error codes, and by CUDA's texts in messages of
`RuntimeError` and of the frameworks' classes.

A class of an unknown package is not recognised by its name: `redis` and `psycopg` have an `OutOfMemoryError` too, which
is of a remote server. `MemoryError` is of the host's memory, which another device does not change. Code that wraps a
framework's exception in its own keeps it recognisable by ``raise ... from``.
"""

from __future__ import annotations

import gc
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from director._device import SimulatedDevice
from director._untrusted.objects import (
    ancestors,
    attribute_of,
    class_name,
    family_of,
    is_a,
    module_name,
    text_of,
    traceback_of,
    type_name,
)

if TYPE_CHECKING:
    from director._device import Device

FaultKind: TypeAlias = Literal["memory", "sticky"]

_OUT_OF_MEMORY = 2

# CUDA's runtime and driver number them alike; names and words are those of cudaGetErrorName and cudaGetErrorString
# (13.x). Its documentation (driver_types.h) says of these: "To continue using CUDA, the process must be terminated and
# relaunched"; of 214 and 220 that memory or a link failed under a kernel.
STICKY_CODES = {
    214: ("ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"),
    220: ("NVLINK_UNCORRECTABLE", "uncorrectable NVLink error detected during the execution"),
    226: ("CONTAINED", "Invalid access of peer GPU memory over nvlink or a hardware error"),
    700: ("ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
    702: ("LAUNCH_TIMEOUT", "the launch timed out and was terminated"),
    710: ("ASSERT", "device-side assert triggered"),
    714: ("HARDWARE_STACK_ERROR", "hardware stack error"),
    715: ("ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"),
    716: ("MISALIGNED_ADDRESS", "misaligned address"),
    717: ("INVALID_ADDRESS_SPACE", "operation not supported on global/shared address space"),
    718: ("INVALID_PC", "invalid program counter"),
    719: ("LAUNCH_FAILED", "unspecified launch failure"),
    721: ("TENSOR_MEMORY_LEAK", "tensor memory not completely freed"),
}

FRAMEWORKS = frozenset(
    ("torch", "cupy", "cupy_backends", "jax", "jaxlib", "tensorflow", "onnxruntime", "numba", "pycuda", "cuda", "rmm")
)
_PLAIN = (RuntimeError, MemoryError)  # raised by C++ bindings; rmm raises MemoryError for device memory
_MEMORY_CLASSES = {  # package, class
    ("torch", "OutOfMemoryError"),
    ("cupy", "OutOfMemoryError"),
    ("pycuda", "MemoryError"),
    ("tensorflow", "ResourceExhaustedError"),
}
_JAX = {"jax", "jaxlib"}  # one class for all errors; the message begins with a status
_WITH_CODES = {"AcceleratorError", "CUDARuntimeError", "CUDADriverError", "CudaAPIError"}  # of torch, cupy, numba
_CODES = ("error_code", "status", "code")  # and the names of their attributes

# Compiled when a call has failed for the first time, because that takes longer than the rest of this import.


@cache
def _memory_words() -> re.Pattern[str]:
    return re.compile(
        r"\b(CUDA|HIP|XPU|MPS)\b[^\n]{0,60}\bout of memory|out of memory error on GPU"
        r"|\bcudaErrorMemoryAllocation\b|\bCUDA_ERROR_OUT_OF_MEMORY\b"
        r"|\bCU(BLAS|DNN|SPARSE|SOLVER)_STATUS_(INTERNAL_ERROR_DEVICE_)?ALLOC(ATION)?_FAILED\b|\bCUFFT_ALLOC_FAILED\b"
        r"|bfc_arena[^\n]*(Failed to allocate memory|smaller than requested)",  # onnxruntime
        re.I,
    )


@cache
def _sticky_words() -> dict[int, re.Pattern[str]]:
    return {code: _words_of(code) for code in STICKY_CODES}


def _words_of(code: int) -> re.Pattern[str]:
    """A pattern of CUDA's text for a code, after the name of an API.

    ``misaligned address`` alone could be of any library.
    """
    name, words = STICKY_CODES[code]
    runtime_name = name.replace("_", "").replace("LAUNCHFAILED", "LAUNCHFAILURE")
    speaker = r"\b(CUDA|HIP|cu[A-Z]\w+)\b"  # pycuda: the function of the driver, such as cuMemcpyDtoH
    return re.compile(
        rf"{speaker}[^\n]{{0,80}}{re.escape(words)}|\bCUDA_ERROR_{name}\b|\b(?i:cudaError{runtime_name})\b"
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the device, or of this process's CUDA context.

    Args:
        kind: ``"memory"``: not enough memory was free. ``"sticky"``: all later calls in this process fail.
        reason: The class's name and the first line of the message.
        code: CUDA's error code, if it is known.
    """

    kind: FaultKind
    reason: str
    code: int | None = None


def fault_of(error: BaseException) -> Fault | None:
    """The fault that `error`, or an exception that it was raised from or during, reports; `None` if it reports none.

    A sticky fault takes precedence over one of memory, which clean-up after a sticky fault may raise.

    Args:
        error: The exception of a user's call. No reference to it is kept.
    """
    faults = [fault for each in family_of(error) if (fault := _read(each)) is not None]
    return next((fault for fault in faults if fault.kind == "sticky"), faults[0] if faults else None)


def free_caches(error: BaseException | None = None, device: Device | None = None) -> None:
    """Release memory that frameworks have cached on the device; none is imported for this.

    Called on the thread and in the process that ran out of memory. Errors are ignored: the device may be faulty.

    Args:
        error: The out-of-memory error. The local variables of its frames, which refer to tensors, are cleared; its
            traceback keeps its lines.
        device: Whose memory it is, if that is known.
    """
    if error is not None:
        for each in family_of(error):
            clear_frames(traceback_of(each))
    gc.collect()
    if isinstance(device, SimulatedDevice) and device._memory is not None:
        device._memory.free_caches()
    with suppress(Exception):
        torch: Any = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    with suppress(Exception):
        cupy: Any = sys.modules.get("cupy")
        if cupy is not None:
            cupy.get_default_memory_pool().free_all_blocks()


def _read(error: BaseException) -> Fault | None:
    """The fault that this exception itself reports."""
    kinds = ancestors(type(error))
    packages = [module_name(kind).partition(".")[0] for kind in kinds]
    if FRAMEWORKS.isdisjoint(packages) and not any(kinds[0] is kind for kind in _PLAIN):
        return None
    classes = set(zip(packages, map(class_name, kinds), strict=True))
    text, code = text_of(error), _code(error, classes)
    sticky = code if code in STICKY_CODES else _sticky_code(text)
    if sticky is not None:
        return Fault("sticky", _first_line(error, text), sticky)
    exhausted = not _JAX.isdisjoint(packages) and text.startswith("RESOURCE_EXHAUSTED")
    if exhausted or code == _OUT_OF_MEMORY or not _MEMORY_CLASSES.isdisjoint(classes) or _memory_words().search(text):
        return Fault("memory", _first_line(error, text), code)
    return None


def _first_line(error: BaseException, text: str) -> str:
    first, _, _ = text.strip().partition("\n")
    return f"{type_name(error)}: {first}"


def _code(error: BaseException, classes: set[tuple[str, str]]) -> int | None:
    """CUDA's error code, read only from classes that have it: the `code` of other classes may mean anything."""
    if _WITH_CODES.isdisjoint(name for _, name in classes):
        return None
    codes = (attribute_of(error, name) for name in _CODES)
    return next((int.__index__(code) for code in codes if is_a(code, int) and not is_a(code, bool)), None)


def _sticky_code(text: str) -> int | None:
    return next((code for code, words in _sticky_words().items() if words.search(text)), None)
