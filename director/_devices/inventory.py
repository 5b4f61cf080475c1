"""The machine's GPUs by NVML: frozen records that `nvml` fills and `visible_devices` and `survey` read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class MigSlice:
    """A MIG device: one compute instance of one GPU instance.

    Args:
        uuid: ``"MIG-<uuid>"``.
        parent: UUID of the GPU that it is part of.
        name: With its profile, such as ``"NVIDIA H100 80GB HBM3 MIG 1g.10gb"``.
        total_memory: Bytes, `None` where unknown.
        gpu_instance: Id of the GPU instance within its GPU.
        compute_instance: Id of the compute instance within the GPU instance.
    """

    uuid: str
    parent: str
    name: str
    total_memory: int | None
    gpu_instance: int
    compute_instance: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that answers.

    Args:
        index: NVML's index. It ignores masks and may differ from the CUDA ordinal.
        uuid: ``"GPU-<uuid>"``.
        name: The product name.
        pci_bus_id: Lower case with an eight-digit domain, so that the order of text is the order of the bus.
        total_memory: Bytes, `None` where unknown.
        mig: In MIG mode: only its slices can be used.
        slices: Its MIG devices, none outside MIG mode.
    """

    index: int
    uuid: str
    name: str
    pci_bus_id: str
    total_memory: int | None
    mig: bool = False
    slices: tuple[MigSlice, ...] = ()


Unit: TypeAlias = Gpu | MigSlice
"""A device of CUDA."""


@dataclass(frozen=True, slots=True)
class LostGpu:
    """A GPU that is present and can't be used."""

    index: int
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """The GPUs of this machine as NVML lists them, in NVML's order.

    Args:
        gpus: Those that answer.
        lost: Those that are present and can't be used.
        hidden: NVML indices that this process has no permission for.
        driver: Version of the driver, such as ``"580.95.05"``.
        absence: Why there is no NVML; `None` when there is.
        driver_loaded: Whether the driver's kernel module may be loaded; without it CUDA can't work either.
    """

    gpus: tuple[Gpu, ...] = ()
    lost: tuple[LostGpu, ...] = ()
    hidden: tuple[int, ...] = ()
    driver: str | None = None
    absence: str | None = None
    driver_loaded: bool = True

    @property
    def units(self) -> list[Unit]:
        """The GPUs that are not in MIG mode, and the slices of those that are."""
        return [*self.gpus, *(piece for gpu in self.gpus for piece in gpu.slices)]


def hex_digits(uuid: str) -> str:
    """The digits of a UUID without prefix and dashes: the key that joins NVML and CUDA."""
    return re.sub("[^0-9a-f]", "", uuid.lower())


def gpu_uuid(digits: str) -> str:
    """The UUID of a GPU in NVIDIA's form, from its 32 digits."""
    return f"GPU-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
