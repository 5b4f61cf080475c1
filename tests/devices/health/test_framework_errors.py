"""Exceptions of frameworks, most of them made up here after the real ones, and what they say of a device."""

from __future__ import annotations

import gc
import sys
import weakref
from types import ModuleType
from typing import Any

import pytest

from director._devices.device_errors import STICKY_CODES, Fault, fault_of, free_caches


def made(module: str, name: str, *bases: type) -> Any:
    """A class as a framework has it."""
    return type(name, bases or (RuntimeError,), {"__module__": module})


def with_code(kind: Any, text: str, **codes: object) -> BaseException:
    error: BaseException = kind(text)
    vars(error).update(codes)
    return error


TORCH_OOM = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1 GiB is free."
)
ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"
CupyError = made("cupy_backends.cuda.api.runtime", "CUDARuntimeError")
TorchError = made("torch", "AcceleratorError")
XlaError = made("jaxlib.xla_extension", "XlaRuntimeError")
OrtError = made("onnxruntime.capi.onnxruntime_pybind11_state", "RuntimeException", Exception)
NumbaError = made("numba.cuda.cudadrv.driver", "CudaAPIError", made("numba.cuda.cudadrv.error", "CudaDriverError"))
PycudaLogic = made("pycuda._driver", "LogicError", made("pycuda._driver", "Error", Exception))

MEMORY = {
    "torch": made("torch", "OutOfMemoryError")(TORCH_OOM),
    "torch before 2.5": made("torch.cuda", "OutOfMemoryError")(TORCH_OOM),
    "a subclass of torch's": made("mine", "Mine", made("torch", "OutOfMemoryError"))("too large"),
    "torch, a runtime call": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"),
    "torch with a code": with_code(TorchError, "CUDA error: out of memory", error_code=2),
    "torch on a Mac": RuntimeError("MPS backend out of memory (MPS allocated: 9 GB, max allowed: 9.07 GB)"),
    "torch on AMD": RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuDNN 9": RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    "cupy": made("cupy.cuda.memory", "OutOfMemoryError", MemoryError)("Out of memory allocating 1,024 bytes"),
    "cupy, the runtime": with_code(CupyError, "cudaErrorMemoryAllocation: out of memory", status=2),
    "jax": XlaError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1073741824 bytes."),
    "jax of 2025": made("jax.errors", "JaxRuntimeError")("RESOURCE_EXHAUSTED: Out of memory while trying to"),
    "tensorflow": made("tensorflow.python.framework.errors_impl", "ResourceExhaustedError", Exception)("OOM when"),
    "onnxruntime": OrtError(
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node.\n"
        "/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) "
        "Failed to allocate memory for requested buffer of size 1024\n"
    ),
    "pycuda": made("pycuda._driver", "MemoryError", Exception)("cuMemAlloc failed: out of memory"),
    "numba": with_code(NumbaError, "[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY", code=2),
    "rmm": MemoryError(
        "std::bad_alloc: out_of_memory: CUDA error at: cuda.hpp:62: cudaErrorMemoryAllocation out of memory"
    ),
    "triton": RuntimeError("Triton Error [CUDA]: out of memory"),
    "ctranslate2": RuntimeError("CUDA failed with error out of memory"),
}

STICKY = {
    "torch": (RuntimeError(ILLEGAL), 700),
    "torch with a code": (with_code(TorchError, "CUDA error: something new", error_code=716), 716),
    "torch, an assertion": (with_code(TorchError, "CUDA error: device-side assert triggered", error_code=710), 710),
    "torch on AMD": (RuntimeError("HIP error: an illegal memory access was encountered"), 700),
    "cupy": (with_code(CupyError, "cudaErrorIllegalAddress: an illegal memory access", status=700), 700),
    "cupy without a code": (CupyError("cudaErrorLaunchFailure: unspecified launch failure"), 719),
    "pycuda": (PycudaLogic("cuMemcpyDtoH failed: an illegal memory access was encountered"), 700),
    "pycuda, a launch": (
        made("pycuda._driver", "LaunchError")("cuCtxSynchronize failed: unspecified launch failure"),
        719,
    ),
    "jax": (XlaError("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"), 700),
    "onnxruntime": (OrtError("CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=x"), 700),
    "numba": (with_code(NumbaError, "[700] Call to cuMemcpyDtoH results in UNKNOWN_CUDA_ERROR", code=700), 700),
    "triton": (RuntimeError("Triton Error [CUDA]: misaligned address"), 716),
    "the driver's name": (RuntimeError("CUDA_ERROR_LAUNCH_FAILED"), 719),
}

NOTHING = {
    "an error of the user": ValueError("CUDA out of memory"),
    "the host's memory": MemoryError("Unable to allocate 8.00 GiB for an array with shape (1,) and data type float64"),
    "no words": MemoryError(),
    "redis": made("redis.exceptions", "OutOfMemoryError", Exception)(
        "command not allowed when used memory > 'maxmemory'"
    ),
    "psycopg": made("psycopg.errors", "OutOfMemory", Exception)("out of memory"),
    "a class of the user": made("mine", "OutOfMemoryError")("too large"),
    "a code of the user": with_code(made("mine", "AcceleratorError", Exception), "CUDA error", error_code=700),
    "a code that isn't CUDA's": with_code(made("torch.hub", "HubError", Exception), "no", code=700),
    "a flag for a code": with_code(TorchError, "CUDA error: invalid argument", error_code=True),
    "not sticky": with_code(TorchError, "CUDA error: invalid configuration argument", error_code=9),
    "somebody else's misalignment": RuntimeError("custom allocator: misaligned address"),
    "the host's memory in torch": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate"
    ),
    "another exhausted resource": RuntimeError("RESOURCE_EXHAUSTED: quota of the day"),
    "shared memory of a block": made("triton.runtime.errors", "OutOfResources", Exception)(
        "out of resource: shared memory"
    ),
    "keyboard": KeyboardInterrupt(),
}


