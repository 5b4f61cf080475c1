"""Pickles views of memory, of NumPy and of Python itself, as what they show. Imports no numpy."""

from __future__ import annotations

import pickle
import sys
from typing import Any

_LARGE = 1 << 20  # bytes; pickle copies less in no time


def reduce(value: Any) -> Any:
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
