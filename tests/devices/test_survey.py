"""Hardware and environment in, devices out: NVIDIA's pynvml and our probe over libraries made for the test."""

from __future__ import annotations

import ctypes.util
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.programs

GIB = 2**30
A, B, C, D = (
    f"GPU-{start}-0000-0000-0000-00000000000{n}"
    for n, start in enumerate(("aaaa1111", "aabb2222", "cc003333", "dddd4444"))  # C: a zero byte would end a C string
)
M1, M2, M3 = (f"MIG-{digit * 8}-0000-0000-0000-000000000000" for digit in "123")
SLICES = f"{M1} H100-MIG-1g.10gb {10 * GIB} 1 0;-;{M2} H100-MIG-2g.20gb {20 * GIB} 2 0"

no_driver_here = pytest.mark.skipif(
    ctypes.util.find_library("nvidia-ml") is not None, reason="this machine has a real NVIDIA driver"
)


def four(machine: Any) -> Any:
    return machine.nvml(driver="580.95.05").gpu(A).gpu(B).gpu(C).gpu(D)


def unlike(machine: Any) -> Any:
    return machine.nvml(driver="580.95.05").gpu(A, "Tesla T4", 15 * GIB).gpu(B, "NVIDIA H100")


def cut(machine: Any, driver: str = "570.86.10") -> Any:
    return machine.nvml(driver=driver).gpu(A, mig=SLICES).gpu(B)


# Where CUDA answers, its answer counts: what the mask says is the driver's affair.
ASKED: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "all": (lambda m: four(m).cuda(A, B, C, D), [A, B, C, D]),
    "none": (lambda m: four(m).cuda(), []),
    "some": (lambda m: four(m).cuda(C, A), [C, A]),
    "reversed": (lambda m: four(m).cuda(D, C, B, A), [D, C, B, A]),
    "the fastest first": (lambda m: unlike(m).cuda(B, A), [B, A]),
    "whole and slices": (lambda m: cut(m).cuda(M1, M2, B), [M1, M2, B]),
    "one slice": (lambda m: cut(m).cuda(M2), [M2]),
    "no NVML": (lambda m: m.cuda(A, B), [A, B]),
    "one unknown to NVML": (lambda m: m.nvml().gpu(A).cuda(A, B), [A, B]),
    "one lost": (lambda m: m.nvml().gpu(A).gpu(B, fail="handle=15").gpu(C).cuda(A, C), [A, C]),
    "one without permission": (lambda m: m.nvml().gpu(A).gpu(B, fail="handle=4").gpu(C).cuda(A, C), [A, C]),
    "driver not loaded": (lambda m: m.nvml(init=9).cuda(A), []),
    "the driver babbles first": (lambda m: four(m).cuda(A, say='director-cud{"devices": []}'), [A]),
}


@pytest.mark.parametrize("case", ASKED)
def test_cuda_answers(machine: Any, case: str) -> None:
    build, expected = ASKED[case]
    assert build(machine).look().uuids == expected


# Where it does not, the mask is worked out from NVML's list.
WORKED_OUT: dict[str, tuple[Callable[[Any], Any], str | None, str | None, list[str]]] = {
    "no mask": (four, None, None, [A, B, C, D]),
    "empty": (four, "", None, []),
    "indices": (four, "2,1", None, [C, B]),
    "up to the first that is out of range": (four, "1,7,0", None, [B]),
    "up to a negative one": (four, "0,2,-1,1", None, [A, C]),
    "twice the same": (four, "1,1", None, []),
    "no such": (four, "9", None, []),
    "words": (four, "NoDevFiles", None, []),
    "a UUID": (four, C, None, [C]),
    "beginnings of UUIDs": (four, "GPU-dd,GPU-cc", None, [D, C]),
    "a beginning of two": (four, "GPU-aa", None, []),
    "twice the same by its beginning": (four, "GPU-dddd,GPU-dd", None, []),
    "a UUID and an index": (four, "GPU-dddd,0", None, [D]),
    "unlike, in the order of the bus": (unlike, None, "PCI_BUS_ID", [A, B]),
    "unlike, by UUID": (unlike, "GPU-aabb,GPU-aaaa", None, [B, A]),
    "unlike, and none": (unlike, "", None, []),
    "numbered against the bus": (
        lambda m: m.nvml().gpu(A, pci="00000000:81:00.0").gpu(B, pci="00000000:18:00.0"),
        None,
        None,
        [B, A],
    ),
    "one without permission": (lambda m: m.nvml().gpu(A).gpu(B, fail="handle=4").gpu(C), "1", None, [C]),
    "one lost, by UUID": (lambda m: m.nvml().gpu(A, fail="handle=15").gpu(B), B, None, [B]),
    "slices": (cut, f"{M2},{M1}", None, [M2, M1]),
    "slices on an old driver": (lambda m: cut(m, "550.54"), f"{M2},{M1}", None, [M2]),
    "no mask, slices on an old driver": (lambda m: cut(m, "550.54"), None, None, [M1]),
    "a slice by its place": (cut, f"MIG-{A}/2/0", None, [M2]),
    "none at all": (lambda m: m.nvml(), None, None, []),
    "the toolkit's stub of CUDA": (lambda m: four(m).cuda(init=34), "3", None, [D]),
}


