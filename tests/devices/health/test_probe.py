"""Probes: a real process over a libcuda that fails when it is told to, and calls of the user."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from director import Device, HealthRules
from director._device import cpu_devices, simulated_devices
from director._devices.health.probe import probe

GPU = Device(3, "GPU-00000003-0000-0000-0000-000000000000", "NVIDIA H100", "cuda")
RULES = HealthRules(probe_timeout=30)


class Cuda:
    """The stub's settings."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.set(devices=f"{3:08x}{0:024x} 1000 H100")

    def set(self, **settings: str) -> None:
        for name, value in settings.items():
            self._patch.setenv(f"STUB_CUDA_{name.upper()}", value)


@pytest.fixture
def cuda(built: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Cuda:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(built["cuda"].parent))
    return Cuda(monkeypatch)


def test_a_gpu_that_is_well(cuda: Cuda) -> None:
    assert probe(GPU, RULES) is None


def test_the_process_sees_nothing_but_the_gpu(
    monkeypatch: pytest.MonkeyPatch, cuda: Cuda, built: dict[str, Path], tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    shell = tmp_path / "python"
    shell.write_text(f'#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES" >> {seen}\nexec {sys.executable} "$@"\n')
    shell.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shell))
    assert probe(GPU, RULES) is None
    assert seen.read_text() == f"{GPU.uuid}\n"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"init": "100"}, "cuInit answers 100 (some error)"),
        ({"init": "999"}, "cuInit answers 999 (unknown error)"),
        ({"devices": "f" * 32 + " 1000 H100"}, f"CUDA shows another device under its UUID ({'f' * 32})"),
        ({"fail": "cuDevicePrimaryCtxRetain=46"}, "cuDevicePrimaryCtxRetain answers 46 (some error)"),
        ({"fail": "cuCtxSynchronize=719"}, "cuCtxSynchronize answers 719 (some error)"),
        ({"fail": "cuMemcpyDtoH_v2=214"}, "cuMemcpyDtoH_v2 answers 214 (some error)"),
        ({"forgets": "1"}, "its memory does not hold what is written to it"),
        ({"mood": "babble", "say": "hello"}, "the process that tried it out ended in cuInit (exit code 0)"),
    ],
)
def test_a_gpu_that_is_not(cuda: Cuda, settings: dict[str, str], reason: str) -> None:
    cuda.set(**settings)
    assert probe(GPU, RULES) == reason


def test_a_gpu_that_kills_whoever_uses_it(cuda: Cuda) -> None:
    cuda.set(fail="cuMemsetD8_v2=-2")
    reason = f"the process that tried it out ended in cuMemsetD8_v2 (exit code {-signal.SIGABRT})"
    assert probe(GPU, RULES) == reason


@pytest.mark.parametrize("function", ["cuDevicePrimaryCtxRetain", "cuMemAlloc_v2"])
def test_a_gpu_that_is_full_answers(cuda: Cuda, function: str) -> None:
    cuda.set(fail=f"{function}=2")
    assert probe(GPU, RULES) is None


def test_a_gpu_that_hangs(cuda: Cuda) -> None:
    cuda.set(fail="cuCtxSynchronize=-1")
    assert probe(GPU, HealthRules(probe_timeout=3)) == "cuCtxSynchronize did not come back within 3 s"


def test_a_process_that_does_not_even_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shell = tmp_path / "python"
    shell.write_text("#!/bin/sh\nexec sleep 60\n")
    shell.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shell))
    assert (
        probe(GPU, HealthRules(probe_timeout=0.05)) == "the process that tried it out did not come back within 0.05 s"
    )


def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    wrong = probe(GPU, RULES)
    assert wrong is not None
    assert wrong.startswith("no process could be started to try it out ([Errno 2]")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    wrong = probe(GPU, RULES)
    assert wrong is not None
    assert wrong.startswith("CUDA's library can't be loaded (")


PARENT = """
from director import Device, HealthRules
from director._devices.health.probe import probe
probe(Device(3, "GPU-00000003-0000-0000-0000-000000000000", "NVIDIA H100", "cuda"), HealthRules())
"""


def children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def is_alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_trial_that_hangs_dies_with_its_parent(cuda: Cuda, tmp_path: Path) -> None:
    cuda.set(fail="cuCtxSynchronize=-1", say="begun")
    env = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], env=env)
    try:
        while not (trials := children(parent.pid)) or b"libcuda" not in Path(f"/proc/{trials[0]}/maps").read_bytes():
            time.sleep(0.01)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    while is_alive(trials[0]):
        time.sleep(0.01)


# ---- what the user asks


@pytest.mark.parametrize("device", [cpu_devices()[0], simulated_devices(1)[0]])
def test_nothing_is_wrong_with_a_stand_in(device: Device) -> None:
    assert probe(device, RULES) is None


@pytest.mark.parametrize("wrong", [None, "it is not plugged in"])
@pytest.mark.parametrize("device", [cpu_devices()[0], GPU])
def test_the_user_knows_better(device: Device, wrong: str | None) -> None:
    asked: list[Device] = []

    def ask(device: Device) -> str | None:
        asked.append(device)
        return wrong

    assert probe(device, HealthRules(probe=ask)) == wrong
    assert asked == [device]


def test_a_probe_of_the_user_that_raises() -> None:
    def refuse(device: Device) -> None:
        raise ConnectionError(f"{device.name} is not plugged in")

    wrong = probe(cpu_devices()[0], HealthRules(probe=refuse))
    assert wrong == "its probe raised ConnectionError: cpu:0 is not plugged in"


def test_a_probe_of_the_user_that_hangs() -> None:
    go = threading.Event()

    def hang(_: Device) -> None:
        go.wait(30)

    wrong = probe(cpu_devices()[0], HealthRules(probe=hang, probe_timeout=0.05))
    go.set()
    assert wrong == "its probe did not come back within 0.05 s"
