"""What `director doctor` makes of facts: each finding from a system, an environment or packages that are made up."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from director._devices.inventory import Gpu, Inventory
from director._devices.readings import Reading
from director._devices.survey import CudaDevice, CudaUnavailable, Survey
from director.cli import main
from director.cli._doctor import checks, gpus, system
from director.cli._doctor.system import System, gather
from director.errors import DiscoveryError
from director.testing import simulated_devices

if TYPE_CHECKING:
    from director.cli._doctor.checks import Finding

GIB = 2**30
DOCS = Path(__file__).parents[2] / "docs"
GOOD = System(cpus=16, open_files=65536, memory=256 * GIB, shared_memory=64 * GIB)
TWO = simulated_devices(2, memory=80 * GIB)


def levels(findings: list[Finding]) -> dict[str, str]:
    return {each.code: each.level for each in findings}


# ---- versions


@pytest.mark.parametrize(
    ("packages", "gpu_count", "expected"),
    [
        ({}, 0, {"package-missing": "wrong", "without-rich": "note", "without-uvicorn": "note"}),
        ({"pynvml": "11.5.3"}, 0, {"pynvml-hides": "wrong"}),
        ({"pynvml": "13.0.1"}, 0, {"pynvml-warns": "note"}),
        ({"torch": "2.15.0+cpu"}, 2, {"torch-without-cuda": "wrong"}),
        ({"torch": "2.15.0+cpu"}, 0, {}),
        ({"torch": "2.15.0"}, 2, {}),
    ],
)
def test_versions(packages: dict[str, str], gpu_count: int, expected: dict[str, str]) -> None:
    whole = {"anyio": "4", "nvidia-ml-py": "13", "rich": "13", "uvicorn": "0.30"} if packages else {}
    assert levels(list(checks.examine_versions(whole | packages, gpu_count))) == {"versions": "ok"} | expected


def test_what_is_installed_is_found() -> None:
    assert {"anyio", "nvidia-ml-py"} <= checks.installed().keys()


# ---- environment


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {}),
        ({"CUDA_LAUNCH_BLOCKING": "1"}, {"launch-blocking": "note"}),
        ({"CUDA_LAUNCH_BLOCKING": "0"}, {}),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, {"container-without-gpus": "wrong"}),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, {}),
        ({"NVIDIA_DRIVER_CAPABILITIES": "utility"}, {"container-without-cuda": "wrong"}),
        ({"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}, {}),
        ({"LD_LIBRARY_PATH": "/usr/lib:/usr/local/cuda/lib64/stubs"}, {"stub-library": "wrong"}),
        ({"WEB_CONCURRENCY": "4"}, {"many-workers": "note"}),
        ({"WEB_CONCURRENCY": "1"}, {}),
    ],
)
def test_environment(variables: dict[str, str], expected: dict[str, str]) -> None:
    assert levels(list(checks.examine_environment(variables, True))) == {"environment": "ok"} | expected


@pytest.mark.parametrize(("text", "is_told"), [("8", True), ("8,2", True), ("4", False), ("many", False), ("", False)])
def test_more_threads_than_cpus(text: str, is_told: bool) -> None:
    found = levels(list(checks.examine_environment({"OMP_NUM_THREADS": text}, True, 4.0)))
    assert found == {"environment": "ok"} | ({"many-threads": "note"} if is_told else {})


def test_far_from_gpus_what_hides_them_is_no_matter() -> None:
    variables = {"NVIDIA_VISIBLE_DEVICES": "void", "NVIDIA_DRIVER_CAPABILITIES": "utility"}
    assert levels(list(checks.examine_environment(variables, False))) == {"environment": "ok"}


def test_a_variable_of_any_length_takes_a_few_lines() -> None:
    most, long = 100_000, "7" * 100_000
    names = ["CUDA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "LD_PRELOAD", "WEB_CONCURRENCY"]
    found = list(checks.examine_environment({**dict.fromkeys(names, long), "LD_LIBRARY_PATH": f"/{long}/stubs"}, True))
    found += gpus._mask(a_survey(devices=a_survey().devices[:1], mask=long))
    found += gpus._mask(a_survey(mask=f"{long},{long},{long}"))
    found += gpus.examine_gpus(a_survey(devices=(), mask=long), (), GOOD)
    assert {"environment", "stub-library", "many-workers", "mask-hides", "mask-wrong"} <= {each.code for each in found}
    assert all(len(f"{each.text}{each.remedy}") < 3_000 for each in found)
    assert f"CUDA_VISIBLE_DEVICES={long[:400]}… ({most:,} characters), " in found[0].text


# ---- limits


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, {}),
        ({"threads_left": 30, "threads_limit": "pids.max, 100"}, {"few-threads": "wrong"}),
        ({"threads_left": 5000}, {}),
        ({"open_files": 256}, {"few-files": "wrong"}),
        ({"open_files": None}, {}),
        ({"address_space": 64 * GIB}, {"little-address-space": "wrong"}),
        ({"cpus": 0.5}, {"few-cpus": "note"}),
        ({"memory": 16 * GIB}, {"little-memory": "note"}),
        ({"shared_memory": 64 * 2**20}, {"little-shared-memory": "note"}),
    ],
)
def test_limits(facts: dict[str, object], expected: dict[str, str]) -> None:
    found = list(checks.examine_limits(replace(GOOD, **facts), TWO))  # type: ignore[arg-type]
    assert levels(found) == {"limits": "ok"} | expected
    assert all(each.remedy for each in found if each.level != "ok")


def test_without_gpus_their_needs_are_no_matter() -> None:
    facts = replace(GOOD, address_space=GIB, cpus=0.5, memory=GIB)
    assert levels(list(checks.examine_limits(facts, []))) == {"limits": "ok"}


# ---- GPUs


def a_survey(count: int = 2, **changes: object) -> Survey:
    found = tuple(Gpu(n, f"GPU-{n}", "H100", f"0{n}:00", 80 * GIB) for n in range(count))
    cuda = tuple(CudaDevice(f"{n:032x}", "H100", 80 * GIB) for n in range(count))
    devices = tuple(replace(device, uuid=f"GPU-{n}") for n, device in enumerate(TWO[:count]))
    whole = Survey(None, None, Inventory(found, driver="580.1"), cuda, devices)
    return replace(whole, **changes)  # type: ignore[arg-type]


NOTHING = a_survey(
    0, inventory=Inventory(absence="there is no driver"), devices=(), cuda=CudaUnavailable("no driver", False)
)


@pytest.mark.parametrize(
    ("survey", "facts", "expected"),
    [
        (a_survey(), GOOD, {"devices": "ok"}),
        (NOTHING, GOOD, {"no-gpu": "note"}),
        (NOTHING, replace(GOOD, gpus_on_bus=("01:00",)), {"no-driver": "wrong"}),
        (a_survey(devices=a_survey().devices[:1], mask="0"), GOOD, {"devices": "ok", "mask-hides": "note"}),
        (a_survey(devices=a_survey().devices[:1], mask="0,9"), GOOD, {"devices": "ok", "mask-wrong": "wrong"}),
        (a_survey(mask="0,1"), GOOD, {"devices": "ok"}),
        (a_survey(cuda=CudaUnavailable("it hangs", True)), GOOD, {"devices": "ok", "cuda-silent": "wrong"}),
        (
            a_survey(),
            replace(GOOD, device_files={"/dev/nvidiactl": True, "/dev/nvidia0": False, "/dev/nvidia-modeset": False}),
            {"devices": "ok", "device-file": "wrong", "no-uvm": "wrong"},
        ),
        (
            a_survey(),
            replace(GOOD, device_files={"/dev/nvidiactl": True, "/dev/nvidia0": True, "/dev/nvidia-uvm": True}),
            {"devices": "ok"},
        ),
    ],
)
def test_gpus(survey: Survey, facts: System, expected: dict[str, str]) -> None:
    assert levels(list(gpus.examine_gpus(survey, (), facts))) == expected


def test_in_a_container_another_remedy_helps() -> None:
    facts = replace(GOOD, gpus_on_bus=("01:00",))
    (outside,) = gpus.examine_gpus(NOTHING, (), facts)
    (inside,) = gpus.examine_gpus(NOTHING, (), replace(facts, in_container=True))
    assert "modprobe" in (outside.remedy or "")
    assert "--gpus all" in (inside.remedy or "")


def test_a_gpu_that_can_not_be_read() -> None:
    found = list(gpus.examine_gpus(a_survey(1), (Reading("GPU-0", error="NVML hangs"),), GOOD))
    assert levels(found) == {"devices": "ok", "unreadable": "wrong"}


def test_gpus_that_can_not_be_listed() -> None:
    found = list(gpus.undiscovered(DiscoveryError("NVML fails"), GOOD))
    assert levels(found) == {"discovery": "wrong"}


# ---- the system


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_system_that_is_made_up(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/kubepods/pod1\n")
    write(tmp_path, "sys/fs/cgroup/kubepods/pod1/pids.max", "120\n")
    write(tmp_path, "sys/fs/cgroup/kubepods/pod1/pids.current", "20\n")
    write(tmp_path, "sys/fs/cgroup/kubepods/pids.max", "max\n")
    write(tmp_path, "sys/fs/cgroup/kubepods/pod1/memory.max", "max\n")
    write(tmp_path, "sys/fs/cgroup/kubepods/memory.max", str(4 * GIB))
    write(tmp_path, "sys/fs/cgroup/kubepods/pod1/cpu.max", "50000 100000\n")
    write(tmp_path, "proc/meminfo", "MemTotal:       16777216 kB\n")
    write(tmp_path, "proc/loadavg", "0.1 0.2 0.3 2/500 999\n")
    write(tmp_path, "proc/sys/kernel/threads-max", "100000\n")
    write(tmp_path, "proc/7/status", f"Name:\tx\nUid:\t{os.getuid()}\t0\t0\t0\nThreads:\t7\n")
    for name, vendor, kind in (("0000:01:00.0", "0x10de", "0x030200"), ("0000:02:00.0", "0x8086", "0x030000")):
        write(tmp_path, f"sys/bus/pci/devices/{name}/vendor", f"{vendor}\n")
        write(tmp_path, f"sys/bus/pci/devices/{name}/class", f"{kind}\n")
    write(tmp_path, "dev/nvidia0", "")
    write(tmp_path, "dev/shm/x", "")
    write(tmp_path, "run/.containerenv", "")
    found = gather(tmp_path)
    assert (found.cpus, found.memory, found.in_container) == (0.5, 4 * GIB, True)
    assert (found.threads_left, found.threads_limit) == (100, "the control group's pids.max, 120")
    assert found.gpus_on_bus == ("0000:01:00.0",)
    assert found.device_files == {"/dev/nvidia0": True}
    assert found.shared_memory


def test_an_empty_system(tmp_path: Path) -> None:
    found = gather(tmp_path)
    assert (found.memory, found.shared_memory, found.gpus_on_bus, found.device_files) == (None, None, (), {})
    assert found.cpus >= 1


def test_threads_of_this_user_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "proc/7/status", f"Uid:\t{os.getuid()}\t0\nThreads:\t7\n")
    write(tmp_path, "proc/8/status", f"Uid:\t{os.getuid() + 1}\t0\nThreads:\t50\n")
    assert system._own_threads(tmp_path) == 7


# ---- apps


def test_sockets_left_by_dead_apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "7.sock"))
    monkeypatch.setattr(checks, "known_paths", lambda: [tmp_path / "7.sock"])
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert levels(list(checks.examine_apps())) == {"apps": "ok", "stale-socket": "note"}


def test_a_folder_that_others_could_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "director").mkdir()
    (tmp_path / "director").chmod(0o777)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(checks, "known_paths", list)
    assert levels(list(checks.examine_apps())) == {"apps": "ok", "socket-folder": "wrong"}


# ---- the whole


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor"])
    shown = capsys.readouterr().out
    assert re.search(r"^  ok +director .*, Python 3", shown, re.M)
    assert (status == 0) == ("nothing looks wrong" in shown)


def test_every_finding_is_in_the_documentation() -> None:
    sources = [Path(module.__file__ or "").read_text() for module in (checks, gpus)]
    codes = {code for source in sources for code in re.findall(r'"([a-z-]+)",\s*"(?:note|wrong)"', source)} - {"ok"}
    codes |= {f"without-{package}" for package in checks._EXTRAS} | {"none-visible"}
    assert len(codes) > 25
    page = (DOCS / "how-to" / "doctor.md").read_text()
    told = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.M))
    assert told == codes
