"""Which devices a process sees under `CUDA_VISIBLE_DEVICES`, computed without CUDA. Pure.

Used when CUDA can't be asked (`cuda`). The rules are the driver's; where its manual does not say they are those of
PyTorch's parser, which was checked against the driver: the first entry decides the kind of the list, the first invalid
entry ends it, and a repeated entry empties it.
"""

from __future__ import annotations

import re
from itertools import takewhile
from typing import TYPE_CHECKING

from director._devices.inventory import MigSlice
from director._untrusted.numbers import number_in, shortened
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director._devices.inventory import Gpu, Inventory, Unit

_MANY_SLICES_SINCE = 570  # drivers before it show a process one MIG slice, and no whole GPU beside it


def visible_units(inventory: Inventory, mask: str | None, order: str | None) -> tuple[Unit, ...]:
    """GPUs and MIG slices that CUDA would show, in the order of their CUDA ordinals.

    Args:
        inventory: What NVML lists.
        mask: `CUDA_VISIBLE_DEVICES`, `None` if unset.
        order: `CUDA_DEVICE_ORDER`, `None` if unset.

    Raises:
        DiscoveryError: The answer depends on something that only CUDA knows, such as which of two unlike GPUs is
            faster.
    """
    if mask is not None and mask.startswith("GPU-"):
        return _whole_gpus(_by_uuid(mask, "GPU-", inventory))
    if mask is not None and mask.startswith("MIG-"):
        return _slices(_by_uuid(mask, "MIG-", inventory), inventory.driver)
    return _by_position(inventory, None if mask is None else _ordinals(mask), order)


def _by_uuid(mask: str, prefix: str, inventory: Inventory) -> list[Unit]:
    """The devices of the UUIDs, or unique beginnings of UUIDs, in `mask`, up to the first invalid one."""
    found: list[Unit] = []
    for entry in _entries(mask, prefix):
        matches = [unit for unit in inventory.units if _is_named(unit, entry)]
        if not matches and inventory.lost:
            raise _unclear(
                f"{shortened(entry)} may be GPU {inventory.lost[0].index}, which is lost ({inventory.lost[0].reason})"
            )
        if len(matches) != 1:
            break
        if matches[0] in found:
            return []
        found.append(matches[0])
    return found


def _entries(mask: str, prefix: str) -> list[str]:
    """The leading entries that begin with `prefix`; none at all if one of them is repeated."""
    taken: list[str] = []
    for entry in mask.split(","):
        if entry in taken:
            return []
        if not entry.startswith(prefix):
            break
        taken.append(entry)
    return taken


def _is_named(unit: Unit, entry: str) -> bool:
    if isinstance(unit, MigSlice):
        by_instance = f"MIG-{unit.parent}/{unit.gpu_instance}/{unit.compute_instance}"  # the form before driver 470
        return unit.uuid.startswith(entry) or by_instance.startswith(entry)
    return unit.uuid.startswith(entry)


def _whole_gpus(units: list[Unit]) -> tuple[Unit, ...]:
    for unit in units:
        if not isinstance(unit, MigSlice) and unit.mig:
            raise _unclear(f"{unit.uuid} is in MIG mode, and which of its slices a process then sees is not documented")
    return tuple(units)


def _slices(units: list[Unit], driver: str | None) -> tuple[Unit, ...]:
    if len(units) < 2:
        return tuple(units)
    if driver is None:
        raise _unclear("how many MIG slices a process sees depends on the driver's version, which NVML does not report")
    if _is_before_many_slices(driver):
        return tuple(units[:1])
    instances = {(unit.parent, unit.gpu_instance) for unit in units if isinstance(unit, MigSlice)}
    if len(instances) < len(units):
        raise _unclear("a process sees only one compute instance of a GPU instance, and several are named")
    return tuple(units)


def _ordinals(mask: str) -> list[int]:
    """The integers of a mask as `strtoul` reads them, so ``"1gpu"`` is 1."""
    taken: list[int] = []
    for entry in mask.split(","):
        found = re.match("([+-]?)([0-9]+)", entry.strip())
        ordinal = number_in(found[2]) * (-1 if found[1] == "-" else 1) if found else -1
        if ordinal in taken:
            return []
        if ordinal < 0:
            break
        taken.append(ordinal)
    return taken


def _by_position(inventory: Inventory, wanted: list[int] | None, order: str | None) -> tuple[Unit, ...]:
    """The devices of ordinals, up to the first that is out of range; every device for `None`."""
    gpus = sorted(inventory.gpus, key=lambda gpu: gpu.pci_bus_id)
    taken = list(range(len(gpus)) if wanted is None else takewhile(lambda n: n < len(gpus), wanted))
    if not taken:
        return ()
    _refuse_to_guess(inventory, order)
    if any(gpu.mig for gpu in gpus):
        return (_one_beside_mig(gpus, None if wanted is None else taken, inventory.driver),)
    return tuple(gpus[n] for n in taken)


def _refuse_to_guess(inventory: Inventory, order: str | None) -> None:
    names = sorted({gpu.name for gpu in inventory.gpus})
    if inventory.lost:
        raise _unclear(
            f"GPU {inventory.lost[0].index} is lost ({inventory.lost[0].reason}), and CUDA may count it or not"
        )
    if len(names) > 1 and order != "PCI_BUS_ID":
        raise _unclear(
            f"the GPUs differ ({', '.join(names)}) and CUDA puts the fastest first",
            "Set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name",
        )


def _one_beside_mig(gpus: Sequence[Gpu], taken: list[int] | None, driver: str | None) -> Unit:
    """The one device that old drivers show where some GPU is in MIG mode."""
    slices = [piece for gpu in gpus for piece in gpu.slices]
    if _is_before_many_slices(driver) and taken is None and slices:
        return slices[0]
    if _is_before_many_slices(driver) and taken is not None and len(taken) == 1:
        gpu = gpus[taken[0]]
        if not gpu.mig:
            return gpu
        if gpu.slices:
            return gpu.slices[0]
    raise _unclear("some GPU is in MIG mode, and how CUDA then counts is not documented")


def _is_before_many_slices(driver: str | None) -> bool:
    major = re.match("[0-9]+", driver or "")
    return major is not None and int(major[0]) < _MANY_SLICES_SINCE


def _unclear(why: str, remedy: str = "Name") -> DiscoveryError:
    return DiscoveryError(
        f"CUDA could not be asked which devices it sees, and they can't be worked out safely: {why}. "
        f"{remedy} devices by UUID in CUDA_VISIBLE_DEVICES (`nvidia-smi -L` lists them)."
    )
