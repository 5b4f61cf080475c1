"""The full screen: devices as strips of the last minute, and one of eight lists. The only importer of rich for `top`.

Owner of the selection: the list, the row, what is open, whether it is paused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from director import _format
from director.cli._rich import EscapingConsole, live
from director.cli._top import report
from director.cli._top.report import describe

if TYPE_CHECKING:
    from rich.console import RenderableType

    from director.cli._top.known import DashboardState

LISTS = ("running", "waiting", "failures", "functions", "tenants", "ended", "models", "memory")
_HEIGHTS = " ▁▂▃▄▅▆▇█"
_MOST_OUT = 3  # devices out of service that are shown with the reason
_FRAME = 3  # lines that are neither head nor devices nor list
_NARROW = 90  # columns, below which only the chosen list says its size
_LEAST = 12  # lines that are not for devices, on any terminal
_KEYS = "tab other list   ↑↓ choose   enter open   space pause   q quit"
_KEYS_INSIDE = "↑↓ scroll   esc back   q quit"


class Screen:
    """Draws the state of a Director, and keeps the user's selection."""

    def __init__(self, console: EscapingConsole | None = None) -> None:
        self.console = console or EscapingConsole()
        self.opened: tuple[str, int] | None = None  # what is open: ("job", 7) or ("failure", 3)
        self.is_paused = False
        self.note = "live"
        self._list = 0
        self._row = 0
        self._scrolled = 0
        self._live = live(self.console, screen=True, auto_refresh=False)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def press(self, key: str, known: DashboardState) -> None:
        """Handle a key."""
        if key == "pause":
            self.is_paused = not self.is_paused
        elif key == "back":
            self.opened = None
        elif self.opened is not None:
            self._scrolled = max(0, self._scrolled + _steps(key, self.console.height // 2))
        elif key in ("next", "previous"):
            self._list = (self._list + (1 if key == "next" else -1)) % len(LISTS)
            self._row = 0
        elif key == "open":
            self._open(known)
        else:
            self._row = max(0, self._row + _steps(key, 10))

    def draw(self, known: DashboardState, detail: dict[str, Any] | None) -> None:
        """Draw the state; `detail` is the opened job or failure, if it has been received."""
        self._live.update(self.picture(known, detail), refresh=True)

    def picture(self, known: DashboardState, detail: dict[str, Any] | None = None) -> RenderableType:
        """The whole screen."""
        if self.opened is not None:
            return self._inside(detail)
        seen = known.identity | known.seen | {"devices": known.devices}
        devices = self._devices(known)
        head = self._head(seen)
        above = len(head.wrap(self.console, self.console.width)) + devices.row_count
        room = max(1, self.console.height - _FRAME - above)
        keys = Text(_KEYS, style="dim", no_wrap=True)
        return Group(head, devices, Text(), self._tabs(seen), self._rows(seen, room), keys)

    # ---- above: head and devices

    def _head(self, seen: dict[str, Any]) -> Text:
        note = "paused" if self.is_paused else self.note
        text = Text.assemble((report.title(seen), "bold"), "   ", (note, "dim" if note == "live" else "yellow"))
        text.append(f"\n{report.figures(seen)}\n")
        why = f"waiting: {seen['why_waiting']}" if seen["why_waiting"] else ""
        text.append(why[: self.console.width] + "\n", style="yellow")
        for device in [device for device in seen["devices"] if device["health"] != "healthy"][:_MOST_OUT]:
            text.append(report.out_of_service(device)[: self.console.width] + "\n", style="red")
        return text

    def _devices(self, known: DashboardState) -> Table:
        if len(known.devices) > max(8, self.console.height // 2 - 2):
            return self._compact(known)
        grid = Table.grid(padding=(0, 1))
        for justify in ("left", "left", "right", "right", "left"):
            grid.add_column(justify=justify, no_wrap=True)
        label = max((len(device["device"]) for device in known.devices), default=0)
        last = min(40, max((len(_facts(device)) for device in known.devices), default=0))
        cells = max(10, self.console.width - label - last - 22)
        words = ("", "the last minute", "busy", "jobs", "memory" if last else "")
        grid.add_row(*(Text(word, style="dim") for word in words))
        for device in known.devices:
            share = Text(
                _format.percent(device["share"]).rjust(7), style="" if device["health"] == "healthy" else "red"
            )
            jobs = Text(_format.count(device["jobs"]).rjust(9))
            facts = Text(_facts(device), overflow="ellipsis", style="" if device["health"] == "healthy" else "red")
            grid.add_row(device["device"], _strip(known.strip(device["slots"], cells)), share, jobs, facts)
        return grid

    def _compact(self, known: DashboardState) -> Table:
        """Several devices on a line, each with a bar for its last seconds."""
        label = max(len(device["device"]) for device in known.devices)
        columns = max(1, (self.console.width + 2) // (label + 9))
        grid = Table.grid(padding=(0, 2))
        cells = [
            Text.assemble(
                f"{device['device']:{label}} ",
                _strip([(device["share"], device["health"] != "healthy")]),
                f" {device['share']:4.0%}",
            )
            for device in known.devices
        ]
        lines = -(-len(cells) // columns)
        most = max(1, min(self.console.height // 2, self.console.height - _LEAST))
        shown = [cells[line::lines] for line in range(min(lines, most))]
        for row in shown:
            grid.add_row(*row)
        if hidden := len(cells) - sum(map(len, shown)):
            grid.add_row(Text(f"and {_format.counted(hidden, 'device')} more", style="dim"))
        return grid

    # ---- below: the lists

    def _tabs(self, seen: dict[str, Any]) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        is_narrow = self.console.width < _NARROW
        for number, name in enumerate(LISTS):
            is_chosen = number == self._list
            size = _size(name, seen) if is_chosen or not is_narrow else ""
            text.append(f" {name} {size}".rstrip() + " ", style="reverse" if is_chosen else "dim")
            text.append("" if is_narrow else " ")
        return text

    def _rows(self, seen: dict[str, Any], room: int) -> Table:
        rows = _cells(LISTS[self._list], seen)
        self._row = min(self._row, max(0, len(rows) - 1))
        first = max(0, min(self._row - room // 2, len(rows) - room))
        grid = Table.grid(padding=(0, 2))
        for number, cells in enumerate(rows[first : first + room], start=first):
            grid.add_row(
                ">" if number == self._row else " ",
                *(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells),
                style="bold" if number == self._row else "",
            )
        for _ in range(room - min(room, len(rows))):
            grid.add_row(" ")
        return grid

    def _open(self, known: DashboardState) -> None:
        name = LISTS[self._list]
        if name not in ("running", "ended", "failures") or self._row >= len(rows := known.seen[name]):
            return
        kind = "failure" if name == "failures" else "job"
        self.opened = kind, rows[self._row][kind]
        self._scrolled = 0

    # ---- inside of one job or failure

    def _inside(self, detail: dict[str, Any] | None) -> RenderableType:
        assert self.opened is not None
        kind, number = self.opened
        lines = ["It is not kept any more."] if detail is None else list(describe(kind, detail))
        room = self.console.height - 3
        self._scrolled = min(self._scrolled, max(0, len(lines) - room))
        shown = Text("\n".join(lines[self._scrolled : self._scrolled + room]), no_wrap=True, overflow="crop")
        return Group(Text(f"{kind} {number}", style="bold"), shown, Text(_KEYS_INSIDE, style="dim"))


def _size(name: str, seen: dict[str, Any]) -> str:
    """What stands behind the name of a list: of jobs their number, as in the head, though a call is one row."""
    match name:
        case "running":
            return str(seen["counts"]["running"])
        case "waiting":
            return str(seen["counts"]["queued"])
        case "ended" | "memory":
            return ""
        case _:
            return str(len(seen[name]))


def _steps(key: str, page: int) -> int:
    return {"up": -1, "down": 1, "page up": -page, "page down": page}.get(key, 0)


def _strip(cells: list[tuple[float, bool]]) -> Text:
    """A character for each cell, whose height is how busy it was; red if a job has failed."""
    text = Text()
    for share, failed in cells:
        text.append(_HEIGHTS[round(share * 8)], style="red on grey15" if failed else "green on grey15")
    return text


def _facts(device: dict[str, Any]) -> str:
    if device["health"] != "healthy":
        return str(device["health"])  # the reason is shown above, where there is more room
    heat = [f"{device['temperature']} °C"] if device["temperature"] is not None else []
    memory = report.memory_in_use(device)
    return "  ".join([memory, *heat] if memory != "-" else heat)


def _cells(name: str, seen: dict[str, Any]) -> list[tuple[str, ...]]:
    match name:
        case "running":
            return [report.running(each, seen["at"]) for each in seen[name]]
        case "waiting":
            return [report.waiting(each) for each in seen[name]]
        case "failures":
            return [report.failure(each, seen["at"]) for each in seen[name]]
        case "functions" | "tenants":
            return [report.group(each) for each in seen[name]]
        case "models":
            return [report.model(each, seen["at"]) for each in seen[name]]
        case "memory":
            return report.memory(seen["devices"])
        case _:
            return [report.ended(each) for each in seen[name]]
