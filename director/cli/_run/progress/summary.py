"""The summary of a run on the standard error, as text or JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from director import _format
from director.cli._console import print_error, table

if TYPE_CHECKING:
    from director.cli._run.progress.tally import Lane, Tally


@dataclass(frozen=True, slots=True)
class Summary:
    """The data of the summary.

    Args:
        tally: The counts.
        seconds: From when the first item could begin until the last line was written.
        why: Why the run ended: ``"done"``, or another reason.
        output: File with the results; `None` for the standard output.
        go_on: The command that goes on with the run; `None` if there is nothing to go on with.
    """

    tally: Tally
    seconds: float
    why: str
    output: str | None
    go_on: str | None = None


def print_summary(summary: Summary, *, as_json: bool) -> None:
    """Print the summary."""
    print_error(json.dumps(_object(summary)) if as_json else _lines(summary))


def _object(summary: Summary) -> dict[str, Any]:
    tally = summary.tally
    return {
        "end": summary.why,
        "succeeded": tally.succeeded,
        "failed": tally.failed,
        "not_run": tally.left,
        "left_out": dict(_left_out(tally)),
        "seconds": round(summary.seconds, 6),
        "per_second": round(tally.done / summary.seconds, 3),
        "p50_seconds": round(tally.times.quantile(0.5), 6),
        "p99_seconds": round(tally.times.quantile(0.99), 6),
        "errors": dict(tally.errors),
        "examples": tally.examples,
        "devices": [
            {
                "device": device,
                "slots": lane.slots,
                "items": lane.items,
                "busy": round(_busy(lane, summary.seconds), 4),
                "mean_seconds": round(lane.mean, 6),
            }
            for device, lane in tally.lanes.items()
        ],
    }


def _lines(summary: Summary) -> list[str]:
    tally = summary.tally
    lines = [_headline(summary)]
    for name, number in tally.errors.most_common(5):
        first = f", first {tally.examples[name]}" if tally.examples.get(name) else ""
        lines.append(f"  {_format.counted(number, 'item')} failed with {name}{first}")
    if len(tally.errors) > 5:
        lines.append(f"  and {len(tally.errors) - 5} other kinds of error")
    if tally.left:
        lines.append(f"  {_format.counted(tally.left, 'item')} not run")
    lines += [f"  {_format.counted(number, 'item')} left out: {_LEFT_OUT[name]}" for name, number in _left_out(tally)]
    lines += _device_table(summary)
    if summary.output is not None:
        lines.append(f"results in {summary.output}")
    if summary.go_on is not None:
        lines.append(f"to go on: {summary.go_on}")
    return lines


_LEFT_OUT = {
    "ok": "done before",
    "failed": "failed before; --retry-failed tries them again",
    "untried": "not tried yet; --resume runs them",
    "elsewhere": "of other shards",
    "existing": "their files are there",
}


def _left_out(tally: Tally) -> list[tuple[str, int]]:
    """Why items were left out, and how many."""
    return [(name, number) for name in _LEFT_OUT if (number := getattr(tally.counts, name))]


def _headline(summary: Summary) -> str:
    tally = summary.tally
    what = f"{_format.counted(tally.done, 'item')} in {_format.duration(summary.seconds)}"
    how = f"({_format.rate(tally.done / summary.seconds)}): {_format.count(tally.succeeded)} succeeded"
    return f"{summary.why}: {what} {how}, {_format.count(tally.failed)} failed"


def _device_table(summary: Summary) -> list[str]:
    lanes = summary.tally.lanes
    called = sum(lane.items for lane in lanes.values())  # more than are done where results were not written
    rows = [
        (
            device,
            _format.count(lane.items),
            _format.percent(lane.items / (called or 1)),
            _format.percent(_busy(lane, summary.seconds)),
            _format.duration(lane.mean) if lane.items else "",
        )
        for device, lane in lanes.items()
    ]
    return table(("device", "items", "share", "busy", "mean"), rows)


def _busy(lane: Lane, seconds: float) -> float:
    return min(1.0, lane.seconds / (lane.slots * seconds))
