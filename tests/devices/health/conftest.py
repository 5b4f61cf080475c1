"""NVIDIA's own pynvml over a driver without hardware, loaded into the process of the tests."""

from __future__ import annotations

import ctypes
import queue
import time
from typing import TYPE_CHECKING

import pynvml
import pytest
from harness.stubs import built

from director import Device, HealthRules
from director._devices import nvml as _nvml
from director._devices.health.nvml_watch import NvmlWatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from director._devices.health.diagnosis import Verdict

__all__ = ["built"]  # a fixture

GIB = 2**30
XID = 0x8
RECOVERY_ACTION = 0x8000
WHOLE_GPU = 0xFFFFFFFF
OFTEN = HealthRules(interval=0.02)
CHANGEABLE = ("FAIL", "FREE", "FIELDS")  # while threads of the driver read the environment, no name may be added to it


def uuid(number: int) -> str:
    return f"GPU-{number:08x}-0000-0000-0000-000000000000"


def gpu(number: int) -> Device:
    return Device(number, uuid(number), "NVIDIA H100", "cuda", 80 * GIB)


class Driver:
    """NVML with GPUs that a test can break."""

    def __init__(self, patch: pytest.MonkeyPatch, library: ctypes.CDLL) -> None:
        self._patch = patch
        self._library = library
        self._gpus = 0
        patch.setenv("STUB_NVML_INIT", "")
        patch.setenv("STUB_NVML_WAIT", "")

    def gpus(self, count: int, **settings: object) -> list[Device]:
        """Put in GPUs; settings as in nvml.c."""
        numbers = range(self._gpus, self._gpus + count)
        for number in numbers:
            for name in CHANGEABLE:
                self._patch.setenv(f"STUB_GPU{number}_{name}", "")
            self.set(number, uuid=uuid(number), name="NVIDIA H100", memory=80 * GIB, **settings)
        self._gpus += count
        self._patch.setenv("STUB_GPUS", str(self._gpus))
        return [gpu(number) for number in numbers]

    def set(self, number: int, **settings: object) -> None:
        for name, value in settings.items():
            self._patch.setenv(f"STUB_GPU{number}_{name.upper()}", str(value))

    def answer(self, function: str, code: int) -> None:
        """Make `init` or `wait` answer with a code."""
        self._patch.setenv(f"STUB_NVML_{function.upper()}", str(code))

    def xid(self, number: int, xid: int, instances: tuple[int, int] = (WHOLE_GPU, WHOLE_GPU)) -> int:
        """Report an error of a GPU; how many listen to it."""
        return self.event(number, XID, xid, instances)

    def event(self, number: int, kind: int, value: int = 0, instances: tuple[int, int] = (WHOLE_GPU, WHOLE_GPU)) -> int:
        kind64, value64 = ctypes.c_uint64(kind), ctypes.c_uint64(value)
        return int(self._library.stub_event(number, kind64, value64, *map(ctypes.c_uint, instances)))

    def forget(self, number: int) -> None:
        """What a reset does to a GPU: nobody listens to it any more."""
        self._library.stub_forget(number)


@pytest.fixture
def driver(built: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    library = ctypes.CDLL(str(built["nvml"]))
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(_nvml, "_started", False)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    yield Driver(monkeypatch, library)
    while library.nvmlShutdown() == 0:
        pass
    pynvml._nvmlGetFunctionPointer_cache.clear()


class Ward:
    """A watch, and what it has told."""

    def __init__(self, devices: list[Device], rules: HealthRules, patience: float) -> None:
        self._told: queue.SimpleQueue[Verdict] = queue.SimpleQueue()
        self.watch = NvmlWatch(devices, self._told.put, rules, answer_timeout=patience)
        self.watch.start()

    def next(self) -> tuple[str, str, str]:
        verdict = self._told.get(timeout=20)
        return verdict.uuid, verdict.kind, verdict.reason

    @property
    def is_quiet(self) -> bool:
        return self._told.empty()

    def wait_for_checkups(self, device: Device, count: int = 2) -> None:
        """Until `device` has been read so many times from now on."""
        seen: set[float] = set()
        while len(seen) <= count:
            checkup = self.watch.checkups.get(device.uuid)
            seen.add(checkup.begun if checkup else 0.0)
            time.sleep(0.002)

    def stop(self) -> None:
        self.watch.stop()
        assert self.watch.join(10)


class Wards:
    """Starts watches, and ends them with the test."""

    def __init__(self) -> None:
        self._open: list[Ward] = []

    def watch(self, devices: list[Device], rules: HealthRules = OFTEN, patience: float = 10.0) -> Ward:
        ward = Ward(devices, rules, patience)
        self._open.append(ward)
        return ward

    def close(self) -> None:
        for ward in self._open:
            ward.stop()


@pytest.fixture
def wards(driver: Driver) -> Iterator[Wards]:
    """For tests that watch; the driver outlives the watches."""
    wards = Wards()
    yield wards
    wards.close()
