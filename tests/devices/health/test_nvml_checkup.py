"""A checkup: what NVML says of one device, and what this machine's driver can't say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pynvml
import pytest

from director._devices.health.nvml_checkup import NvmlCheckup

if TYPE_CHECKING:
    from conftest import Driver

    from director._devices.health.diagnosis import Checkup

GIB = 2**30
SLICES = "MIG-a H100-1g.10gb 1000 1 0;MIG-b H100-1g.10gb 2000 2 0"


def read(gauge: NvmlCheckup) -> Checkup:
    checkup = gauge.read()
    assert checkup is not None
    return checkup


def test_a_healthy_gpu(driver: Driver) -> None:
    (gpu,) = driver.gpus(1, free=30 * GIB, fields="230=0 144=0 145=0")
    checkup = read(NvmlCheckup(gpu.uuid))
    assert (checkup.uuid, checkup.condition, checkup.reason) == (gpu.uuid, "fine", "")
    assert (checkup.total_memory, checkup.free_memory) == (80 * GIB, 30 * GIB)


@pytest.mark.parametrize(("code", "why"), [(15, "is lost"), (16, "needs a reset"), (9, "not loaded"), (18, "updated")])
@pytest.mark.parametrize("function", ["handle", "memory", "fields"])
def test_codes_of_a_lost_gpu(driver: Driver, function: str, code: int, why: str) -> None:
    (gpu,) = driver.gpus(1, fail=f"{function}={code}")
    checkup = read(NvmlCheckup(gpu.uuid))
    assert checkup.condition == "lost"
    assert why in checkup.reason


def test_a_field_may_tell_of_the_loss(driver: Driver) -> None:
    (gpu,) = driver.gpus(1, fields="230=!15")
    assert read(NvmlCheckup(gpu.uuid)).condition == "lost"


def test_the_unknown_error_says_little_by_itself(driver: Driver) -> None:
    (gpu,) = driver.gpus(1, fail="memory=999")
    checkup = read(NvmlCheckup(gpu.uuid))
    assert (checkup.condition, checkup.reason) == ("doubtful", "NVML answers Unknown Error (code 999)")


def test_any_other_error_is_worth_a_look(driver: Driver) -> None:
    (gpu,) = driver.gpus(1, fail="memory=11")
    assert read(NvmlCheckup(gpu.uuid)).condition == "degraded"


@pytest.mark.parametrize(
    ("action", "condition", "reason"),
    [
        (0, "fine", ""),
        (1, "lost", "needs a reset"),
        (2, "lost", "reboot"),
        (3, "degraded", "peer-to-peer"),
        (4, "lost", "drained and reset"),
        (5, "degraded", "IMEX"),
        (6, "lost", "bus"),
        (7, "lost", "reboot"),
        (8, "degraded", "not known here (8)"),
    ],
)
def test_the_recovery_that_the_driver_asks_for(driver: Driver, action: int, condition: str, reason: str) -> None:
    (gpu,) = driver.gpus(1, fields=f"230={action}")
    checkup = read(NvmlCheckup(gpu.uuid))
    assert checkup.condition == condition
    assert reason in checkup.reason
    assert checkup.total_memory == 80 * GIB


def test_worn_memory_makes_a_gpu_degraded(driver: Driver) -> None:
    (gpu,) = driver.gpus(1, fields="230=3 144=1 145=1")
    checkup = read(NvmlCheckup(gpu.uuid))
    assert checkup.condition == "degraded"
    assert [word in checkup.reason for word in ("wait for a reset", "could not be remapped", "peer-to-peer")] == [
        True
    ] * 3


def test_what_is_not_supported_is_never_asked_again(driver: Driver) -> None:
    (gpu,) = driver.gpus(1, fail="memory=3", fields="144=0")
    gauge = NvmlCheckup(gpu.uuid)
    checkup = read(gauge)
    assert (checkup.condition, checkup.total_memory, checkup.free_memory) == ("fine", None, None)
    driver.set(0, fail="memory=15", fields="144=0 230=1")
    assert read(gauge).condition == "fine"


def test_no_fields_at_all(driver: Driver) -> None:
    (gpu,) = driver.gpus(1, fail="fields=13")
    gauge = NvmlCheckup(gpu.uuid)
    assert read(gauge).condition == "fine"
    driver.set(0, fail="fields=15")
    assert read(gauge).condition == "fine"


def test_memory_that_is_the_machines(driver: Driver) -> None:
    (gpu,) = driver.gpus(1)
    driver.set(0, memory=0)
    checkup = read(NvmlCheckup(gpu.uuid))
    assert (checkup.condition, checkup.total_memory, checkup.free_memory) == ("fine", None, None)


@pytest.mark.parametrize("code", [3, 4, 6])
def test_a_gpu_that_nvml_never_knew_is_not_watched(driver: Driver, code: int) -> None:
    (gpu,) = driver.gpus(1, fail=f"handle={code}")
    assert NvmlCheckup(gpu.uuid).read() is None
    assert NvmlCheckup("GPU-of-somebody-else").read() is None


def test_a_gpu_that_nvml_knows_no_more_is_lost(driver: Driver) -> None:
    (gpu,) = driver.gpus(1)
    gauge = NvmlCheckup(gpu.uuid)
    assert read(gauge).condition == "fine"
    driver.set(0, fail="memory=15")
    assert read(gauge).condition == "lost"
    driver.set(0, fail="handle=6")
    assert read(gauge).condition == "lost"


def test_after_a_failure_the_handle_is_a_new_one(driver: Driver) -> None:
    (gpu,) = driver.gpus(1)
    gauge = NvmlCheckup(gpu.uuid)
    read(gauge)
    driver.set(0, fail="handle=15")
    assert read(gauge).condition == "fine"  # the handle is kept
    driver.set(0, fail="memory=15")
    assert read(gauge).condition == "lost"
    driver.set(0, fail="handle=15")
    assert read(gauge).condition == "lost"
    driver.set(0, fail="")
    assert read(gauge).condition == "fine"


def test_somebody_else_shuts_nvml_down(driver: Driver) -> None:
    (gpu,) = driver.gpus(1)
    gauge = NvmlCheckup(gpu.uuid)
    read(gauge)
    pynvml.nvmlShutdown()
    assert read(gauge).condition == "fine"


def test_it_is_shut_down_for_good(driver: Driver) -> None:
    (gpu,) = driver.gpus(1)
    gauge = NvmlCheckup(gpu.uuid)
    read(gauge)
    pynvml.nvmlShutdown()
    driver.answer("init", 18)
    checkup = read(gauge)
    assert (checkup.condition, checkup.reason) == (
        "lost",
        "the NVIDIA driver was updated under the running kernel module",
    )


def test_a_slice_has_memory_of_its_own_and_the_condition_of_its_gpu(driver: Driver) -> None:
    driver.gpus(1, mig=SLICES, fields="230=1")
    checkup = read(NvmlCheckup("MIG-b"))
    assert (checkup.condition, checkup.total_memory) == ("lost", 2000)


@pytest.mark.parametrize("code", [9, 18])
def test_without_a_driver_nothing_is_watched(driver: Driver, code: int) -> None:
    (gpu,) = driver.gpus(1)
    driver.answer("init", code)
    assert NvmlCheckup(gpu.uuid).read() is None
