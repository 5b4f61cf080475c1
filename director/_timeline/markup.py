"""The parts of the page that need no script: tiles, tables, histograms. Everything from outside is escaped here."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from director._words import count, counted, duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def element(tag: str, *inner: str, **attributes: str) -> str:
    """An element around markup. Values of attributes are escaped; `class_` is ``class``, `text_anchor` has a hyphen."""
    said = "".join(f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    return f"<{tag}{said}>{''.join(inner)}</{tag}>"


def tile(label: str, value: str, note: str, kind: str = "") -> str:
    """One number that matters, with a line below."""
    return element(
        "div",
        element("dt", escape(label)),
        element("dd", escape(value), class_="value"),
        element("dd", escape(note), class_="note"),
        class_=f"tile {kind}".strip(),
    )


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table with the first `words` columns as text and the others as numbers."""

    def cell(tag: str, column: int, text: str, **more: str) -> str:
        return element(tag, escape(text), **({"class_": "number"} if column >= words else {}), **more)

    heads = (cell("th", column, text, scope="col") for column, text in enumerate(head))
    body = (
        element("tr", *(cell("td" if column else "th", column, text) for column, text in enumerate(row)))
        for row in rows
    )
    return element(
        "div",
        element(
            "table",
            element("caption", escape(caption)),
            element("thead", element("tr", *heads)),
            element("tbody", *body),
        ),
        class_="scroll",
        role="region",
        aria_label=caption,
        tabindex="0",  # so that a keyboard can scroll it
    )


# ---- histograms

_WIDTH, _HEIGHT, _FLOOR, _TOP = 480, 170, 138, 14
_PER_DECADE = 6


def histogram(title: str, seconds: Iterable[float], kind: str) -> str:
    """How durations are spread, on a logarithmic axis, as a picture that says its numbers to who can't see it."""
    values = list(seconds)
    if not values:
        return ""
    low, counts = _bins(values)
    tallest = max(counts)
    step = _WIDTH / len(counts)
    bars = [
        _bar(number * step, step, _FLOOR - (_FLOOR - _TOP) * height / tallest, low, number, height, kind)
        for number, height in enumerate(counts)
        if height
    ]
    label = f"{title}: {count(len(values))} durations from {duration(min(values))} to {duration(max(values))}"
    picture = element(
        "svg",
        *bars,
        element("line", x1="0", x2=f"{_WIDTH}", y1=f"{_FLOOR}", y2=f"{_FLOOR}", class_="axis"),
        *_ticks(low, len(counts), step),
        element("text", escape(counted(tallest, "job")), x="0", y="9", class_="peak"),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=label,
    )
    return element("figure", element("figcaption", escape(title)), picture)


def _bins(values: Sequence[float]) -> tuple[int, list[int]]:
    """Counts of values by bins of a sixth of a decade, and the number of the first bin."""
    numbers = [math.floor(_PER_DECADE * math.log10(max(1e-6, value)) + 1e-9) for value in values]
    low, high = min(numbers), max(numbers)
    missing = max(0, 2 * _PER_DECADE - (high - low))  # a single bar as wide as the page says nothing
    low, high = low - missing // 2, high + (missing + 1) // 2
    counts = [0] * (high - low + 1)
    for number in numbers:
        counts[number - low] += 1
    return low, counts


def _bar(x: float, step: float, y: float, low: int, number: int, height: int, kind: str) -> str:
    began, ended = (10 ** ((low + number + more) / _PER_DECADE) for more in (0, 1))
    says = f"{duration(began)} to {duration(ended)}: {count(height)}"
    return element(
        "rect",
        element("title", escape(says)),
        x=f"{x + 1:.1f}",
        y=f"{min(y, _FLOOR - 1.5):.1f}",
        width=f"{max(1.0, step - 2):.1f}",
        height=f"{max(1.5, _FLOOR - y):.1f}",
        rx="1.5",
        class_=kind,
    )


def _ticks(low: int, bins: int, step: float) -> Iterable[str]:
    for decade in range(math.ceil(low / _PER_DECADE), (low + bins) // _PER_DECADE + 1):
        x = (decade * _PER_DECADE - low) * step
        yield element("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=f"{_FLOOR}", y2=f"{_FLOOR + 5}", class_="axis")
        if 10 < x < _WIDTH - 14:
            yield element("text", escape(_power(decade)), x=f"{x:.1f}", y=f"{_FLOOR + 19}", text_anchor="middle")


def _power(decade: int) -> str:
    """``-2`` as ``"10 ms"``."""
    for unit, exponent in (("s", 0), ("ms", -3)):
        if decade >= exponent:
            return f"{10 ** (decade - exponent):,} {unit}"
    return f"{10 ** (decade + 6):,} µs" if decade >= -6 else "0"