@no_driver_here
@pytest.mark.parametrize("case", WORKED_OUT)
def test_cuda_is_silent(machine: Any, case: str) -> None:
    build, mask, order, expected = WORKED_OUT[case]
    assert build(machine).look(mask, order).uuids == expected


# And some machines can't be listed: each with its cause, and what helps.
FAILURES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "driver and library differ": (lambda m: m.nvml(init=18), "version mismatch. (code 18). The driver was updated"),
    "unknown error at the start": (lambda m: m.nvml(init=999), "Unknown Error (code 999). In a container"),
    "unknown error at each GPU": (
        lambda m: m.nvml().gpu(A, fail="handle=999").gpu(B, fail="handle=999").cuda(),
        "Unknown Error (code 999). In a container",
    ),
    "no permission at all": (lambda m: m.nvml(init=4), "Give this process access to /dev/nvidiactl"),
    "some other error": (lambda m: m.nvml(init=20), "(code 20). See what `nvidia-smi` and `dmesg` say."),
    "CUDA: system not ready": (lambda m: four(m).cuda(init=802), "cuInit answers 802 (system not ready"),
    "CUDA: driver mismatch": (lambda m: four(m).cuda(init=803), "cuInit answers 803 (driver and library differ"),
    "CUDA: compatibility": (lambda m: four(m).cuda(init=804), "804 (this GPU can't use forward compatibility"),
    "CUDA: unknown": (lambda m: four(m).cuda(init=999), "999 (unknown error: reload the nvidia_uvm module"),
    "CUDA: some other error": (lambda m: four(m).cuda(init=201), "answers 201 (see what `nvidia-smi`"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures(machine: Any, case: str) -> None:
    build, message = FAILURES[case]
    seen = build(machine).look()
    assert seen.error.startswith("DiscoveryError: ")
    assert message in seen.error


@no_driver_here
def test_unlike_gpus_are_not_guessed_at(machine: Any) -> None:
    assert "Set CUDA_DEVICE_ORDER=PCI_BUS_ID" in unlike(machine).look("0").error


@no_driver_here
def test_no_driver(machine: Any) -> None:
    seen = machine.look()
    assert seen.uuids == []
    assert "there is no NVIDIA driver (libnvidia-ml.so.1: " in seen.absence
    assert seen.told == []


def test_the_driver_is_not_loaded(machine: Any) -> None:
    seen = machine.nvml(init=9).look()
    assert seen.absence == "the NVIDIA driver is not loaded"
    assert seen.told == []


def library(directory: Path, content: bytes) -> dict[str, str]:
    (directory / "libnvidia-ml.so.1").write_bytes(content)
    return {"LD_LIBRARY_PATH": str(directory)}


def test_an_empty_file_is_no_driver(machine: Any, tmp_path: Path) -> None:
    seen = machine.look_afresh(**library(tmp_path, b""))
    assert "there is no NVIDIA driver" in seen.absence
    assert "too short" in seen.absence


def test_a_broken_library_is_an_error(machine: Any, tmp_path: Path) -> None:
    seen = machine.look_afresh(**library(tmp_path, b"not a library" * 100))
    assert "libnvidia-ml.so.1 can't be loaded" in seen.error
    assert "invalid ELF header" in seen.error


def test_the_old_pynvml_package_is_named(machine: Any, tmp_path: Path) -> None:
    package = tmp_path / "pynvml"
    package.mkdir()
    (package / "__init__.py").write_text("def nvmlInit(): pass\n")
    seen = machine.look_afresh(PYTHONPATH=os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    assert f"old package {package} hides NVIDIA's own pynvml" in seen.error
    assert "pip uninstall pynvml" in seen.error


@pytest.mark.parametrize("source", ["raise ImportError('what it says')", "raise FutureWarning('what it says')"])
def test_a_pynvml_that_fails_to_import(machine: Any, tmp_path: Path, source: str) -> None:
    (tmp_path / "pynvml.py").write_text(source)
    seen = machine.look_afresh(PYTHONPATH=os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    assert "pynvml can't be imported (what it says)" in seen.error


def test_what_nvml_knows_goes_with_cudas_order(machine: Any) -> None:
    seen = unlike(machine).cuda(B, A).look()
    assert [(it["name"], it["total_memory"]) for it in seen.devices] == [
        ("NVIDIA H100", 80 * GIB),
        ("Tesla T4", 15 * GIB),
    ]
    assert {it["kind"] for it in seen.devices} == {"cuda"}


def test_what_nvml_does_not_know_stays_as_cuda_says(machine: Any) -> None:
    (device,) = machine.cuda(C).look().devices
    assert (device["name"], device["total_memory"]) == ("CUDA's name", 80 * GIB)


def test_slices(machine: Any) -> None:
    seen = cut(machine).cuda(M2, M1).look()
    assert [(it["name"], it["total_memory"]) for it in seen.devices] == [
        ("H100-MIG-2g.20gb", 20 * GIB),
        ("H100-MIG-1g.10gb", 10 * GIB),
    ]
    places = [(it["parent"], it["gpu_instance"], it["compute_instance"]) for it in seen.inventory["gpus"][0]["slices"]]
    assert places == [(A, 1, 0), (A, 2, 0)]


def test_a_slice_that_fails_hides_no_other(machine: Any) -> None:
    seen = machine.nvml().gpu(A, mig=f"!999;!4;{SLICES}").cuda(M1, M2).look()
    assert seen.uuids == [M1, M2]
    assert [it["uuid"] for it in seen.inventory["gpus"][0]["slices"]] == [M1, M2]
    assert seen.told == [f"WARNING: MIG slice 0 of {A} is left out: NVML answers 'Unknown Error'."]


def test_a_gpu_that_is_lost_among_its_slices_is_lost(machine: Any) -> None:
    seen = machine.nvml().gpu(A, mig=f"{SLICES};!15").gpu(B).cuda(B).look()
    assert [it["index"] for it in seen.inventory["lost"]] == [0]


@pytest.mark.parametrize("function", ["handle", "uuid", "name", "pci", "memory"])
def test_a_lost_gpu_is_told_of(machine: Any, function: str) -> None:
    seen = machine.nvml().gpu(A).gpu(B, fail=f"{function}=15").cuda(A).look()
    assert seen.inventory["lost"] == [{"index": 1, "code": 15, "reason": "GPU is lost"}]
    assert seen.told == ["WARNING: GPU 1 (NVML index) is there and can't be used: NVML answers 'GPU is lost'."]


def test_a_gpu_with_an_unknown_error_hides_no_other(machine: Any) -> None:
    seen = machine.nvml().gpu(A, fail="handle=999").gpu(B, fail="handle=77").gpu(C).cuda(C).look()
    assert seen.uuids == [C]
    assert [it["code"] for it in seen.inventory["lost"]] == [999, 77]


@pytest.mark.parametrize(
    ("memory", "fail", "expected"),
    [
        (80 * GIB, "", 80 * GIB),
        (80 * GIB, "memory=3", 80 * GIB),
        (80 * GIB, "memory=13", 80 * GIB),
        (0, "", "machine"),
        (80 * GIB, "memory=3 memory2=3", "machine"),
        (80 * GIB, "memory=3 memory2=13", "machine"),
        (80 * GIB, "memory=4", None),
    ],
)
def test_memory(machine: Any, memory: int, fail: str, expected: int | str | None) -> None:
    seen = machine.nvml().gpu(A, memory=memory, fail=fail).cuda(init=34).look()
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert seen.devices[0]["total_memory"] == (whole if expected == "machine" else expected)


def test_memory_that_nvml_may_not_tell_is_what_cuda_says(machine: Any) -> None:
    seen = machine.nvml().gpu(A, memory=70 * GIB, fail="memory=4").cuda(A).look()
    assert seen.devices[0]["total_memory"] == 80 * GIB


ABSENCES: dict[str, tuple[Callable[[Any], Any], str | None, str]] = {
    "masked": (lambda m: four(m).cuda(), "", "CUDA_VISIBLE_DEVICES='' selects none of the GPUs, of which there are 4"),
    "CUDA shows none": (lambda m: four(m).cuda(), None, "CUDA shows none of the GPUs, of which NVML lists 4"),
    "all lost": (lambda m: m.nvml().gpu(A, fail="uuid=15").cuda(), None, "GPU 0 can't be used (GPU is lost)"),
    "no permission": (lambda m: m.nvml().gpu(A, fail="uuid=4").cuda(), None, "no permission for any GPU"),
    "empty machine": (lambda m: m.nvml().cuda(), None, "the NVIDIA driver knows of no GPU"),
    "CUDA broken": (lambda m: m.nvml().cuda(mood="babble"), None, "no GPU; the process that asked CUDA gave no sense"),
}


@pytest.mark.parametrize("case", ABSENCES)
def test_why_there_is_none(machine: Any, case: str) -> None:
    build, mask, expected = ABSENCES[case]
    seen = build(machine).look(mask)
    assert seen.uuids == []
    assert expected in seen.absence


BAD_ANSWERS = {
    "crash": ({"mood": "crash"}, "gave no sense (exit code -6)"),
    "nothing": ({"mood": "babble"}, "gave no sense (exit code 0)"),
    "no JSON": ({"mood": "babble", "say": "director-cuda {"}, "gave no sense (exit code 0)"),
    "no object": ({"mood": "babble", "say": "director-cuda 7"}, "gave no sense (exit code 0)"),
    "no devices": ({"mood": "babble", "say": "director-cuda {}"}, "gave no sense (exit code 0)"),
    "no UUID": (
        {"mood": "babble", "say": 'director-cuda {"devices": [{"uuid": "ab", "name": "", "memory": 0}]}'},
        "gave no sense (exit code 0)",
    ),
    "stub": ({"init": 34}, "stub of a CUDA toolkit"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_a_bad_answer_of_cuda_is_told_of_and_the_mask_worked_out(machine: Any, case: str) -> None:
    settings, expected = BAD_ANSWERS[case]
    seen = four(machine).cuda(**settings).look("1,0")
    assert seen.uuids == [B, A]
    assert len(seen.told) == 1
    assert seen.told[0].startswith("WARNING: The order of the GPUs comes from NVML and the mask alone, for ")
    assert expected in seen.told[0]


def test_two_devices_with_one_uuid_are_no_answer(machine: Any) -> None:
    seen = four(machine).cuda(A, A).look()
    assert seen.uuids == [A, B, C, D]
    assert "gave no sense" in seen.told[0]


def test_cuda_hangs(machine: Any) -> None:
    began = time.monotonic()
    seen = four(machine).cuda(mood="hang").look_afresh("2", timeouts=0.5)
    assert seen.uuids == [C]
    assert "CUDA did not answer within 0.5 s" in seen.told[0]
    assert time.monotonic() - began < 10  # and the process did not wait for it at its end


@pytest.mark.parametrize("function", ["init", "handle"])
def test_nvml_hangs(machine: Any, function: str) -> None:
    began = time.monotonic()
    seen = machine.nvml(hang=function).gpu(A).look_afresh(timeouts=0.3)
    assert "NVML has not answered for 0.3 s: the NVIDIA driver hangs" in seen.error
    assert time.monotonic() - began < 10


def test_cuda_is_never_loaded_here(machine: Any) -> None:
    seen = four(machine).cuda(A).look()
    assert "libnvidia-ml.so.1" in seen.mapped
    assert "libcuda" not in seen.mapped


def test_nvml_is_started_once_and_again_if_somebody_stops_it(machine: Any) -> None:
    code = """
import pynvml
from director._devices import nvml as _nvml
real, starts = pynvml.nvmlInit, []
pynvml.nvmlInit = lambda: (starts.append(1), real())
_nvml.take_inventory(), _nvml.take_inventory()
assert len(starts) == 1, starts
pynvml.nvmlShutdown()
assert len(_nvml.take_inventory().gpus) == 1
"""
    done = machine.nvml().gpu(A).run([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr


# ---- bytes that are no text, as drivers 555 under WSL2 give them for the name of a GPU

BYTES = "\udcf8\udc8f NVIDIA"  # as `os.environb` has them: f8 8f


def test_a_name_that_is_no_text_has_replacement_characters(machine: Any) -> None:
    seen = machine.nvml(driver=f"555{BYTES}").gpu(A, BYTES).gpu(B, BYTES).look()
    assert seen.uuids == [A, B]
    assert {device["name"] for device in seen.devices} == {"\ufffd\ufffd NVIDIA"}


def test_a_gpu_whose_uuid_is_no_text_is_left_out_and_told(machine: Any) -> None:
    seen = machine.nvml().gpu(BYTES).gpu(B).cuda(B).look()
    assert seen.uuids == [B]
    assert any("its UUID is no text" in line for line in seen.told)
