"""Draws the journey of a job for docs/explanation/architecture.md: the calls it makes, from file to file.

    python docs/images/journey.py

A plain `await director.run(f, x)` is made on a Director whose slot is idle, and every call of a function of `director`
is recorded by `sys.setprofile`. What is drawn are those calls that lead from one file to another, each once in a panel.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import director
from director import Director

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(director.__file__).parent
PICTURE = Path(__file__).parent / "journey.svg"
ON_LOOP, ON_THREAD = "event loop", "the slot's thread"
PANELS = {
    "submit": (ON_LOOP, "1  the caller: await director.run(f, x)"),
    "start": (ON_LOOP, "2  the Director coroutine starts a worker for an idle slot"),
    "work": (ON_THREAD, "3  the worker runs jobs until there are none"),
    "deliver": (ON_LOOP, "4  results are delivered, the caller is woken"),
    "reap": (ON_LOOP, "5  done-callbacks: the worker has left, the permit is released"),
}
ARROWS = [
    ("submit", "start", "an asyncio.Event is set"),
    ("start", "work", "loop.run_in_executor(thread, worker.run)"),
    ("work", "deliver", "an eventfd wakes the loop"),
    ("work", "reap", "the call in the executor has ended"),
]
COLOURS = {
    "_api": "#8250df",
    "_runtime": "#0969da",
    "_scheduler": "#bc4c00",
    "_jobs": "#57606a",
    "_executors": "#1a7f37",
}
OTHER = "#57606a"
RUNS = 8
GROUND = ("_untrusted/", "_device.py", "_system/forks.py")  # called from everywhere, and left out
LINE, INDENT, WIDTH, GAP, EDGE = 19, 14, 520, 70, 20


class Call(NamedTuple):
    """One row of a panel."""

    depth: int
    path: str
    function: str


class Node:
    """A function, and those that it calls in other files; one that is called again is the same node."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], Node] = {}

    def keep(self, other: Node) -> None:
        """Leave out what isn't in the other."""
        self.calls = {key: node for key, node in self.calls.items() if key in other.calls}
        for key, node in self.calls.items():
            node.keep(other.calls[key])

    def rows(self, depth: int = 0) -> Iterator[Call]:
        for (path, function), node in self.calls.items():
            yield Call(depth, path, function)
            yield from node.rows(depth + 1)


def path_of(frame) -> str | None:
    """The file of a frame, below `director`; `None` for others and for wrappers, which are left out."""
    path = Path(frame.f_code.co_filename)
    if "<" in frame.f_code.co_qualname or not path.is_relative_to(ROOT):
        return None
    name = str(path.relative_to(ROOT))
    return None if name.startswith(GROUND) else name


def panel_of(root) -> str:
    """The panel of a stack, by its outermost frame in `director`."""
    if threading.current_thread() is not threading.main_thread():
        return "work"
    path = path_of(root)
    if path.startswith("_api"):
        return "submit"
    if path.endswith("loop_channel.py"):
        return "deliver"
    return "start" if root.f_code.co_flags & inspect.CO_COROUTINE else "reap"


class Recorder:
    """Notes each call that leads from one file of `director` to another; `sys.setprofile` takes its `note`."""

    def __init__(self) -> None:
        self.panels = {name: Node() for name in PANELS}
        self.stopped = False

    def note(self, frame, event, _arg) -> None:
        if event != "call" or self.stopped or path_of(frame) is None:
            return
        stack = [frame]
        while (frame := frame.f_back) is not None:
            if path_of(frame) is not None:
                stack.append(frame)
        node, before = self.panels[panel_of(stack[-1])], None
        for each in reversed(stack):
            path = path_of(each)
            if path != before:
                node = node.calls.setdefault((path, each.f_code.co_qualname), Node())
            before = path


def f(_device, x):
    return x


async def record() -> dict[str, Node]:
    recorder = Recorder()
    async with Director("simulated:1") as one_slot:
        threading.setprofile(recorder.note)
        sys.setprofile(recorder.note)
        await one_slot.run(f, 1)
        await asyncio.sleep(1)  # the worker lingers for a tenth of a second, then it leaves
        sys.setprofile(None)
        threading.setprofile(None)
        recorder.stopped = True
    return recorder.panels


