"""What `discover_devices` keeps, and what a user may write for `devices`."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from director._device import Device, cpu_devices, simulated_devices
from director._devices import discovery as _discovery
from director._devices import survey as _survey
from director._devices.discovery import discover_devices, resolve_devices
from director._devices.inventory import Inventory
from director._devices.survey import CudaUnavailable, Survey
from director.errors import DiscoveryError, NoDevices

GPUS = tuple(
    Device(n, f"{start}-0000-0000-0000-000000000000", "NVIDIA H100", "cuda", 80 * 2**30)
    for n, start in enumerate(("GPU-aaaa1111", "GPU-aabb2222", "MIG-cccc3333"))
)


class Looks:
    """Stands in for `take_survey`: finds what it is told to, and counts."""

    def __init__(self) -> None:
        self.devices: tuple[Device, ...] = GPUS
        self.failure: Exception | None = None
        self.taken = 0

    def __call__(self) -> Survey:
        self.taken += 1
        if self.failure:
            raise self.failure
        there = Inventory(absence=None if self.devices else "there is no NVIDIA driver")
        return Survey(None, None, there, CudaUnavailable("no library", installed=False), self.devices)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    looks = Looks()
    monkeypatch.setattr(_survey, "take_survey", looks)
    monkeypatch.setattr(_discovery, "_surveys", {})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    return looks


class TestDiscovery:
    def test_looks_once(self, looks: Looks) -> None:
        first = discover_devices()
        first.clear()  # the caller's own list
        assert discover_devices() == list(GPUS)
        assert looks.taken == 1

    @pytest.mark.parametrize("variable", ["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"])
    def test_looks_again_under_another_mask_or_order(
        self, looks: Looks, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        discover_devices()
        monkeypatch.setenv(variable, "")  # unlike unset
        discover_devices()
        assert looks.taken == 2
        monkeypatch.delenv(variable)
        discover_devices()
        assert looks.taken == 2

    def test_looks_again_when_asked_to(self, looks: Looks) -> None:
        discover_devices()
        looks.devices = GPUS[:1]
        assert discover_devices(refresh=True) == list(GPUS[:1])
        assert discover_devices() == list(GPUS[:1])

    def test_a_failure_is_not_kept(self, looks: Looks) -> None:
        looks.failure = DiscoveryError("the driver hangs")
        with pytest.raises(DiscoveryError, match="the driver hangs"):
            discover_devices()
        looks.failure = None
        assert discover_devices() == list(GPUS)

    def test_threads_share_one_look(self, looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
        inside, go = threading.Event(), threading.Event()

        def slow() -> Survey:
            inside.set()
            assert go.wait(10)
            return looks()

        monkeypatch.setattr(_survey, "take_survey", slow)
        found: list[list[Device]] = []
        threads = [threading.Thread(target=lambda: found.append(discover_devices())) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert inside.wait(10)
        go.set()
        for thread in threads:
            thread.join(10)
        assert found == [list(GPUS)] * 3
        assert looks.taken == 1


A, B, M = GPUS
CPU, CPUS = cpu_devices()[0], tuple(cpu_devices(4))
FAST = simulated_devices(2, speed=[1, 2])

MEANINGS: list[tuple[Any, list[str]]] = [
    (None, ["cuda:0", "cuda:1", "cuda:2"]),
    ("gpu", ["cuda:0", "cuda:1", "cuda:2"]),
    ("cuda", ["cuda:0", "cuda:1", "cuda:2"]),
    (["gpu"], ["cuda:0", "cuda:1", "cuda:2"]),
    ("cuda:1", ["cuda:1"]),
    ("1", ["cuda:1"]),
    ([2, 0], ["cuda:2", "cuda:0"]),
    ((1,), ["cuda:1"]),
    (range(2), ["cuda:0", "cuda:1"]),
    (A.uuid, ["cuda:0"]),
    ("GPU-aab", ["cuda:1"]),
    ("GPU-AAB", ["cuda:1"]),
    ("MIG-c", ["cuda:2"]),
    ([B], ["cuda:1"]),
    ([M, "cuda:1", 0], ["cuda:2", "cuda:1", "cuda:0"]),
    ("cpu", ["cpu:0"]),
    ("cpu:4", ["cpu:0", "cpu:1", "cpu:2", "cpu:3"]),
    ("simulated:2", ["simulated:0", "simulated:1"]),
    ("simulated", ["simulated:0"]),
    ([0, "cpu:2", "simulated"], ["cuda:0", "cpu:0", "cpu:1", "simulated:0"]),
    (["cpu", "cpu", "cpu:2"], ["cpu:0", "cpu:1", "cpu:2", "cpu:3"]),
    (["cpu:2", CPU], ["cpu:1", "cpu:2", "cpu:0"]),
    ([CPUS[1], "cpu:2"], ["cpu:1", "cpu:0", "cpu:2"]),
    ([*FAST, "simulated"], ["simulated:0", "simulated:1", "simulated:2"]),
]


@pytest.mark.parametrize(("spec", "labels"), MEANINGS)
def test_what_devices_may_be(looks: Looks, spec: Any, labels: list[str]) -> None:
    found = resolve_devices(spec)
    assert [device.label for device in found] == labels
    assert len({device.uuid for device in found}) == len(found)


def test_a_given_device_stays_itself(looks: Looks) -> None:
    assert resolve_devices([FAST[1], M]) == (FAST[1], M)


ERRORS: list[tuple[Any, type[Exception], str]] = [
    ([], ValueError, "devices is empty"),
    ("", ValueError, "'' names no device"),
    ("cpu:0", ValueError, "'cpu:0' names no device.*at least 1"),
    ("cpu:x", ValueError, "'cpu:x' names no device"),
    ("cpu:", ValueError, "'cpu:' names no device"),
    ("cpu:-1", ValueError, "'cpu:-1' names no device"),
    ("simulated:0", ValueError, "'simulated:0' names no device"),
    ("cuda:x", ValueError, "'cuda:x' names no device"),
    ("cuda:-1", ValueError, "'cuda:-1' names no device"),
    ("tpu", ValueError, "'tpu' names no device: say 'gpu'"),
    ("GPU-", ValueError, "'GPU-' names no device"),
    ("0,1", ValueError, "'0,1' names no device"),
    ([-1], ValueError, "at least 0 .* not -1"),
    ("GPU-aa", ValueError, r"GPU-aa is the beginning of several UUIDs: cuda:0 \(GPU-aaaa.*cuda:1 \(GPU-aabb"),
    ([0, "cuda:0"], ValueError, r"cuda:0 \(GPU-aaaa.*\) is there twice$"),
    ([B, "GPU-aabb"], ValueError, "is there twice"),
    (["gpu", 0], ValueError, "is there twice"),
    ([CPU, CPU], ValueError, "is there twice; make all of them in one call"),
    ([Device(0, "mine", "mine", "cuda"), 0], ValueError, "is there twice"),
    ([True], TypeError, "not True"),
    ([None], TypeError, "not None"),
    ([1.0], TypeError, "not 1.0"),
    (1, TypeError, "must be a string, or a list of devices.*, not 1"),
    (A, TypeError, "must be a string, or a list"),
    (b"cpu", TypeError, "not b'cpu'"),
    ({0, 1}, TypeError, "must be a string, or a list"),
    ([3], NoDevices, r"No GPU has the CUDA ordinal 3. Visible are: cuda:0 \(GPU-aaaa"),
    ("cuda:7", NoDevices, "CUDA ordinal 7"),
    ("GPU-ffff", NoDevices, "begins with GPU-ffff. Visible are"),
]


@pytest.mark.parametrize(("spec", "error", "message"), ERRORS)
def test_what_devices_may_not_be(looks: Looks, spec: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve_devices(spec)


class TestWithoutGpus:
    @pytest.fixture(autouse=True)
    def none(self, looks: Looks) -> None:
        looks.devices = ()

    def test_one_cpu_device_and_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        assert resolve_devices(None) == (CPU,)
        ((logger, level, message),) = caplog.record_tuples
        assert (logger, level) == ("director", logging.WARNING)
        assert message.startswith("No GPU is visible (there is no NVIDIA driver), so jobs run on one CPU device.")

    @pytest.mark.parametrize("spec", ["gpu", "cuda", "cuda:0", [0], "GPU-aaaa", ["cpu", "gpu"]])
    def test_gpus_that_are_asked_for_are_missed(self, spec: Any) -> None:
        with pytest.raises(NoDevices, match=r"No GPU is visible: there is no NVIDIA driver.*'cpu:4' or 'simulated:4'"):
            resolve_devices(spec)


def test_stand_ins_need_no_look(looks: Looks, caplog: pytest.LogCaptureFixture) -> None:
    resolve_devices(["cpu:2", "simulated", M])
    assert looks.taken == 0
    assert not caplog.records


def test_a_failed_look_is_no_missing_gpu(looks: Looks) -> None:
    looks.failure = DiscoveryError("driver and library differ")
    with pytest.raises(DiscoveryError, match="differ"):
        resolve_devices(None)
