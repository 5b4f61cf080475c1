"""Run in a short-lived process by `cuda`, never imported: lists CUDA's devices and prints them as one line of JSON.

Uses only the driver's library by ctypes: no framework is loaded and no context is made.
"""

import ctypes
import json
import sys

MARK = "director-cuda "  # the driver, or a preloaded library, may print lines of its own


class _Refused(Exception):
    """A function of the driver answered with an error code."""


def _list_devices(cuda: ctypes.CDLL) -> list[dict[str, object]]:
    count = ctypes.c_int()
    _call(cuda, "cuInit", 0)
    _call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    return [_describe(cuda, ordinal) for ordinal in range(count.value)]


def _describe(cuda: ctypes.CDLL, ordinal: int) -> dict[str, object]:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    uuid = (ctypes.c_ubyte * 16)()  # raw bytes: a zero among them would end a C string
    _call(cuda, "cuDeviceGet", ctypes.byref(device), ordinal)
    _call(cuda, "cuDeviceGetUuid_v2", uuid, device)  # v2 tells the slices of a GPU in MIG mode apart
    _call(cuda, "cuDeviceGetName", name, len(name), device)
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return {"uuid": bytes(uuid).hex(), "name": name.value.decode(errors="replace"), "memory": memory.value}


def _call(cuda: ctypes.CDLL, function: str, *args: object) -> None:
    code = getattr(cuda, function)(*args)
    if code != 0:
        raise _Refused({"function": function, "code": code})


def _ask() -> dict[str, object]:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"unloadable": str(error)}
    try:
        return {"devices": _list_devices(cuda)}
    except _Refused as error:
        return dict(error.args[0])


if __name__ == "__main__":
    sys.stdout.write(f"\n{MARK}{json.dumps(_ask())}\n")
