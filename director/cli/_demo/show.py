"""Runs and prints the parts of the demo, in order; results on the standard output, live lanes on the standard error."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from typing import TYPE_CHECKING, Any, Protocol

from director import DeviceError, __version__
from director._devices.discovery import resolve_devices
from director.cli._console import hint_at_rich, on_terminal, print_error, print_json, print_text
from director.cli._demo import words
from director.cli._demo.contenders import CONTENDERS, Recording, measure
from director.cli._demo.trace import Call, Figures, at_best, figures, make_trace
from director.cli._status import DONE, UsageError
from director.testing import SimulatedDevice, simulated_devices

if TYPE_CHECKING:
    import argparse

MEAN = 0.010  # s, of a job of the stream
AT_BEST = "at best (computed)"


def show(options: argparse.Namespace) -> int:
    """Run the parts that were asked for and print them as text or JSON.

    Raises:
        UsageError: There are no such devices.
    """
    if options.devices:
        try:
            resolve_devices(options.devices)
        except (DeviceError, ValueError) as error:
            raise UsageError(str(error)) from None
    document: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],  # of the minute before; the demo adds its own
    }
    if warning := words.busy_machine(document["cores"], document["load_average"]):
        _say(options, warning)
    if options.only != "lanes":
        document["digits"] = _digits(options)
    if options.only != "digits":
        document["lanes"] = _lanes(options)
    if options.json:
        print_json(document, indent=2)
    return DONE


# ---- the main job


def _digits(options: argparse.Namespace) -> dict[str, Any]:
    """Classify the digits, if scikit-learn is installed."""
    _say(options, words.DIGITS_HEAD)  # printed before scikit-learn is imported, which takes a second or two
    try:
        from director.cli._demo.digits import choose_devices, classify_all
    except ImportError as error:
        reason = f"{error.name} is not installed: pip install 'gpu-director[demo]'"
        _say(options, [f"   left out: {reason}", ""])
        return {"left_out": reason}
    devices, why = (options.devices, "as asked") if options.devices else choose_devices()
    result = asyncio.run(classify_all(devices))
    _say(options, words.digits(result, devices, why))
    return words.digits_object(result, why)


# ---- the lanes


def _lanes(options: argparse.Namespace) -> dict[str, Any]:
    trace = make_trace(options.jobs, options.simulated, mean=MEAN, load=options.load, seed=options.seed)
    devices = simulated_devices(options.simulated)
    _say(options, words.lanes_head(trace, options.simulated, options.load))
    rows: list[words.Row] = [(AT_BEST, None, figures(at_best(trace, len(devices)), len(devices)))]
    for busy in (False, True):
        with open_stage(trace, len(devices), words.loop_name(busy)) as stage:
            rows += [(name, busy, _measured(name, devices, trace, busy, stage)) for name in CONTENDERS]
    _say(options, words.lanes_table(rows))
    return words.lanes_object(rows, options.simulated, options.load, options.seed, trace)


def _measured(name: str, devices: list[SimulatedDevice], trace: list[Call], busy: bool, stage: Stage) -> Figures:
    recording = Recording(len(devices))
    stage.play(name, recording)
    asyncio.run(measure(recording, CONTENDERS[name], devices, trace, busy=busy))
    return figures(recording.runs, len(devices))


def _say(options: argparse.Namespace, lines: list[str]) -> None:
    if not options.json:
        print_text(lines)


class Stage(Protocol):
    """Shows contenders one after the other, under one kind of event loop."""

    def __enter__(self) -> Stage: ...

    def __exit__(self, *_: object) -> None: ...

    def play(self, name: str, recording: Recording) -> None:
        """The contender `name` begins now; `recording` grows while it runs."""


def open_stage(trace: list[Call], devices: int, loop: str) -> Stage:
    """The stage for the standard error: live on a terminal, else plain lines."""
    if not on_terminal(sys.stderr):
        return PlainStage(loop)
    try:
        from director.cli._demo.lanes import Lanes
    except ImportError:
        hint_at_rich()
        return PlainStage(loop)
    return Lanes(trace, devices, loop)


class PlainStage:
    """Prints a line when a contender begins."""

    def __init__(self, loop: str) -> None:
        self._loop = loop

    def __enter__(self) -> PlainStage:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def play(self, name: str, recording: Recording) -> None:
        """Print the line."""
        print_error(f"   measuring: {name}, event loop {self._loop}")
