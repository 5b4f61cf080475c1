"""Pickles tensors of torch, if the application has imported it, and views of memory as what they show.

torch pickles a CPU tensor as bytes in the stream, with all of its storage, of which it may show a row. Here a large one
is passed to pickle as a buffer, which goes out of band like that of a NumPy array, and of any one only what it shows is
sent. A CUDA tensor is refused: it would be unpickled on another GPU than the one it names,
and would initialize CUDA in a process that may not use it. Pickling imports neither torch nor NumPy.
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
            else:
                reduced = _reduce_view(obj)
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
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        return None
    plain = type(tensor) is torch.Tensor and not tensor.is_quantized and not tensor.is_conj() and not tensor.is_neg()
    if plain and tensor.nbytes >= _LARGE and tensor.is_contiguous() and not tensor.requires_grad:
        memory = tensor.reshape(-1).view(torch.uint8).numpy()  # as bytes: numpy has no bfloat16
        return _with_state((_tensor, (pickle.PickleBuffer(memory), tensor.dtype, tuple(tensor.shape))), tensor)
    storage = getattr(tensor, "untyped_storage", None)
    if storage is None or tensor.__dict__.get("_backward_hooks") or isinstance(tensor, torch.nn.Parameter):
        return None
    size = storage().nbytes()
    if size > tensor.nbytes:
        tensor = _compact(tensor)  # or torch would send all that is in its storage
        if tensor is None:
            return None
        size = tensor.untyped_storage().nbytes()
        if tensor.nbytes < _LARGE:
            return tensor.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    if not plain or size != tensor.nbytes or size < _LARGE or tensor.storage_offset():
        return None
    memory = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy()
    layout = tuple(tensor.shape), tensor.stride(), tensor.requires_grad
    return _with_state((_strided, (pickle.PickleBuffer(memory), tensor.dtype, *layout)), tensor)


def _compact(tensor: Any) -> Any:
    """A copy of what a tensor shows, with its attributes; `None` if its class makes something else of that."""
    copy = tensor.detach().clone()  # keeps the order of its dimensions in memory, and releases the GIL
    if type(copy) is not type(tensor):
        return None
    copy.__dict__.update(tensor.__dict__)
    return copy.requires_grad_() if tensor.requires_grad else copy


def _with_state(reduced: tuple[Any, ...], tensor: Any) -> tuple[Any, ...]:
    """With the attributes that the user has set on the tensor."""
    state = getattr(tensor, "__dict__", None)
    is_real = hasattr(tensor, "untyped_storage")
    return (*reduced, dict(state)) if state and is_real else reduced


def _tensor(buffer: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    """The tensor, in the memory of `buffer`."""
    torch = import_module("torch")
    return torch.frombuffer(buffer, dtype=dtype).reshape(shape)


def _strided(buffer: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], requires_grad: bool) -> Any:
    """The same for one whose dimensions are in another order in memory."""
    torch = import_module("torch")
    tensor = torch.frombuffer(buffer, dtype=dtype).as_strided(shape, strides)
    return tensor.requires_grad_() if requires_grad else tensor


def _reduce_view(value: Any) -> Any:
    """The reduce value of a `memoryview`, or of a large array that is not contiguous; `None` for the usual one.

    Raises:
        PicklingError: It is a `memoryview` of a format that can't be made of bytes.
    """
    if type(value) is memoryview:
        return _reduce_memoryview(value)
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or type(value) is not getattr(numpy, "ndarray", None):
        return None
    if value.flags.forc or value.nbytes < _LARGE or value.dtype.hasobject:
        return None
    # pickle would copy it piece by piece into its stream, holding the GIL. NumPy releases it while it copies.
    return numpy.ascontiguousarray(value).__reduce_ex__(pickle.HIGHEST_PROTOCOL)


def _reduce_memoryview(view: memoryview) -> Any:
    content: Any = view
    if not view.c_contiguous:
        content = view.tobytes() if view.readonly else bytearray(view.tobytes())
    shape = view.shape or ()
    try:
        _memoryview(bytes(view.nbytes) if view.nbytes < _LARGE else content, view.format, shape)
    except (TypeError, ValueError) as error:
        raise pickle.PicklingError(
            f"a memoryview of format {view.format!r} and shape {shape} can't be sent ({error}): send its array, "
            "or its bytes"
        ) from error
    return _memoryview, (pickle.PickleBuffer(content), view.format, shape)


def _memoryview(content: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    view = memoryview(content)
    if view.format != "B" or view.ndim != 1:
        view = view.cast("B")
    if len(shape) == 1:
        return view if form == "B" else view.cast(form)  # type: ignore[call-overload]
    return view.cast(form, shape)  # type: ignore[call-overload, no-any-return]
