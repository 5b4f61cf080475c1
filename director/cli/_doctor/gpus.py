"""Findings about the GPUs: what NVML lists, what CUDA shows, what a Director can use, and why they differ."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from director import _format
from director._devices.survey import CudaUnavailable
from director._untrusted.numbers import shortened
from director.cli._doctor.checks import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from director._devices.readings import Reading
    from director._devices.survey import Survey
    from director.cli._doctor.system import System

_finding = partial(Finding, "devices")
_ON_PURPOSE = ("", "-1", "none", "void", "NoDevFiles")  # masks that hide everything
_MUCH = 0.1  # of a GPU's memory
_BLOCKED = "the user of this process needs to read and write it (group `video` or `render`; in a container: --gpus all)"


def examine_gpus(survey: Survey, readings: Sequence[Reading], system: System) -> Iterator[Finding]:
    """Findings about the GPUs and access to them."""
    if survey.devices:
        yield _finding("devices", "ok", _listing(survey))
    else:
        yield _absence(survey, system)
    yield from _lost(survey)
    yield from _cuda(survey)
    yield from _mask(survey)
    yield from _order(survey)
    if survey.inventory.gpus or system.device_files:
        yield from _files(system)
    yield from _read(survey, readings)


def undiscovered(error: Exception, system: System) -> Iterator[Finding]:
    """Findings for GPUs that could not be listed at all."""
    yield _finding("discovery", "wrong", str(error))
    yield from _files(system)


def _listing(survey: Survey) -> str:
    driver = f", driver {survey.inventory.driver}" if survey.inventory.driver else ""
    lines = [f"{_format.counted(len(survey.devices), 'GPU')} for a Director{driver}"]
    places = {unit.uuid: getattr(unit, "index", None) for unit in survey.inventory.units}
    for device in survey.devices:
        index = places.get(device.uuid)
        nvml = "" if index is None else f", NVML's number {index}"
        memory = "" if device.total_memory is None else f", {device.total_memory / 2**30:.1f} GiB"
        lines.append(f"{device.label}: {device.name}{memory}, {device.uuid}{nvml}")
    return "\n".join(lines)


def _absence(survey: Survey, system: System) -> Finding:
    if system.gpus_on_bus and not survey.inventory.gpus:
        cards = _format.counted(len(system.gpus_on_bus), "NVIDIA card")
        remedy = (
            "docker run --gpus all, with the NVIDIA container toolkit on the host"
            if system.in_container
            else "install NVIDIA's driver, or load it: modprobe nvidia"
        )
        return _finding("no-driver", "wrong", f"{cards} on the bus, and no way to it: {survey.absence}", remedy)
    if survey.inventory.gpus or survey.inventory.lost or survey.inventory.hidden:
        is_meant = (survey.mask or "").strip() in _ON_PURPOSE and survey.mask is not None
        return _finding("none-visible", "note" if is_meant else "wrong", f"no GPU is visible: {survey.absence}")
    text = f"no GPU: {survey.absence}"
    return _finding(
        "no-gpu", "note", text, "without GPUs say what you want: Director('cpu:4'), Director('simulated:4')"
    )


def _lost(survey: Survey) -> Iterator[Finding]:
    for gpu in survey.inventory.lost:
        text = f"the GPU with NVML's number {gpu.index} is there and can't be used: {gpu.reason}"
        yield _finding("lost-gpu", "wrong", text, "look for `Xid` in dmesg; reset it (nvidia-smi -r) or reboot")
    if survey.inventory.hidden:
        numbers = ", ".join(map(str, survey.inventory.hidden))
        yield _finding("hidden-gpu", "note", f"no permission for the GPUs with NVML's numbers {numbers}")
    for whole in survey.inventory.gpus:
        if whole.mig and not whole.slices:
            text = f"GPU {whole.index} ({whole.uuid}) is in MIG mode and has no slices, so it can't be used"
            yield _finding(
                "mig-without-slices", "wrong", text, f"nvidia-smi mig -i {whole.index} -cgi ... -C, or -mig 0"
            )


def _cuda(survey: Survey) -> Iterator[Finding]:
    if not isinstance(survey.cuda, CudaUnavailable):
        known = {unit.uuid for unit in survey.inventory.units}
        for device in survey.devices:
            if device.uuid not in known:
                yield _finding(
                    "unknown-to-nvml", "note", f"{device.label} ({device.uuid}) is known to CUDA, not to NVML"
                )
        return
    if not survey.inventory.gpus:
        return
    remedy = (
        None
        if survey.cuda.installed
        else "install the driver's CUDA part (libcuda.so.1); in a container NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    )
    yield _finding("cuda-silent", "wrong", f"NVML lists GPUs, and CUDA does not answer: {survey.cuda.reason}", remedy)


def _mask(survey: Survey) -> Iterator[Finding]:
    mask = survey.mask
    if mask is None or mask.strip() in _ON_PURPOSE:
        return
    setting = f"CUDA_VISIBLE_DEVICES={shortened(mask)!r}"
    wanted, seen, there = len(mask.split(",")), len(survey.devices), len(survey.inventory.units)
    if wanted > seen and there:
        text = (
            f"{setting} names {wanted} devices and {seen} are visible: the driver stops at the "
            "first entry that means nothing, and an entry that is there twice empties the list"
        )
        yield _finding("mask-wrong", "wrong", text, "correct the list; `nvidia-smi -L` shows the UUIDs")
    elif seen < there:
        yield _finding("mask-hides", "note", f"{setting} leaves {seen} of {there} devices visible")


def _order(survey: Survey) -> Iterator[Finding]:
    names = {gpu.name for gpu in survey.inventory.gpus}
    if len(names) > 1 and survey.order != "PCI_BUS_ID":
        text = "the GPUs are unlike each other: CUDA counts the fastest first, nvidia-smi by the place on the bus"
        yield _finding("order-differs", "note", text, "name GPUs by UUID, or set CUDA_DEVICE_ORDER=PCI_BUS_ID")


def _files(system: System) -> Iterator[Finding]:
    for path, usable in system.device_files.items():
        if not usable and re.fullmatch(r"/dev/nvidia(\d+|ctl|-uvm)", path):
            yield _finding("device-file", "wrong", f"{path} can't be used by this process", _BLOCKED)
    if "/dev/nvidiactl" in system.device_files and "/dev/nvidia-uvm" not in system.device_files:
        text = "/dev/nvidia-uvm is not there, without which CUDA can't start"
        yield _finding("no-uvm", "wrong", text, "modprobe nvidia_uvm, or nvidia-modprobe -u -c=0")


def _read(survey: Survey, readings: Sequence[Reading]) -> Iterator[Finding]:
    memory = {device.uuid: (device.label, device.total_memory) for device in survey.devices}
    for each in readings:
        label, total = memory[each.uuid]
        if each.error is not None:
            yield _finding("unreadable", "wrong", f"NVML can't read {label}: {each.error}")
        if each.compute_mode == "prohibited":
            text = f"{label} is in compute mode `prohibited`: no process may use it"
            yield _finding("compute-prohibited", "wrong", text, "nvidia-smi -c DEFAULT")
        if each.compute_mode == "exclusive":
            text = f"{label} is in compute mode `exclusive`: one process at a time, so a second app fails on it"
            yield _finding("compute-exclusive", "note", text, "nvidia-smi -c DEFAULT")
        if total and each.used_memory is not None and each.used_memory > _MUCH * total:
            text = f"{label}: {each.used_memory / 2**30:.1f} of {total / 2**30:.1f} GiB are in use already"
            yield _finding("memory-taken", "note", text, "`nvidia-smi` shows by which processes")
