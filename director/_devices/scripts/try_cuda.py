"""Run in a throw-away process by `probe`, never imported: uses the one device that CUDA shows, as a framework would.

Prints each step before it begins, so that the parent knows where it hung, and in the end the result as a line of JSON.
Nothing but the driver's library through ctypes. Arguments: the digits of the device's UUID, the id of the parent.
"""

import ctypes
import json
import os
import signal
import sys

MARK = "director-trial "  # the driver, or a preloaded library, may print lines of its own
SIZE = 2**20
PATTERN = 0xA5
_PR_SET_PDEATHSIG = 1


class _Refused(Exception):
    """A function of the driver answered with an error code."""


class _Trial:
    def __init__(self, cuda: ctypes.CDLL) -> None:
        self._cuda = cuda

    def run(self, digits: str) -> dict[str, object]:
        device = ctypes.c_int()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        uuid = (ctypes.c_ubyte * 16)()
        self._call("cuDeviceGetUuid_v2", uuid, device)
        if bytes(uuid).hex() != digits:
            return {"other": bytes(uuid).hex()}
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)  # the context that frameworks use
        self._call("cuCtxSetCurrent", context)
        return {"fine": self._remembers()}

    def _remembers(self) -> bool:
        """Whether memory that the device has filled reads back as it was filled."""
        memory, copy = ctypes.c_uint64(), (ctypes.c_ubyte * SIZE)()
        size = ctypes.c_size_t(SIZE)
        self._call("cuMemAlloc_v2", ctypes.byref(memory), size)
        self._call("cuMemsetD8_v2", memory, ctypes.c_ubyte(PATTERN), size)
        self._call("cuCtxSynchronize")
        self._call("cuMemcpyDtoH_v2", copy, memory, size)
        self._call("cuMemFree_v2", memory)
        return bytes(copy) == bytes([PATTERN]) * SIZE

    def _call(self, function: str, *args: object) -> None:
        _print_answer({"begun": function})
        code = getattr(self._cuda, function)(*args)
        if code != 0:
            raise _Refused({"function": function, "code": code, "words": self._words(code)})

    def _words(self, code: int) -> str:
        words = ctypes.c_char_p()
        self._cuda.cuGetErrorString(code, ctypes.byref(words))
        return (words.value or b"unknown error").decode(errors="replace")


def _print_answer(what: dict[str, object]) -> None:
    sys.stdout.write(f"\n{MARK}{json.dumps(what)}\n")
    sys.stdout.flush()


def _end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the parent ends: a trial may hang."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def _run_trial(digits: str) -> dict[str, object]:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"unloadable": str(error)}
    try:
        return _Trial(cuda).run(digits)
    except _Refused as error:
        return dict(error.args[0])


if __name__ == "__main__":
    _end_with_parent(int(sys.argv[2]))
    _print_answer(_run_trial(sys.argv[1]))
