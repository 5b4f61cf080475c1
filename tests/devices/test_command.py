"""`director devices` on machines that are made up."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.programs

GIB = 2**30
A, B, C = (f"GPU-{start}-0000-0000-0000-000000000000" for start in ("aaaa1111", "aabb2222", "cccc3333"))
M1 = "MIG-11111111-0000-0000-0000-000000000000"


def devices(machine: Any, *options: str, **env: str) -> tuple[str, str, int]:
    done = machine.run([sys.executable, "-m", "director", "devices", *options], **env)
    return done.stdout, done.stderr, done.returncode


def test_the_table(machine: Any) -> None:
    machine.nvml().gpu(A, "Tesla T4", 15 * GIB).gpu(B).gpu(C, fail="handle=15").gpu(C, fail="handle=4").cuda(B, A)
    output, messages, status = devices(machine)
    assert output.splitlines() == [
        "device  name         memory    uuid                                      nvml  pci bus id        note",
        f"cuda:0  NVIDIA H100  80.0 GiB  {B}  1     00000000:01:00.0",
        f"cuda:1  Tesla T4     15.0 GiB  {A}  0     00000000:00:00.0",
        f"-       ?            -         {'?':40}  2     ?                 unusable: GPU is lost",
        f"-       ?            -         {'?':40}  3     ?                 no permission",
    ]
    assert messages.splitlines() == ["GPU 2 (NVML index) is there and can't be used: NVML answers 'GPU is lost'."]
    assert status == 0


def test_a_mask_is_shown_with_what_it_hides(machine: Any) -> None:
    machine.nvml().gpu(A).gpu(B).cuda(B)
    output, _, _ = devices(machine, CUDA_VISIBLE_DEVICES="1", CUDA_DEVICE_ORDER="PCI_BUS_ID")
    rows = [line.split() for line in output.splitlines()]
    assert rows[1][0] == "cuda:0"
    assert rows[2][0] == "-"
    assert output.splitlines()[2].endswith("hidden by CUDA_VISIBLE_DEVICES")
    assert output.splitlines()[3:] == ["CUDA_VISIBLE_DEVICES=1", "CUDA_DEVICE_ORDER=PCI_BUS_ID"]


def test_slices_are_shown_with_their_gpu(machine: Any) -> None:
    output, _, _ = devices(machine.nvml().gpu(A, mig=f"{M1} H100-MIG-1g.10gb {10 * GIB} 1 0").cuda(M1))
    _, piece, whole = output.splitlines()
    assert piece.split() == ["cuda:0", "H100-MIG-1g.10gb", "10.0", "GiB", M1, "0:1/0", "00000000:00:00.0"]
    assert whole.startswith("-  ")
    assert whole.endswith("in MIG mode: its slices count")


def test_a_device_that_only_cuda_knows(machine: Any) -> None:
    output, _, _ = devices(machine.nvml().cuda(A))
    assert output.splitlines()[1].split() == [
        "cuda:0",
        "CUDA's",
        "name",
        "80.0",
        "GiB",
        A,
        "-",
        "-",
        "unknown",
        "to",
        "NVML",
    ]


def test_without_gpus(machine: Any) -> None:
    output, messages, status = devices(machine.nvml(init=9))
    assert output == "No GPU is visible: the NVIDIA driver is not loaded.\n"
    assert "devices='cpu:4'" in messages
    assert "devices='simulated:4'" in messages
    assert status == 0


def test_all_hidden(machine: Any) -> None:
    output, _, status = devices(machine.nvml().gpu(A).cuda(), CUDA_VISIBLE_DEVICES="")
    first, _, row, mask = output.splitlines()
    assert first == "No GPU is visible: CUDA_VISIBLE_DEVICES='' selects none of the GPUs, of which there are 1."
    assert row.endswith("hidden by CUDA_VISIBLE_DEVICES")
    assert mask == "CUDA_VISIBLE_DEVICES="
    assert status == 0


def test_a_machine_that_cannot_be_listed(machine: Any) -> None:
    output, messages, status = devices(machine.nvml(init=18))
    assert output == ""
    assert messages.startswith(
        "director devices: NVML fails: RM has detected an NVML/RM version mismatch. (code 18). The "
    )
    assert status == 1


def test_json(machine: Any) -> None:
    output, _, status = devices(machine.nvml(driver="580.95.05").gpu(A).cuda(A), "--json", CUDA_VISIBLE_DEVICES="0")
    found = json.loads(output)
    assert found["devices"] == [
        {"index": 0, "uuid": A, "name": "NVIDIA H100", "kind": "cuda", "total_memory": 80 * GIB, "node": None}
    ]
    assert found["CUDA_VISIBLE_DEVICES"] == "0"
    assert found["absence"] is None
    assert found["nvml"]["driver"] == "580.95.05"
    assert found["cuda"]["devices"][0]["digits"] == A.removeprefix("GPU-").replace("-", "")
    assert status == 0


def test_json_without_gpus(machine: Any) -> None:
    output, _, status = devices(machine.nvml(init=9), "--json")
    found = json.loads(output)
    assert found["devices"] == []
    assert found["absence"] == "the NVIDIA driver is not loaded"
    assert found["cuda"] == {"reason": "CUDA needs the driver", "installed": False}
    assert status == 0
