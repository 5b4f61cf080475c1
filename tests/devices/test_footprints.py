"""What a load takes, by torch's allocator and by the free memory that NVML tells."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from director import Device
from director._devices import footprints
from director._devices.footprints import Allocation, LoadMeter, LoadSize, allocation, load_size

GPU = Device(1, "GPU-1", "card", "cuda", 1000)


class Torch:
    """As much of torch as is asked."""

    def __init__(self) -> None:
        self.is_initialized, self.allocated, self.most, self.reserved = False, 0, 0, 0
        self.cuda = SimpleNamespace(
            is_initialized=lambda: self.is_initialized,
            memory_stats=self._stats,
            max_memory_allocated=lambda ordinal: self.most if ordinal == 1 else 0,
            reset_peak_memory_stats=self._reset,
        )

    def allocate(self, size: int, reserved: int = 0) -> None:
        self.is_initialized = True
        self.allocated += size
        self.most = max(self.most, self.allocated)
        self.reserved = max(self.reserved, reserved, self.allocated)

    def _stats(self, ordinal: int) -> dict[str, int]:
        assert ordinal == 1, "the thread's current device may be another one"
        return {"allocated_bytes.all.current": self.allocated, "reserved_bytes.all.current": self.reserved}

    def _reset(self, ordinal: int) -> None:
        assert ordinal == 1
        self.most = self.allocated


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Torch:
    torch = Torch()
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    return torch


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What NVML tells, one after the other."""
    answers: list[int] = []
    monkeypatch.setattr(footprints, "read_free", lambda _device: (answers.pop(0), 1000))
    return answers


def test_torch_tells_what_is_allocated_and_not_what_its_pool_has(torch: Torch, free: list[int]) -> None:
    torch.allocate(100)
    free += [800, 500]
    meter = LoadMeter(GPU)
    torch.allocate(250, reserved=390)
    torch.allocated -= 50
    assert meter.size() == LoadSize(200, 250, 390, 300, 800)


def test_a_peak_of_before_is_none_of_this_load(torch: Torch, free: list[int]) -> None:
    torch.allocate(700)
    torch.allocated = 100
    free += [800, 600]
    meter = LoadMeter(GPU)
    torch.allocate(200)
    assert meter.size() == LoadSize(200, 200, 700, 200, 800)


def test_the_first_use_of_a_device_tells_the_context_too(torch: Torch, free: list[int]) -> None:
    free += [900, 200]
    meter = LoadMeter(GPU)
    torch.allocate(200, reserved=220)
    size = meter.size()
    assert size == LoadSize(200, 200, 220, 700, 900, is_first=True)
    assert size is not None
    assert size.context == 480


def test_what_torch_has_not_allocated_is_told_by_free_memory(torch: Torch, free: list[int]) -> None:
    torch.allocate(100)
    free += [800, 500]
    assert LoadMeter(GPU).size() == LoadSize(taken=300, free=800)


def test_without_torch_and_nvml_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprints, "read_free", lambda _device: None)
    assert allocation(GPU) is None
    assert LoadMeter(GPU).size() is None


def test_a_torch_that_raises_is_no_torch(torch: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_ordinal: int) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    torch.allocate(100)
    assert allocation(GPU) == Allocation(100, 100, 100)
    monkeypatch.setattr(torch.cuda, "memory_stats", fail)
    assert allocation(GPU) is None


def test_what_another_process_tells_is_joined_with_what_is_free_here() -> None:
    told = tuple(LoadSize(200, 250, 300, is_first=True))
    assert load_size(told, 900, 500) == LoadSize(200, 250, 300, 400, 900, is_first=True)
    assert load_size(told, None, None) == LoadSize(200, 250, 300, is_first=True)
    assert load_size(None, 900, 500) == LoadSize(taken=400, free=900)
    assert load_size(None, 900, None) is None


def test_cpu_devices_have_no_memory_of_their_own() -> None:
    cpu = Device(0, "CPU-0", "cpu:0", "cpu")
    assert (allocation(cpu), footprints.read_free(cpu), footprints.is_metered(cpu)) == (None, None, False)
