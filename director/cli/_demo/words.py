"""The demo as text and tables, and as JSON; all figures are measured."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from director import _format
from director.cli._console import table
from director.cli._demo.contenders import BLOCKED, PERIOD

if TYPE_CHECKING:
    from typing import TypeAlias

    from director.cli._demo.digits import Result
    from director.cli._demo.trace import Call, Figures

    Row: TypeAlias = tuple[str, bool | None, Figures]  # contender, busy loop or not (None: neither), figures

DIGITS_HEAD = ["1  The main job: scikit-learn's scanned digits, classified through a Model"]
_BUSY = 0.5  # of the cores: beyond it, threads that wake have to wait for one now and then
_HEAD = ("loop", "scheduled by", "wait p50", "wait p99", "idle", "lost", "makespan")


def busy_machine(cores: int | None, load: float) -> list[str]:
    """A warning where other programs keep the cores busy; nothing else."""
    if cores is None or load <= _BUSY * cores:
        return []
    return [
        f"Other programs are busy here: load average {load:.1f} on {_format.counted(cores, 'core')}. Times are longer",
        "than on an idle machine, and differ from run to run.",
        "",
    ]


def digits(result: Result, devices: str, why: str) -> list[str]:
    """The classification and its result."""
    count = _format.count
    held_out, trained = result.right_held_out / result.held_out, result.right_trained / result.trained_on
    rows = [
        (one.device, one.name, count(one.items), _format.percent(one.items / result.items), _format.duration(one.busy))
        for one in result.devices
    ]
    return [
        f"   devices   {devices} ({why}); the network runs in {result.framework}",
        f"   items     {count(result.items)}, one job each",
        f"   training  on {count(result.trained_on)} of the digits, {_format.duration(result.training_seconds)}",
        f"   accuracy  {_format.percent(held_out)} of the {count(result.held_out)} digits held out from training",
        f"             ({_format.percent(trained)} of the {count(result.trained_on)} it was trained on)",
        f"   rate      {_format.rate(result.items / result.seconds)}: all in {_format.duration(result.seconds)}",
        "",
        *(f"   {line}" for line in table(("device", "name", "items", "share", "busy"), rows, left=2)),
        "",
    ]


def digits_object(result: Result, why: str) -> dict[str, Any]:
    """The same as JSON."""
    return {
        **asdict(result),
        "why": why,
        "accuracy": result.right_held_out / result.held_out,
        "accuracy_in_training": result.right_trained / result.trained_on,
        "per_second": result.items / result.seconds,
    }


def loop_name(busy: bool) -> str:
    """What else the event loop does."""
    return f"blocked {BLOCKED * 1e3:.0f} of every {PERIOD * 1e3:.0f} ms" if busy else "idle"


def lanes_head(trace: list[Call], devices: int, load: float) -> list[str]:
    """The description of the comparison."""
    durations = sorted(call.seconds for call in trace)
    middle, longest = _format.duration(durations[len(durations) // 2]), _format.duration(durations[-1])
    mean = _format.duration(sum(durations) / len(durations))
    return [
        f"2  What scheduling costs: one stream of jobs for {devices} simulated devices,",
        "   which only pass time, scheduled in three ways",
        f"   {_format.count(len(trace))} jobs of {mean} on average, half below {middle}, the longest {longest};",
        f"   they arrive at random; offered load {_format.percent(load)} of the devices' time",
        "",
    ]


def lanes_table(rows: list[Row]) -> list[str]:
    """The figures, and how to read them."""
    shown = [_row(*row) for row in rows]
    return [
        *(f"   {line}" for line in table(_HEAD, shown, left=2)),
        "",
        f"   loop      the event loop: {loop_name(False)}, or {loop_name(True)}",
        "   wait      from a job's arrival to its start; a blocked loop sees arrivals",
        "             late, with every scheduler",
        "   idle      share of the devices' time in which they ran nothing",
        "   lost      idle while jobs were queued",
        "   makespan  until the last job has ended",
        "   at best   each job begins when it arrives or, in order, when a device is free",
    ]


def _row(name: str, busy: bool | None, found: Figures) -> tuple[str, ...]:
    loop = "" if busy is None else "blocked" if busy else "idle"
    waits = (_format.duration(found.wait_p50), _format.duration(found.wait_p99))
    return (
        loop,
        name,
        *waits,
        _format.percent(found.idle),
        _format.percent(found.lost),
        _format.duration(found.makespan),
    )


def lanes_object(rows: list[Row], devices: int, load: float, seed: int, trace: list[Call]) -> dict[str, Any]:
    """The same as JSON; times in seconds."""
    return {
        "simulated_devices": devices,
        "jobs": len(trace),
        "load": load,
        "seed": seed,
        "runs": [
            {"scheduled_by": name, "loop": None if busy is None else loop_name(busy), **asdict(found)}
            for name, busy, found in rows
        ],
    }
