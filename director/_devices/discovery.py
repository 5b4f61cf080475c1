"""The devices of a Director: those of this machine, and the specifications by which a user chooses among them.

Owner of the one survey for each setting of `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER`; written only by `survey`.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from director._device import Device, cpu_devices, simulated_devices
from director._devices.option import written
from director._system.threads import NoThreadsHere
from director._untrusted.numbers import MOST_SLOTS, number_in, shown, whole
from director._untrusted.objects import is_a, plain
from director.errors import DiscoveryError, NoDevices

if TYPE_CHECKING:
    from director._devices.survey import Survey

DeviceSpec: TypeAlias = str | Sequence[Device | int | str] | None
"""What `Director(devices=...)` takes."""

_log = logging.getLogger("director")

# Guards _surveys; later callers wait for the survey of the first one. Reentrant, because a log handler that runs during
# a survey may call `survey`.
_surveying = threading.RLock()
_surveys: dict[tuple[str | None, str | None], Survey] = {}


def discover_devices(*, refresh: bool = False) -> list[Device]:
    """The GPUs and MIG slices that this process may use, in the order of their CUDA ordinals; may be an empty list.

    Asks NVML which GPUs there are, and CUDA which of them this process sees and in which order. CUDA is asked in
    another process, so nothing is initialised in this one. The answer is kept while ``CUDA_VISIBLE_DEVICES`` and
    ``CUDA_DEVICE_ORDER`` stay the same.

    Blocks for up to some seconds the first time, so it belongs off the event loop:
    ``await anyio.to_thread.run_sync(discover_devices)``. If that is cancelled, the survey goes on in its thread.

    Args:
        refresh: Survey again, as after a GPU was reset or divided into other MIG slices.

    Raises:
        DiscoveryError: There is a driver, and the GPUs can't be listed; the message names cause and remedy.
    """
    return list(survey(refresh=refresh).devices)


def survey(*, refresh: bool = False) -> Survey:
    """`discover_devices` with the data that the result is based on."""
    # Imported on first use: it would make `import director` a tenth slower.
    try:
        from director._devices import survey as _survey
    except ImportError as error:
        # ctypes of Python 3.12: "module _ctypes does not support loading in subinterpreters"
        if "subinterpreter" in str(error):
            raise DiscoveryError(str(NoThreadsHere())) from None
        raise

    key = _survey.mask_and_order()
    with _surveying:
        if refresh or key not in _surveys:
            _surveys[key] = _survey.take_survey()
        return _surveys[key]


def resolve_devices(spec: DeviceSpec) -> tuple[Device, ...]:
    """The devices that `spec` specifies. Blocks as `discover_devices` does, if a GPU may be among them.

    `spec` is `None` (all visible GPUs, or one CPU device with a warning), a string or a sequence. A string is
    ``"gpu"`` or ``"cuda"`` (all visible GPUs), ``"cuda:1"`` or ``"1"`` (a CUDA ordinal), ``"GPU-8f2a…"`` or
    ``"MIG-…"`` (a UUID or a unique beginning of one), ``"cpu"``, ``"cpu:4"`` or ``"simulated:4"`` (one or that many
    CPU or simulated devices). A sequence holds such strings, CUDA ordinals and `Device`s, and keeps its order. The CPU
    devices that are named in it add up, and so do the simulated ones: ``["cpu", "cpu:2"]`` are three of them.

    Raises:
        TypeError: `spec`, or something in it, is of no such type.
        ValueError: It is malformed or empty, a UUID's beginning fits several devices, or a device is named twice.
        NoDevices: What it names isn't visible to this process.
        DiscoveryError: The GPUs can't be listed.
    """
    if spec is None:
        return tuple(discover_devices()) or _one_cpu_instead()
    entries = [spec] if isinstance(spec, str) else spec
    if isinstance(entries, bytes) or not isinstance(entries, Sequence):
        raise TypeError(f"devices must be a string, or a list of devices, CUDA ordinals and strings, not {spec!r}")
    if not entries:
        raise ValueError("devices is empty: name at least one, or leave it out for every visible GPU")
    return _distinct(_number_stand_ins([_read(entry) for entry in entries]))


def _one_cpu_instead() -> tuple[Device, ...]:
    _log.warning(
        "No GPU is visible (%s), so jobs run on one CPU device. Say %s if that is what you want, or %s to have an "
        "error instead.",
        survey().absence,
        written("cpu"),
        written("gpu"),
    )
    return tuple(cpu_devices())


@dataclass(frozen=True, slots=True)
class _StandIns:
    """A number of CPU or simulated devices; they are numbered when all entries have been read."""

    kind: str
    count: int


_MAKERS: dict[str, Callable[[int], Sequence[Device]]] = {"cpu": cpu_devices, "simulated": simulated_devices}


def _read(entry: Device | int | str) -> Sequence[Device] | _StandIns:
    if is_a(entry, Device):
        return [entry]
    if is_a(entry, int) and type(entry) is not bool:
        return [_gpu_at(whole("a CUDA ordinal", entry, 0))]
    if (word := plain(entry)) is not None:
        return _read_word(word)
    raise TypeError(f"a device is a Device, a CUDA ordinal (int) or a string such as 'cuda:0', not {shown(entry)}")


def _read_word(word: str) -> Sequence[Device] | _StandIns:
    if word in ("gpu", "cuda"):
        return _gpus()
    if stand_in := re.fullmatch("(cpu|simulated)(?::([0-9]*[1-9][0-9]*))?", word):
        return _StandIns(
            stand_in[1], whole(f"the number of {stand_in[1]} devices", number_in(stand_in[2] or "1"), 1, MOST_SLOTS)
        )
    if ordinal := re.fullmatch("(?:cuda:)?([0-9]+)", word):
        return [_gpu_at(number_in(ordinal[1]))]
    if re.fullmatch("(GPU|MIG)-.+", word):
        return [_gpu_named(word)]
    raise ValueError(
        f"{word!r} names no device: say 'gpu', 'cuda:1', 'GPU-<uuid>', 'MIG-<uuid>', 'cpu:4' or 'simulated:4' "
        "(4 of them; at least 1)"
    )


def _gpus() -> Sequence[Device]:
    found = discover_devices()
    if not found:
        raise NoDevices(f"No GPU is visible: {survey().absence}. Without GPUs, 'cpu:4' or 'simulated:4' can be used.")
    return found


def _gpu_at(ordinal: int) -> Device:
    found = _gpus()
    if ordinal >= len(found):
        raise NoDevices(f"No GPU has the CUDA ordinal {ordinal}. Visible are: {_listing(found)}.")
    return found[ordinal]


def _gpu_named(uuid: str) -> Device:
    found = _gpus()
    matches = [gpu for gpu in found if gpu.uuid.lower().startswith(uuid.lower())]
    if not matches:
        raise NoDevices(f"No visible GPU has a UUID that begins with {uuid}. Visible are: {_listing(found)}.")
    if len(matches) > 1:
        raise ValueError(f"{uuid} is the beginning of several UUIDs: {_listing(matches)}")
    return matches[0]


def _listing(devices: Sequence[Device]) -> str:
    return ", ".join(f"{device.label} ({device.uuid})" for device in devices)


def _number_stand_ins(entries: Sequence[Sequence[Device] | _StandIns]) -> list[Device]:
    """All devices in order. A CPU or simulated device gets the lowest free number of its kind."""
    taken = {key for entry in entries if not isinstance(entry, _StandIns) for device in entry for key in _keys(device)}
    devices: list[Device] = []
    for entry in entries:
        fresh = _make(entry, taken) if isinstance(entry, _StandIns) else entry
        taken.update(key for device in fresh for key in _keys(device))
        devices += fresh
    return devices


def _make(wanted: _StandIns, taken: set[str]) -> Sequence[Device]:
    more_than_enough = _MAKERS[wanted.kind](wanted.count + len(taken))
    return [device for device in more_than_enough if taken.isdisjoint(_keys(device))][: wanted.count]


def _distinct(devices: Sequence[Device]) -> tuple[Device, ...]:
    seen: set[str] = set()
    for device in devices:
        if not seen.isdisjoint(_keys(device)):
            hint = "" if device.kind == "cuda" else "; make all of them in one call, such as simulated_devices(2)"
            raise ValueError(f"{device.label} ({device.uuid}) is there twice{hint}")
        seen.update(_keys(device))
    return tuple(devices)


def _keys(device: Device) -> tuple[str, str]:
    return device.uuid, device.label
