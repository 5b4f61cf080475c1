"""`director devices --watch`: readings of the GPUs, repeated."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from director import _format
from director._devices.nvml import within
from director._devices.readings import Reading, read
from director.cli._console import hint_at_rich, on_terminal, print_json, print_text, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from director import Device

_PATIENCE = 10.0  # seconds for one round of readings
_CELLS = 5  # of a bar
_HEAD = ("device", "name", "memory", "load", "temperature", "power", "note")


def watch(devices: Sequence[Device], every: float, *, as_json: bool) -> NoReturn:
    """Show readings of `devices` every `every` seconds, until interrupted.

    Raises:
        DiscoveryError: NVML does not answer.
    """
    with _place(as_json) as (show, is_live):
        while True:
            readings = within(_PATIENCE, partial(read, [device.uuid for device in devices]))
            pairs = list(zip(devices, readings, strict=True))
            if as_json:
                print_json(_document(pairs))
            else:
                show("\n".join([*_lines(pairs, is_live), *([_footer(every)] if is_live else [])]))
            time.sleep(every)


@contextmanager
def _place(as_json: bool) -> Iterator[tuple[Callable[[str], None], bool]]:
    """The function that prints readings, and whether they replace each other: on a terminal they do, elsewhere not."""
    if as_json or not on_terminal(sys.stdout):
        yield print_text, False
        return
    try:
        from rich.text import Text

        from director.cli._rich import EscapingConsole, live
    except ImportError:
        hint_at_rich()
        yield print_text, False
        return
    with live(EscapingConsole(), auto_refresh=False) as picture:
        yield lambda text: picture.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True), True


def _lines(pairs: Sequence[tuple[Device, Reading]], is_live: bool) -> list[str]:
    rows = [(device.label, device.name, *_facts(device, reading, is_live)) for device, reading in pairs]
    if not is_live:
        return table(_HEAD, rows, left=2)
    # The columns that are left out are below, so that the rest fits into 80 columns.
    head = (*_HEAD[:4], "heat", *_HEAD[5:-1])
    notes = [_format.plain(f"{row[0]}: {row[-1]}") for row in rows if row[-1]]
    return [*table(head, [row[:-1] for row in rows], left=2), *notes]


def _footer(every: float) -> str:
    """The line below the table: the time, the interval, and how to end."""
    return f"\n{time.strftime('%H:%M:%S')}, read every {every:g} s; Ctrl-C ends"


def _facts(device: Device, reading: Reading, is_live: bool) -> tuple[str, ...]:
    if reading.error is not None:
        return "?", "?", "?", "?", f"unusable: {reading.error}"
    total = "?" if device.total_memory is None else f"{device.total_memory / 2**30:.1f}"
    used = "?" if reading.used_memory is None else f"{reading.used_memory / 2**30:.1f}"
    load = "?" if reading.load is None else _format.percent(reading.load)
    if is_live and reading.load is not None:  # a bar shows which one is busy
        load = f"{'█' * round(reading.load * _CELLS):░<{_CELLS}} {load:>7}"
    temperature = "?" if reading.temperature is None else f"{reading.temperature} °C"
    power = "?" if reading.power is None else f"{reading.power:.0f} W"
    note = "" if reading.compute_mode in (None, "default") else f"compute mode {reading.compute_mode}"
    return f"{used} of {total} GiB", load, temperature, power, note


def _document(pairs: Sequence[tuple[Device, Reading]]) -> dict[str, Any]:
    devices = [asdict(device) | {"device": device.label} | asdict(reading) for device, reading in pairs]
    return {"time": time.time(), "devices": devices}
