"""The watch over a real pynvml and a driver that breaks when it is told to."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pynvml
import pytest

from director import Device, HealthRules
from director._device import cpu_devices
from director._devices.health.diagnosis import Xid
from director._devices.health.nvml_checkup import NvmlCheckup
from director._devices.health.nvml_events import DeviceChanged, NvmlEvents
from director._devices.health.nvml_watch import NvmlWatch

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Driver, Ward, Wards

    from director._devices.health.diagnosis import Verdict

SELDOM = HealthRules(interval=3600)
RECOVERY_ACTION = 0x8000
SLICES = "MIG-a H100-1g.10gb 1000 1 0;MIG-b H100-1g.10gb 2000 2 0"


def wait_for_listener(driver: Driver, number: int = 0, listeners: int = 1) -> None:
    """Until the events of a GPU are heard. (An XID that means nothing is used to find out.)"""
    while driver.xid(number, 13) < listeners:
        time.sleep(0.002)


def slices(*uuids: str) -> list[Device]:
    return [Device(index, uuid, "NVIDIA H100 MIG 1g.10gb", "cuda") for index, uuid in enumerate(uuids)]


def test_healthy_devices_are_read_and_nothing_is_told(driver: Driver, wards: Wards) -> None:
    gpus = driver.gpus(2, free=7)
    ward = wards.watch(gpus)
    for gpu in gpus:
        ward.wait_for_checkups(gpu)
        assert ward.watch.checkups[gpu.uuid].free_memory == 7
    assert ward.is_quiet


def test_a_gpu_is_lost_and_comes_back(driver: Driver, wards: Wards) -> None:
    gpus = driver.gpus(2)
    ward = wards.watch(gpus)
    driver.set(1, fail="memory=15")
    assert ward.next() == (gpus[1].uuid, "lost", "the GPU is lost: it has fallen off the bus, or can't be reached")
    driver.set(1, fail="")
    assert ward.next() == (gpus[1].uuid, "fine", "")
    ward.wait_for_checkups(gpus[0])
    assert ward.is_quiet


def test_an_error_without_meaning_is_asked_about_again_soon(driver: Driver, wards: Wards) -> None:
    (gpu,) = driver.gpus(1, fail="memory=999")
    ward = wards.watch([gpu], SELDOM)
    assert ward.next() == (gpu.uuid, "lost", "NVML answers Unknown Error (code 999), 3 times in a row")


def test_a_fatal_xid_is_told_at_once(driver: Driver, wards: Wards) -> None:
    gpus = driver.gpus(2)
    ward = wards.watch(gpus, SELDOM)
    wait_for_listener(driver, 1)
    driver.xid(1, 31)
    driver.xid(1, 79)
    assert ward.next() == (gpus[1].uuid, "lost", "XID 79 (the GPU has fallen off the bus)")


def test_a_gpu_that_is_not_ours_is_not_heard(driver: Driver, wards: Wards) -> None:
    _, ours, _ = driver.gpus(3)
    ward = wards.watch([ours], SELDOM)
    wait_for_listener(driver, 1)
    assert driver.xid(0, 79) == 0
    driver.xid(1, 48)
    assert ward.next()[:2] == (ours.uuid, "lost")
    assert ward.is_quiet


def test_an_event_is_a_reason_to_read(driver: Driver, wards: Wards) -> None:
    (gpu,) = driver.gpus(1, fields="230=0")
    ward = wards.watch([gpu], SELDOM)
    wait_for_listener(driver)
    ward.wait_for_checkups(gpu, 1)
    driver.set(0, fields="230=1")
    driver.event(0, RECOVERY_ACTION, 1)
    assert ward.next() == (gpu.uuid, "lost", "the GPU needs a reset")


def test_xids_of_slices(driver: Driver, wards: Wards) -> None:
    driver.gpus(1, mig=SLICES)
    ward = wards.watch(slices("MIG-a", "MIG-b"), SELDOM)
    wait_for_listener(driver)
    driver.xid(0, 48, (2, 0))
    assert ward.next()[0] == "MIG-b"
    driver.xid(0, 48)
    assert {ward.next()[0], ward.next()[0]} == {"MIG-a", "MIG-b"}
    assert ward.is_quiet


def test_a_call_that_hangs_while_others_answer(driver: Driver, wards: Wards) -> None:
    gpus = driver.gpus(2)
    ward = wards.watch(gpus, patience=0.5)
    driver.set(0, fail="memory=-1")
    told = [ward.next()]
    while told[-1][1] != "lost":
        told.append(ward.next())
    assert {uuid for uuid, _, _ in told} == {gpus[0].uuid}
    assert told[-1][2] == "unresponsive: NVML answers for other devices, and not for it"
    ward.wait_for_checkups(gpus[1])
    driver.set(0, fail="")
    assert ward.next() == (gpus[0].uuid, "fine", "")


def test_the_others_are_asked_soon_when_one_hangs(driver: Driver, wards: Wards) -> None:
    gpus = driver.gpus(2)
    driver.set(0, fail="memory=-1")
    ward = wards.watch(gpus, SELDOM, patience=0.5)
    assert ward.next()[:2] == (gpus[0].uuid, "degraded")
    assert ward.next()[:2] == (gpus[0].uuid, "lost")
    driver.set(0, fail="")
    assert ward.next()[:2] == (gpus[0].uuid, "fine")


def test_a_driver_that_hangs_for_all(driver: Driver, wards: Wards) -> None:
    gpus = driver.gpus(2)
    for number in range(2):
        driver.set(number, fail="memory=-1")
    ward = wards.watch(gpus, SELDOM, patience=0.05)
    assert {ward.next()[:2], ward.next()[:2]} == {(gpu.uuid, "degraded") for gpu in gpus}
    for number in range(2):
        driver.set(number, fail="")
    assert {ward.next(), ward.next()} == {(gpu.uuid, "fine", "") for gpu in gpus}


def test_the_only_gpu_hangs(driver: Driver, wards: Wards) -> None:
    (gpu,) = driver.gpus(1, fail="memory=-1")
    ward = wards.watch([gpu], patience=0.05)
    assert ward.next() == (gpu.uuid, "lost", "unresponsive: NVML does not answer")
    checkups = [thread for thread in threading.enumerate() if thread.name == "director-checkup"]
    time.sleep(0.1)  # several intervals, in which it must not be asked again
    assert [thread for thread in threading.enumerate() if thread.name == "director-checkup"] == checkups
    driver.set(0, fail="")
    assert ward.next() == (gpu.uuid, "fine", "")


def test_a_hang_does_not_keep_the_watch_from_its_end(driver: Driver) -> None:
    (gpu,) = driver.gpus(1, fail="memory=-1")
    watch = NvmlWatch([gpu], lambda _: None, SELDOM)
    watch.start()
    watch.stop()
    assert watch.join(20)
    driver.set(0, fail="")


def test_nothing_is_told_after_the_end(driver: Driver) -> None:
    (gpu,) = driver.gpus(1)
    told: list[Verdict] = []
    watch = NvmlWatch([gpu], told.append, HealthRules(interval=0.01))
    watch.start()
    wait_for_listener(driver)
    watch.stop()
    driver.xid(0, 79)
    driver.set(0, fail="memory=15")
    assert watch.join(10)
    assert told == []


def test_who_is_told_ends_the_watch(driver: Driver) -> None:
    told: list[Verdict] = []

    def leave(verdict: Verdict) -> None:
        told.append(verdict)
        watch.stop()

    gpus = driver.gpus(2, fail="memory=-1")
    watch = NvmlWatch(gpus, leave, SELDOM, answer_timeout=0.05)
    watch.start()
    assert watch.join(10)
    assert len(told) == 1  # both were silent at one moment
    for number in range(2):
        driver.set(number, fail="")


def test_the_end_at_the_moment_when_the_listener_begins(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unlucky(threading.Event):
        def clear(self) -> None:
            listener.stop()
            super().clear()

    (gpu,) = driver.gpus(1)
    listener = NvmlEvents([gpu.uuid], lambda _: None)
    monkeypatch.setattr(listener, "_wakeup", Unlucky())
    listener.start()
    assert listener.join(10)


def test_a_gpu_that_is_back_is_listened_to_again(driver: Driver, wards: Wards) -> None:
    (gpu,) = driver.gpus(1)
    ward = wards.watch([gpu])
    wait_for_listener(driver)
    driver.set(0, fail="memory=16")
    assert ward.next()[1] == "lost"
    driver.forget(0)
    assert driver.xid(0, 79) == 0
    driver.set(0, fail="")
    assert ward.next()[1] == "fine"
    wait_for_listener(driver)
    driver.xid(0, 79)
    assert ward.next()[:2] == (gpu.uuid, "lost")


def test_a_gpu_that_was_lost_from_the_start_is_listened_to_when_it_is_back(driver: Driver, wards: Wards) -> None:
    (gpu,) = driver.gpus(1, fail="handle=15")
    ward = wards.watch([gpu])
    assert ward.next()[1] == "lost"
    assert driver.xid(0, 79) == 0
    driver.set(0, fail="")
    assert ward.next()[1] == "fine"
    while ward.is_quiet:
        driver.xid(0, 79)
        time.sleep(0.01)
    assert ward.next()[2].startswith("XID 79")


def test_what_is_heard_while_it_begins_anew_is_not_lost(driver: Driver) -> None:
    heard: queue.SimpleQueue[Xid | DeviceChanged] = queue.SimpleQueue()
    go = threading.Event()

    def post(what: Xid | DeviceChanged) -> None:
        heard.put(what)
        go.wait(20)

    (gpu,) = driver.gpus(1)
    listener = NvmlEvents([gpu.uuid], post)
    listener.start()
    wait_for_listener(driver)
    assert heard.get(timeout=20) == Xid(gpu.uuid, 13)
    driver.xid(0, 79)
    listener.renew()
    go.set()
    assert {heard.get(timeout=20) for _ in range(3)} >= {Xid(gpu.uuid, 79)}
    listener.stop()
    assert listener.join(10)


def test_somebody_else_shuts_nvml_down(driver: Driver, wards: Wards) -> None:
    (gpu,) = driver.gpus(1)
    ward = wards.watch([gpu])
    wait_for_listener(driver)
    ward.wait_for_checkups(gpu)
    pynvml.nvmlShutdown()
    time.sleep(0.3)  # more than a slice: the wait is over, and has failed or begun anew
    while ward.is_quiet:
        driver.xid(0, 79)
        time.sleep(0.01)
    assert ward.next()[2].startswith("XID 79")


def test_a_gpu_without_events_is_still_read(driver: Driver, wards: Wards) -> None:
    (gpu,) = driver.gpus(1, fail="events=3")
    ward = wards.watch([gpu])
    ward.wait_for_checkups(gpu)
    driver.set(0, fail="memory=15")
    assert ward.next()[1] == "lost"
    while any(thread.name == "director:xids" for thread in threading.enumerate()):
        time.sleep(0.002)


@pytest.mark.serial
def test_a_wait_that_fails_at_once_is_no_hot_loop(driver: Driver, wards: Wards) -> None:
    (gpu,) = driver.gpus(1)
    driver.answer("wait", 15)
    ward = wards.watch([gpu])
    ward.wait_for_checkups(gpu, 5)
    began = time.thread_time()
    used = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - used - (time.thread_time() - began) < 0.15
    driver.answer("wait", 0)
    wait_for_listener(driver)
    while ward.is_quiet:  # the wait that follows a failure, for one second, may still go on
        driver.xid(0, 79)
        time.sleep(0.01)
    assert ward.next()[2].startswith("XID 79")


def test_without_a_driver_the_watch_ends_by_itself(driver: Driver, wards: Wards) -> None:
    gpus = driver.gpus(2)
    driver.answer("init", 9)
    ward = wards.watch(gpus)
    assert ward.watch.join(10)
    assert ward.is_quiet


@pytest.mark.parametrize("interval", [None, 10.0])
def test_nothing_to_watch(interval: float | None) -> None:
    before = threading.active_count()
    watch = NvmlWatch(cpu_devices(2), lambda _: None, HealthRules(interval=interval))
    watch.start()
    assert threading.active_count() == before
    watch.stop()
    assert watch.join()


def test_watching_can_be_turned_off(driver: Driver) -> None:
    before = threading.active_count()
    watch = NvmlWatch(driver.gpus(1), lambda _: None, HealthRules(interval=None))
    watch.start()
    assert threading.active_count() == before
    watch.stop()


def test_who_is_told_fails(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    (gpu,) = driver.gpus(1, fail="memory=15")

    def refuse(_: Verdict) -> None:
        raise RuntimeError("Event loop is closed")

    watch = NvmlWatch([gpu], refuse, HealthRules(interval=0.01))
    watch.start()
    assert watch.join(10)
    assert "they are watched no more" in caplog.text


def test_our_own_bug_is_no_device_that_does_not_answer(
    driver: Driver, wards: Wards, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus = driver.gpus(1)
    monkeypatch.setattr("director._devices.health.nvml_checkup.opened", lambda: object())
    ward = wards.watch(gpus)
    assert ward.watch.join(10)
    assert ward.is_quiet
    assert "can't be read" in caplog.text


LEAVE = """
import ctypes, os, time, pynvml
from director import Device, HealthRules
from director._devices.health.nvml_watch import NvmlWatch
gpu = Device(0, "GPU-0", "H100", "cuda")
watch = NvmlWatch([gpu], lambda verdict: None, HealthRules())
watch.start()
time.sleep(0.2)
print("leaving", flush=True)
"""


@pytest.mark.parametrize("fail", ["memory=-1", ""])
def test_the_interpreter_leaves_while_it_watches(built: dict[str, Path], fail: str) -> None:
    env = {"STUB_GPUS": "1", "STUB_GPU0_UUID": "GPU-0", "STUB_GPU0_FAIL": fail, "STUB_GPU0_MEMORY": "1"}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", LEAVE],
        env=env | {"LD_LIBRARY_PATH": str(built["nvml"].parent), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")
    assert time.monotonic() - began < 30


def test_a_process_that_was_stopped_blames_no_device(
    driver: Driver, wards: Wards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes on while it is stopped; what it has asked for comes when it goes on."""
    gpus = driver.gpus(2)
    stopped, asked, go = [0.0], threading.Event(), threading.Event()
    monkeypatch.setattr(
        "director._devices.health.nvml_watch.time", SimpleNamespace(monotonic=lambda: time.monotonic() + stopped[0])
    )
    read = NvmlCheckup.read

    def read_in_a_moment(gauge: NvmlCheckup) -> object:
        if gauge._uuid == gpus[1].uuid and not go.is_set():
            asked.set()
            assert go.wait(20)
        return read(gauge)

    monkeypatch.setattr(NvmlCheckup, "read", read_in_a_moment)
    ward = wards.watch(gpus)
    assert asked.wait(20)
    stopped[0] = 3600.0
    ward.watch._inbox.put(DeviceChanged())
    until_late(ward)
    go.set()
    ward.wait_for_checkups(gpus[1])
    assert ward.is_quiet


def until_late(ward: Ward) -> None:
    """Until the watch has seen that an answer is late."""
    while not ward.watch._late:
        time.sleep(0.002)
