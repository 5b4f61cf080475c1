"""`director doctor` on machines that are made up: what it says of them, and its exit status."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.programs

GIB = 2**30
A, B = (f"GPU-{start}-0000-0000-0000-000000000000" for start in ("aaaa1111", "aabb2222"))


def doctor(machine: Any, **env: str) -> tuple[dict[str, dict[str, Any]], int]:
    """The findings by their codes, and the exit status."""
    done = machine.run([sys.executable, "-m", "director", "doctor", "--json"], **env)
    assert done.stderr.count("Traceback") == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] is (done.returncode == 1)
    return {each["code"]: each for each in found["findings"]}, done.returncode


def test_two_gpus_that_are_well(machine: Any) -> None:
    found, status = doctor(machine.nvml(driver="580.95.05").gpu(A).gpu(B).cuda(B, A))
    assert status == 0
    assert found["devices"]["text"].splitlines() == [
        "2 GPUs for a Director, driver 580.95.05",
        f"cuda:0: NVIDIA H100, 80.0 GiB, {B}, NVML's number 1",
        f"cuda:1: NVIDIA H100, 80.0 GiB, {A}, NVML's number 0",
    ]


def test_as_text(machine: Any) -> None:
    done = (
        machine.nvml().gpu(A).gpu(B).cuda(A).run([sys.executable, "-m", "director", "doctor"], CUDA_VISIBLE_DEVICES="0")
    )
    parts = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert parts[:5] == ["versions", "devices", "environment", "limits", "apps"]
    assert "  note   CUDA_VISIBLE_DEVICES='0' leaves 1 of 2 devices visible\n" in done.stdout
    assert parts[5].startswith("nothing looks wrong, ")


def test_a_driver_that_can_not_be_used(machine: Any) -> None:
    found, status = doctor(machine.nvml(init=18))
    assert status == 1
    assert "reboot" in found["discovery"]["text"]


def test_a_lost_gpu_beside_a_good_one(machine: Any) -> None:
    found, status = doctor(machine.nvml().gpu(A).gpu(B, fail="handle=15").cuda(A))
    assert status == 1
    assert found["lost-gpu"]["text"] == "the GPU with NVML's number 1 is there and can't be used: GPU is lost"
    assert "dmesg" in found["lost-gpu"]["remedy"]


def test_a_mask_with_an_entry_that_means_nothing(machine: Any) -> None:
    found, status = doctor(machine.nvml().gpu(A).gpu(B).cuda(A), CUDA_VISIBLE_DEVICES="0,7,1")
    assert status == 1
    assert "names 3 devices and 1 are visible" in found["mask-wrong"]["text"]


def test_a_mask_that_hides_all_on_purpose(machine: Any) -> None:
    found, status = doctor(machine.nvml().gpu(A).cuda(), CUDA_VISIBLE_DEVICES="")
    assert (status, found["none-visible"]["level"]) == (0, "note")


def test_nvml_without_cuda(machine: Any) -> None:
    found, status = doctor(machine.nvml().gpu(A))
    assert status == 1
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in found["cuda-silent"]["remedy"]


def test_what_the_readings_say(machine: Any) -> None:
    machine.nvml().gpu(A, free=20 * GIB, compute_mode=2).gpu(B, compute_mode=3).cuda(A, B)
    found, status = doctor(machine)
    assert status == 1
    assert found["compute-prohibited"]["text"].startswith("cuda:0 ")
    assert found["compute-exclusive"]["text"].startswith("cuda:1 ")
    assert found["memory-taken"]["text"] == "cuda:0: 60.0 of 80.0 GiB are in use already"


def test_gpus_unlike_each_other(machine: Any) -> None:
    machine.nvml().gpu(A, "Tesla T4", 15 * GIB).gpu(B).cuda(B, A)
    assert "order-differs" in doctor(machine)[0]
    assert "order-differs" not in doctor(machine, CUDA_DEVICE_ORDER="PCI_BUS_ID")[0]


def test_a_gpu_cut_into_nothing(machine: Any) -> None:
    found, status = doctor(machine.nvml().gpu(A, mig="").gpu(B).cuda(B))
    assert status == 1
    assert found["mig-without-slices"]["text"].startswith("GPU 0 ")
