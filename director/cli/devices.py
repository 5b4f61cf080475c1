"""`director devices`: the GPUs of this machine by NVML, by CUDA and by a Director."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from director import _format
from director._devices.inventory import Gpu
from director.cli._console import print_error, print_json, print_text, table
from director.cli._status import UsageError, parse_seconds

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction
    from collections.abc import Iterator

    from director._devices.inventory import Inventory, Unit
    from director._devices.survey import Survey
    from director.ray import Node

DESCRIPTION = """\
List the GPUs of this machine: those that a Director would use, by their CUDA ordinals, then those that it can't use,
each with the reason. The UUID identifies a GPU everywhere; the numbers of NVML (nvidia-smi) and CUDA may differ."""

_HEAD = ("device", "name", "memory", "uuid", "nvml", "pci bus id", "note")
_NO_GPU = (
    "Without GPUs a Director can work on cores, devices='cpu:4' (--devices cpu:4), or only pass time, "
    "devices='simulated:4' (--devices simulated:4)."
)


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command to those of `director`."""
    parser = subparsers.add_parser("devices", help="list the GPUs, and why some can't be used", description=DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="everything that was found, as one JSON document")
    parser.add_argument("--watch", action="store_true", help="memory, load, temperature and power, until interrupted")
    parser.add_argument(
        "--every", metavar="SECONDS", type=parse_seconds, default=1.0, help="between two readings of --watch (1)"
    )
    parser.add_argument("--ray", metavar="ADDRESS", help="the nodes of a Ray cluster instead: auto, or host:6379")
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """List or watch the devices; they go to stdout, hints to stderr.

    Returns:
        0, whether or not there are any.

    Raises:
        DiscoveryError: They can't be listed.
    """
    if args.ray is not None:
        pass

        return list_nodes(args.ray, as_json=args.json)
    from director._devices.discovery import survey

    found = survey()
    if args.watch and found.devices:
        from director.cli._watch import watch

        watch(found.devices, args.every, as_json=args.json)
    if args.json:
        print_json(_document(found), indent=2)
    else:
        print_text(_report(found))
    if not found.devices:
        print_error(_NO_GPU)
    return 0


def _report(found: Survey) -> Iterator[str]:
    if not found.devices:
        yield f"No GPU is visible: {found.absence}."
    if rows := [*_used(found), *_unused(found)]:
        yield from table(_HEAD, rows, left=len(_HEAD))
    for variable, value in (("CUDA_VISIBLE_DEVICES", found.mask), ("CUDA_DEVICE_ORDER", found.order)):
        if value is not None:
            yield f"{variable}={_format.plain(value)}"


def _used(found: Survey) -> Iterator[tuple[str, ...]]:
    places = _places(found.inventory)
    for device in found.devices:
        place = places.get(device.uuid, ("-", "-"))
        note = "" if device.uuid in places else "unknown to NVML"
        yield device.label, device.name, _memory(device.total_memory), device.uuid, *place, note


def _unused(found: Survey) -> Iterator[tuple[str, ...]]:
    places = _places(found.inventory)
    for unit in found.inventory.units:
        if all(unit.uuid != device.uuid for device in found.devices):
            yield "-", unit.name, _memory(unit.total_memory), unit.uuid, *places[unit.uuid], _why_unused(unit, found)
    for gpu in found.inventory.lost:
        yield "-", "?", "-", "?", str(gpu.index), "?", f"unusable: {gpu.reason}"
    for index in found.inventory.hidden:
        yield "-", "?", "-", "?", str(index), "?", "no permission"


def _places(inventory: Inventory) -> dict[str, tuple[str, str]]:
    """NVML's index and the PCI address of each unit; those of a slice with its GPU and compute instance."""
    places = {}
    for gpu in inventory.gpus:
        places[gpu.uuid] = (str(gpu.index), gpu.pci_bus_id)
        for piece in gpu.slices:
            places[piece.uuid] = (f"{gpu.index}:{piece.gpu_instance}/{piece.compute_instance}", gpu.pci_bus_id)
    return places


def _why_unused(unit: Unit, found: Survey) -> str:
    if isinstance(unit, Gpu) and unit.mig:
        return "in MIG mode: its slices count" if unit.slices else "in MIG mode, without slices"
    return "not shown by CUDA" if found.mask is None else "hidden by CUDA_VISIBLE_DEVICES"


def _memory(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**30:.1f} GiB"


def _document(found: Survey) -> dict[str, Any]:
    cuda = found.cuda
    return {
        "devices": [asdict(device) for device in found.devices],
        "absence": None if found.devices else found.absence,
        "CUDA_VISIBLE_DEVICES": found.mask,
        "CUDA_DEVICE_ORDER": found.order,
        "nvml": asdict(found.inventory),
        "cuda": {"devices": [asdict(device) for device in cuda]} if isinstance(cuda, tuple) else asdict(cuda),
    }


_NODE_HEAD = ("node", "GPU", "kind of GPU", "CPU", "memory", "id")
_KIND = "accelerator_type:"  # prefix of Ray's resources for types of GPUs


def list_nodes(address: str, *, as_json: bool) -> int:
    """List the nodes; a hint goes to stderr.

    Args:
        address: Of the cluster.
        as_json: Everything that Ray says of their resources.

    Returns:
        0, whether or not they have GPUs.

    Raises:
        DiscoveryError: No cluster answers.
        UsageError: No cluster can have that address.
    """
    from director.ray import cluster_nodes

    try:
        nodes = cluster_nodes(address)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if as_json:
        listed = [{**node._asdict(), "resources": dict(node.resources)} for node in nodes]
        print_json({"nodes": listed}, indent=2)
        return 0
    print_text(table(_NODE_HEAD, [_row(node) for node in nodes], left=len(_NODE_HEAD)))
    if not any(node.resources.get("GPU") for node in nodes):
        print_error("No node has a GPU: a Director takes one core of each, or with devices='cpu:4' four.")
    return 0


def _row(node: Node) -> tuple[str, ...]:
    held = node.resources
    kinds = ", ".join(sorted(name.removeprefix(_KIND) for name in held if name.startswith(_KIND)))
    memory = f"{held.get('memory', 0) / 2**30:.1f} GiB"
    return node.name, f"{held.get('GPU', 0):g}", kinds or "-", f"{held.get('CPU', 0):g}", memory, node.id
