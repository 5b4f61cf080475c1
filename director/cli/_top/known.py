"""The state of a Director, built from frames. Owner: `DashboardState`, one for each watch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

Row: TypeAlias = list[Any]

BEGIN, END, ITEMS, BUSY, FAILED = range(5)  # columns of a stretch, as docs/reference/dashboard.md has them


@dataclass
class DashboardState:
    """The state of one Director, updated by frames."""

    identity: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)
    tracks: dict[int, Track] = field(default_factory=dict)

    def apply(self, frame: dict[str, Any]) -> None:
        """Apply the next frame, or a whole."""
        if "identity" in frame:
            self.identity, self.seen, self.tracks = frame["identity"], {}, {}
        changes = frame.pop("tracks")
        self.seen |= frame
        for slot, (first, rows) in changes.items():
            self.tracks.setdefault(int(slot), Track()).replace(first, rows)
        for track in self.tracks.values():
            track.forget(self.seen["at"] - self.identity["window"])

    @property
    def devices(self) -> list[dict[str, Any]]:
        """The constant and the changing facts of each device, joined."""
        both = zip(self.identity["devices"], self.seen["devices"], strict=True)
        return [fixed | moving for fixed, moving in both]

    def strip(self, slots: list[int], cells: int) -> list[tuple[float, bool]]:
        """For each of `cells` parts of the window: how busy these slots were, 0 to 1, and whether a job failed."""
        width = self.identity["window"] / cells
        begin = self.seen["at"] - self.identity["window"]
        busy, failed = [0.0] * cells, [False] * cells
        for slot in slots:
            past = self.tracks[slot].rows if slot in self.tracks else []
            for row in [*past, *_running(self.seen["calls"].get(str(slot)))]:
                _spread(row, begin, self.seen["at"], width, busy, failed)
        whole = width * max(1, len(slots))
        return [(min(1.0, share / whole), bad) for share, bad in zip(busy, failed, strict=True)]


@dataclass
class Track:
    """The stretches of one slot."""

    first: int = 0
    rows: list[Row] = field(default_factory=list)

    def replace(self, first: int, rows: list[Row]) -> None:
        """Replace the stretches from number `first` on."""
        kept = self.rows[: max(0, first - self.first)]
        if first > self.first + len(kept):  # the stretches in between were not received
            kept = []
        self.first = first - len(kept)
        self.rows = kept + rows

    def forget(self, before: float) -> None:
        """Drop the stretches that had ended by then."""
        gone = next((place for place, row in enumerate(self.rows) if row[END] is None or row[END] > before), None)
        gone = len(self.rows) if gone is None else gone
        self.first += gone
        del self.rows[:gone]


def _running(call: list[Any] | None) -> list[Row]:
    """The running call of a slot, as a stretch without an end."""
    return [] if call is None else [[call[0], None, call[1], 0.0, 0, False, call[2], call[3]]]


def _spread(row: Row, begin: float, now: float, width: float, busy: list[float], failed: list[bool]) -> None:
    """Add the busy time of a stretch to the cells that it overlaps."""
    end = now if row[END] is None else row[END]
    density = 1.0 if row[END] is None or end <= row[BEGIN] else row[BUSY] / (end - row[BEGIN])
    last = len(busy) - 1
    start = max(row[BEGIN], begin)
    for cell in range(int((start - begin) / width), min(last, int((end - begin) / width)) + 1):
        left = begin + cell * width
        busy[cell] += density * max(0.0, min(end, left + width) - max(start, left))
    if row[FAILED] and end > begin:
        failed[max(0, min(last, int((end - begin) / width)))] = True