@pytest.mark.parametrize("error", MEMORY.values(), ids=MEMORY)
def test_memory(error: BaseException) -> None:
    fault = fault_of(error)
    assert fault is not None
    assert fault.kind == "memory"


@pytest.mark.parametrize(("error", "code"), STICKY.values(), ids=STICKY)
def test_sticky(error: BaseException, code: int) -> None:
    fault = fault_of(error)
    assert fault is not None
    assert (fault.kind, fault.code) == ("sticky", code)


@pytest.mark.parametrize("error", NOTHING.values(), ids=NOTHING)
def test_nothing(error: BaseException) -> None:
    assert fault_of(error) is None


@pytest.mark.parametrize("code", STICKY_CODES)
def test_each_sticky_code_by_number_name_and_words(code: int) -> None:
    name, words = STICKY_CODES[code]
    runtime_name = {719: "cudaErrorLaunchFailure"}.get(code, "cudaError" + name.title().replace("_", ""))
    for error in (
        with_code(TorchError, "CUDA error", error_code=code),
        RuntimeError(f"CUDA error: {words}"),
        RuntimeError(f"it failed with CUDA_ERROR_{name}"),
        RuntimeError(f"{runtime_name} in line 7"),
    ):
        assert fault_of(error) == Fault("sticky", f"{type(error).__name__}: {error}", code)


def test_the_reason_is_one_line() -> None:
    fault = fault_of(RuntimeError(ILLEGAL))
    assert fault is not None
    assert fault.reason == "RuntimeError: CUDA error: an illegal memory access was encountered"


def raised(
    error: BaseException, cause: BaseException | None = None, during: BaseException | None = None
) -> BaseException:
    """`error`, raised from one and while another was dealt with."""
    try:
        try:
            if during is not None:
                raise during
        finally:
            if cause is None:
                raise error
            raise error from cause
    except BaseException as caught:
        return caught


def test_what_it_was_raised_from_counts() -> None:
    own = ValueError("inference failed")
    assert fault_of(raised(own, cause=RuntimeError(ILLEGAL))) is not None
    assert fault_of(raised(own, during=RuntimeError(ILLEGAL))) is not None
    assert fault_of(raised(ValueError("as before"), cause=own)) is not None


def test_what_was_dealt_with_does_not() -> None:
    error = raised(ValueError("no"), during=RuntimeError(ILLEGAL))
    error.__suppress_context__ = True  # raise ... from None
    assert fault_of(error) is None
    assert fault_of(raised(ValueError("no"), cause=KeyError(), during=RuntimeError(ILLEGAL))) is None


def test_groups_are_looked_into() -> None:
    group = ExceptionGroup("several", [ValueError(), ExceptionGroup("more", [RuntimeError(ILLEGAL)])])
    assert fault_of(group) is not None
    assert fault_of(ExceptionGroup("several", [ValueError()])) is None


def test_sticky_outweighs_memory() -> None:
    error = raised(made("torch", "OutOfMemoryError")(TORCH_OOM), during=RuntimeError(ILLEGAL))
    fault = fault_of(error)
    assert fault is not None
    assert fault.kind == "sticky"


def test_a_chain_that_bites_its_tail_ends() -> None:
    one, two = ValueError(), ValueError()
    one.__cause__, two.__cause__ = two, one
    assert fault_of(one) is None


def test_a_class_that_fails_at_its_text() -> None:
    class Mute(made("torch", "AcceleratorError")):  # type: ignore[misc]
        def __str__(self) -> str:
            raise RuntimeError

    assert fault_of(Mute()) is None


# ---- caches


class Framework(ModuleType):
    """torch and cupy, as far as is needed."""

    def __init__(self, name: str, in_use: bool = True) -> None:
        super().__init__(name)
        self.emptied = 0
        self.cuda = self
        self._in_use = in_use

    def is_initialized(self) -> bool:
        return self._in_use

    def empty_cache(self) -> None:
        self.emptied += 1

    def get_default_memory_pool(self) -> Framework:
        return self

    free_all_blocks = empty_cache


def test_what_is_imported_lets_go_of_its_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    torch, cupy = Framework("torch"), Framework("cupy")
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    free_caches()
    assert (torch.emptied, cupy.emptied) == (1, 1)


def test_cuda_is_not_started_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Framework("torch", in_use=False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    free_caches()
    assert torch.emptied == 0


def test_nothing_is_imported_and_no_failure_gets_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))  # one that is being imported has nothing yet
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    free_caches()
    assert "cupy" not in sys.modules


def test_what_the_frames_of_the_error_held_is_let_go_of() -> None:
    class Tensor:
        pass

    seen: list[weakref.ref[Tensor]] = []

    def infer() -> None:
        tensor = Tensor()
        seen.append(weakref.ref(tensor))
        raise RuntimeError(TORCH_OOM)

    try:
        infer()
    except RuntimeError as caught:
        error = caught
    gc.collect()
    assert seen[0]() is not None
    free_caches(error)
    assert seen[0]() is None
    lines = error.__traceback__
    assert lines is not None
    assert lines.tb_next is not None
