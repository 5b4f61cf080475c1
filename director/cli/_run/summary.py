"""The summary of a run on the standard error, as text or JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import InitVar, dataclass, field
from typing import Any

from director import _format
from director.cli._console import print_error, table
from director.cli._run.records import type_name


@dataclass(frozen=True, slots=True)
class Summary:
    """The data of the summary.

    Args:
        tally: The counts.
        seconds: From when the first item could begin until the last line was written.
        why: Why the run ended: ``"done"``, or another reason.
        output: File with the results; `None` for the standard output.
    """

    tally: Tally
    seconds: float
    why: str
    output: str | None


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
    lines += [f"  {_format.counted(number, 'item')} failed with {name}" for name, number in tally.errors.most_common(5)]
    if len(tally.errors) > 5:
        lines.append(f"  and {len(tally.errors) - 5} other kinds of error")
    if tally.left:
        lines.append(f"  {_format.counted(tally.left, 'item')} not run")
    lines += _device_table(summary)
    if summary.output is not None:
        lines.append(f"results in {summary.output}")
    return lines


def _headline(summary: Summary) -> str:
    tally = summary.tally
    what = f"{_format.counted(tally.done, 'item')} in {_format.duration(summary.seconds)}"
    how = f"({_format.rate(tally.done / summary.seconds)}): {_format.count(tally.succeeded)} succeeded"
    return f"{summary.why}: {what} {how}, {_format.count(tally.failed)} failed"


def _device_table(summary: Summary) -> list[str]:
    rows = [
        (
            device,
            _format.count(lane.items),
            _format.percent(lane.items / (summary.tally.done or 1)),
            _format.percent(_busy(lane, summary.seconds)),
            _format.duration(lane.mean) if lane.items else "",
        )
        for device, lane in summary.tally.lanes.items()
    ]
    return table(("device", "items", "share", "busy", "mean"), rows)


def _busy(lane: Lane, seconds: float) -> float:
    return min(1.0, lane.seconds / (lane.slots * seconds))


@dataclass(slots=True)
class Lane:
    """The items of one device.

    Args:
        slots: How many items it runs at once.
        items: Calls that ended on it, with a result or an error.
        seconds: How long they ran, summed over its slots.
    """

    slots: int
    items: int = 0
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        """Mean seconds of an item; 0 before the first."""
        return self.seconds / self.items if self.items else 0.0


@dataclass(slots=True)
class Tally:
    """Counts of the items so far.

    Args:
        slots: Of each device, by its label, in their order.
        total: How many items there are; `None` while unknown.
    """

    slots: InitVar[dict[str, int]]
    total: int | None = None
    taken: int = 0
    succeeded: int = 0
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    lanes: dict[str, Lane] = field(init=False)

    def __post_init__(self, slots: dict[str, int]) -> None:
        self.lanes = {device: Lane(number) for device, number in slots.items()}

    @property
    def done(self) -> int:
        """Items with a record."""
        return self.succeeded + self.failed

    @property
    def left(self) -> int:
        """Items without a record; if the input was not counted, only those that were read."""
        return (self.taken if self.total is None else self.total) - self.done

    def add_device(self, device: str, slots: int) -> None:
        """Add a device that has joined."""
        self.lanes[device] = Lane(slots)

    def count(self, error: BaseException | None, device: str | None, seconds: float | None) -> None:
        """One more item has an outcome."""
        if error is None:
            self.succeeded += 1
        else:
            self.failed += 1
            self.errors[type_name(error)] += 1
        if device is not None:
            lane = self.lanes[device]
            lane.items += 1
            lane.seconds += seconds or 0.0
