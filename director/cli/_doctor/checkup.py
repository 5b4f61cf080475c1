"""Runs all checks."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from director._devices.discovery import survey
from director._devices.nvml import within
from director._devices.readings import Reading, read
from director.cli._doctor.checks import examine_apps, examine_environment, examine_limits, examine_versions, installed
from director.cli._doctor.gpus import examine_gpus, undiscovered
from director.cli._doctor.system import gather
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director import Device
    from director._devices.survey import Survey
    from director.cli._doctor.checks import Finding

_PATIENCE = 10.0  # seconds for the readings of all GPUs


@dataclass(slots=True)
class Checkup:
    """The findings, and the facts they are based on."""

    findings: list[Finding]
    facts: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As one JSON document."""
        wrong = any(each.level == "wrong" for each in self.findings)
        return {"wrong": wrong, "findings": [asdict(each) for each in self.findings], "facts": self.facts}


def examine() -> Checkup:
    """Run all checks. Blocks for some seconds if there are GPUs, and for up to two minutes if NVML or CUDA hang."""
    system, packages = gather(), installed()
    found, failure = _survey()
    devices: Sequence[Device] = found.devices if found else ()
    readings = _readings(devices)
    gpus = examine_gpus(found, readings, system) if found else undiscovered(failure or DiscoveryError(""), system)
    findings = [
        *examine_versions(packages, len(devices)),
        *gpus,
        *examine_environment(os.environ, bool(devices or system.gpus_on_bus), system.cpus),
        *examine_limits(system, devices),
        *examine_apps(),
    ]
    facts = {
        "packages": packages,
        "devices": [asdict(device) for device in devices],
        "readings": [asdict(reading) for reading in readings],
        "system": asdict(system),
        "CUDA_VISIBLE_DEVICES": found.mask if found else os.environ.get("CUDA_VISIBLE_DEVICES"),
        "CUDA_DEVICE_ORDER": found.order if found else os.environ.get("CUDA_DEVICE_ORDER"),
        "nvml": asdict(found.inventory) if found else None,
        "cuda": _cuda(found) if found else None,
    }
    return Checkup(findings, facts)


def _survey() -> tuple[Survey | None, DiscoveryError | None]:
    try:
        return survey(), None
    except DiscoveryError as error:
        return None, error


def _readings(devices: Sequence[Device]) -> tuple[Reading, ...]:
    uuids = [device.uuid for device in devices]
    try:
        return within(_PATIENCE, partial(read, uuids)) if uuids else ()
    except DiscoveryError as error:
        return tuple(Reading(uuid, error=str(error)) for uuid in uuids)


def _cuda(found: Survey) -> dict[str, Any]:
    cuda = found.cuda
    return {"devices": [asdict(device) for device in cuda]} if isinstance(cuda, tuple) else asdict(cuda)
