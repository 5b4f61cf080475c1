"""The last words of a run, on the standard error: for people or as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from director.cli import _words
from director.cli._table import table
from director.cli._terminal import complain

if TYPE_CHECKING:
    from director.cli._run.tally import Lane, Tally


@dataclass(frozen=True, slots=True)
class Summary:
    """What there is to tell.

    Args:
        tally: The counts.
        seconds: From the first item that could begin to the last line written.
        why: Why the run ended: ``"done"``, or what ended it before.
        output: File with the results; `None` for the standard output.
    """

    tally: Tally
    seconds: float
    why: str
    output: str | None


def tell(summary: Summary, *, as_json: bool) -> None:
    """Print it."""
    complain(json.dumps(_object(summary)) if as_json else _lines(summary))


def _object(summary: Summary) -> dict[str, Any]:
    tally = summary.tally
    return {
        "end": summary.why,
        "succeeded": tally.succeeded,
        "failed": tally.failed,
        "not_run": tally.left,
        "seconds": round(summary.seconds, 6),
        "per_second": round(tally.done / summary.seconds, 3),
        "errors": dict(tally.errors),
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
    lines += [f"  {_words.counted(number, 'item')} failed with {name}" for name, number in tally.errors.most_common(5)]
    if len(tally.errors) > 5:
        lines.append(f"  and {len(tally.errors) - 5} other kinds of error")
    if tally.left:
        lines.append(f"  {_words.counted(tally.left, 'item')} not run")
    lines += _device_table(summary)
    if summary.output is not None:
        lines.append(f"results in {summary.output}")
    return lines


def _headline(summary: Summary) -> str:
    tally = summary.tally
    what = f"{_words.counted(tally.done, 'item')} in {_words.duration(summary.seconds)}"
    how = f"({_words.rate(tally.done / summary.seconds)}): {_words.count(tally.succeeded)} succeeded"
    return f"{summary.why}: {what} {how}, {_words.count(tally.failed)} failed"


def _device_table(summary: Summary) -> list[str]:
    rows = [
        (
            device,
            _words.count(lane.items),
            _words.percent(lane.items / (summary.tally.done or 1)),
            _words.percent(_busy(lane, summary.seconds)),
            _words.duration(lane.mean) if lane.items else "",
        )
        for device, lane in summary.tally.lanes.items()
    ]
    return table(("device", "items", "share", "busy", "mean"), rows)


def _busy(lane: Lane, seconds: float) -> float:
    return min(1.0, lane.seconds / (lane.slots * seconds))
