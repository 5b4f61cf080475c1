"""Finds the CUDA device of a thread or a value without any framework: by the driver, and by DLPack's protocol."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ON_CUDA = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
_LOOKED_AT = 16  # members of a container that are checked: a batch is mostly on one device


class Driver:
    """The CUDA driver's library in this process.

    Args:
        library: The loaded library; `None` where there is none, as on a machine without GPUs.
    """

    def __init__(self, library: Any | None) -> None:
        self._library = library

    @classmethod
    def load(cls) -> Driver:
        """The driver of this machine. Loading it initialises nothing and makes no context."""
        try:
            return cls(ctypes.CDLL("libcuda.so.1"))
        except OSError:
            return cls(None)

    def current(self) -> int | None:
        """The ordinal of the device whose context is current on the calling thread; `None` if there is no context."""
        if self._library is None:
            return None
        device = ctypes.c_int()
        return device.value if self._library.cuCtxGetDevice(ctypes.byref(device)) == 0 else None

    def context(self) -> int | None:
        """The context that is current on the calling thread; `None` if there is none."""
        if self._library is None:
            return None
        context = ctypes.c_void_p()
        return context.value if self._library.cuCtxGetCurrent(ctypes.byref(context)) == 0 else None

    def restore(self, context: int) -> None:
        """Make a context current on the calling thread again."""
        assert self._library is not None
        self._library.cuCtxSetCurrent(ctypes.c_void_p(context))


def devices_of(value: Any) -> Iterator[int]:
    """The CUDA ordinals of the devices that `value`, or members of it, are on."""
    if isinstance(value, (list, tuple)):
        members = value[:_LOOKED_AT]
    elif isinstance(value, dict):
        members = [member for _, member in zip(range(_LOOKED_AT), list(value.values()), strict=False)]
    else:
        members = [value]
    for member in members:
        device = _device_of(member)
        if device is not None:
            yield device


def _device_of(value: Any) -> int | None:
    kind = type(value)
    ask = _ASKERS.get(kind)
    if ask is None:
        ask = _ASKERS[kind] = _device_reader(kind)
    return ask(value)


def _device_reader(kind: type) -> Callable[[Any], int | None]:
    """The function that finds the device of values of this type."""
    if hasattr(kind, "__dlpack_device__"):
        return _by_dlpack
    torch = sys.modules.get("torch")
    module = getattr(getattr(torch, "nn", None), "Module", None)
    if isinstance(module, type) and issubclass(kind, module):
        return _by_parameters
    return _no_device


def _by_dlpack(value: Any) -> int | None:
    try:
        kind, ordinal = value.__dlpack_device__()
        return int(ordinal) if int(kind) in _ON_CUDA else None
    except Exception:  # noqa: BLE001 -- a tensor without storage, or an object that only looks like one
        return None


def _by_parameters(value: Any) -> int | None:
    try:
        first = next(value.parameters(), None)
    except Exception:  # noqa: BLE001 -- a module that is being built
        return None
    return None if first is None else _device_of(first)


def _no_device(_value: Any) -> None:
    return None


_ASKERS: dict[type, Callable[[Any], int | None]] = {}