def record_all() -> dict[str, list[Call]]:
    """The calls that are made each time, whichever thread is quicker."""
    panels = asyncio.run(record())
    for _ in range(RUNS - 1):
        for name, root in asyncio.run(record()).items():
            panels[name].keep(root)
    return {name: list(root.rows()) for name, root in panels.items()}


def text(x: float, y: float, words: str, kind: str = "", colour: str = "") -> str:
    style = f' fill="{colour}"' if colour else ""
    return f'<text x="{x}" y="{y}" class="{kind}"{style} xml:space="preserve">{escape(words)}</text>'


def draw_panel(x: int, y: int, title: str, rows: list[Call]) -> tuple[list[str], int]:
    """The panel's parts, and its height."""
    height = 34 + LINE * len(rows) + 8
    parts = [f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{height}" rx="6" class="panel"/>']
    parts.append(text(x + 12, y + 22, title, "title"))
    for number, row in enumerate(rows):
        left, at = x + 14 + INDENT * row.depth, y + 34 + LINE * number + 13
        colour = COLOURS.get(row.path.partition("/")[0], OTHER)
        parts.append(f'<circle cx="{left}" cy="{at - 4}" r="3" fill="{colour}"/>')
        parts.append(
            f'<text x="{left + 9}" y="{at}" class="row" xml:space="preserve"><tspan fill="{colour}">{row.path}</tspan>'
            f"  {escape(row.function)}</text>"
        )
    return parts, height


def draw(panels: dict[str, list[Call]]) -> str:
    lanes = {ON_LOOP: EDGE, ON_THREAD: EDGE + WIDTH + GAP}
    parts = [text(x + 12, 30, lane, "lane") for lane, x in lanes.items()]
    places: dict[str, tuple[int, int, int]] = {}
    y = 46
    for name, (lane, title) in PANELS.items():
        drawn, height = draw_panel(lanes[lane], y, title, panels[name])
        parts += drawn
        places[name] = lanes[lane], y, height
        y += height + 30
    for number, (start, end, label) in enumerate(ARROWS):
        parts += draw_arrow(places[start], places[end], label, 18 * number)
    width = EDGE + 2 * WIDTH + GAP + EDGE
    return SVG.format(width=width, height=y - 30 + EDGE, parts="\n".join(parts))


def draw_arrow(start: tuple[int, int, int], end: tuple[int, int, int], label: str, aside: int) -> list[str]:
    """From the foot of one panel to the head of another, which may be in the other lane."""
    (x1, y1, height), (x2, y2, _) = start, end
    x = x1 + WIDTH // 3 + aside
    if x1 == x2:
        return [path(x, y1 + height, f"V {y2 - 3}"), text(x + 10, y2 - 10, label, "label")]
    goal, at = (x2 - 3, x + 10) if x1 < x2 else (x2 + WIDTH + 3, x2 + WIDTH + 16)
    return [path(x, y1 + height, f"V {y2 + 18} H {goal}"), text(at, y2 + 12, label, "label")]


def path(x: int, y: int, on: str) -> str:
    return f'<path d="M {x} {y} {on}" class="arrow"/>'


SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<title>The journey of a job: the calls of a plain run, from file to file (made by docs/images/journey.py)</title>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M 0 0 L 8 4 L 0 8 z" fill="#57606a"/></marker></defs>
<style>
text {{ font: 12.5px ui-monospace, "DejaVu Sans Mono", monospace; fill: #1f2328; }}
.lane {{ font: bold 15px system-ui, sans-serif; fill: #57606a; }}
.title {{ font: bold 13.5px system-ui, sans-serif; }}
.label {{ font: 12px system-ui, sans-serif; fill: #57606a; }}
.panel {{ fill: #f6f8fa; stroke: #d0d7de; }}
.arrow {{ fill: none; stroke: #57606a; stroke-width: 1.5; marker-end: url(#head); }}
</style>
<rect width="{width}" height="{height}" fill="#ffffff"/>
{parts}
</svg>
"""


if __name__ == "__main__":
    PICTURE.write_text(draw(record_all()))
    print(PICTURE)
