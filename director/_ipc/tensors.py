"""Pickles tensors of torch, if the application has imported it.

torch pickles a CPU tensor as bytes in the stream. Here a large one is passed to pickle as a buffer, which goes out of
band like that of a NumPy array. A CUDA tensor is refused: it would be unpickled on another GPU than the one it names,
and would initialize CUDA in a process that may not use it.
"""

from __future__ import annotations

import io
import pickle
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_LARGE = 1 << 20  # bytes; smaller tensors are pickled by torch


def are_possible() -> bool:
    """Whether torch has been imported."""
    torch = sys.modules.get("torch")
    return torch is not None and not getattr(getattr(torch, "__spec__", None), "_initializing", False)


def dumps(base: Any, value: Any, protocol: int, is_small: Callable[[pickle.PickleBuffer], bool]) -> bytes:
    """Pickle `value` with a subclass of the pickler `base` that handles tensors."""
    stream = io.BytesIO()
    pickler: Any = _pickler(base)
    pickler(stream, protocol, buffer_callback=is_small).dump(value)
    return stream.getvalue()


@cache
def _pickler(base: Any) -> Any:
    class Pickler(base):  # type: ignore[misc]  # the base is chosen at run time
        def reducer_override(self, obj: Any) -> Any:
            torch: Any = sys.modules.get("torch")
            if torch is not None and isinstance(obj, getattr(torch, "Tensor", ())):
                reduced = _reduce(torch, obj)
                if reduced is not None:
                    return reduced
            return super().reducer_override(obj) if hasattr(base, "reducer_override") else NotImplemented

    return Pickler


def _reduce(torch: Any, tensor: Any) -> Any:
    """The reduce value of `tensor`; `None` for torch's own.

    Raises:
        PicklingError: It is on a GPU.
    """
    if tensor.is_cuda:
        raise pickle.PicklingError("a CUDA tensor can't leave its process: send tensor.cpu()")
    plain = type(tensor) is torch.Tensor and tensor.layout is torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.requires_grad or tensor.is_quantized or not tensor.is_contiguous():
        return None
    if tensor.nbytes < _LARGE or tensor.is_conj() or tensor.is_neg():
        return None
    memory = tensor.reshape(-1).view(torch.uint8).numpy()  # as bytes: numpy has no bfloat16
    return _tensor, (pickle.PickleBuffer(memory), tensor.dtype, tuple(tensor.shape))


def _tensor(buffer: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    """The tensor, in the memory of `buffer`."""
    torch = import_module("torch")
    return torch.frombuffer(buffer, dtype=dtype).reshape(shape)
