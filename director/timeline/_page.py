"""A story as one page of HTML that needs nothing else: no network, no fonts, no libraries.

Numbers and tables are in the markup, so that they can be read without the script, by a screen reader, and found by a
search. The script draws the lanes.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from director import __version__
from director._format import count, counted, duration, percent, rate
from director.timeline._figures import Distribution, Figures, distribution, figures
from director.timeline._page_data import packed
from director.timeline._story import calls_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from director.hooks import JobRecord
    from director.timeline._story import Call, Story

_LONGEST_NAME = 120  # characters; the lanes show the full name
_SHOWN = 10  # calls in the tables of the longest
_SHOWN_FUNCTIONS = 20  # and tenants, and failures
_OTHER = "other"  # functions and tenants beyond these
_NOTHING = "-"


def page(story: Story) -> str:
    """The page."""
    numbers = figures(story)
    parts = {
        "title": escape(story.name or "director"),
        "when": escape(_when(story)),
        "tiles": _tiles(story, numbers),
        "notice": _notice(story),
        "histograms": _histograms(story),
        "tables": "".join(part for part in _tables(story, numbers) if part),
        "version": escape(__version__),
        "style": _asset("page.css"),
        "script": "".join(map(_asset, ("run.js", "picture.js", "page.js"))),
        "packed": packed(story),
    }
    return re.sub(r"%%(\w+)%%", lambda place: parts[place[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return files("director.timeline").joinpath("assets", name).read_text(encoding="utf-8")


def _when(story: Story) -> str:
    began = datetime.fromtimestamp(story.wall, UTC)
    devices = counted(len(story.devices), "device")
    return f"{began:%Y-%m-%d %H:%M:%S} UTC, {duration(story.seconds)} on {devices}, {counted(len(story.slots), 'slot')}"


def _notice(story: Story) -> str:
    if not story.forgotten:
        return ""
    what = f"Only the last {counted(len(story.jobs), 'job')}: {count(story.forgotten)} before them are forgotten."
    return element("p", escape(what), class_="notice")


def _tiles(story: Story, numbers: Figures) -> str:
    states = numbers.states
    others = [
        f"{count(states[state])} {state}" for state in ("failed", "cancelled", "running", "queued") if states.get(state)
    ]
    if story.rejected:
        others.append(f"{count(story.rejected)} refused")
    tiles = [
        tile("jobs succeeded", count(states.get("succeeded", 0)), ", ".join(others) or "none failed",
             "bad" if states.get("failed") else ""),
        tile("throughput", rate(numbers.per_second), "jobs that succeeded"),
        tile("wait p50", *_pair(numbers.waits)),
        tile("run p50", *_pair(numbers.runs)),
        tile("busy", percent(numbers.all.busy), f"idle {percent(numbers.all.idle)}"),
        tile("lost", percent(numbers.all.lost), "idle while a job waited", "bad" if numbers.all.lost > 0.1 else ""),
    ]  # fmt: skip
    return element("dl", *tiles, class_="tiles")


def _pair(values: Distribution | None) -> tuple[str, str]:
    if values is None:
        return _NOTHING, "no job ran"
    return duration(values.p50), f"p99 {duration(values.p99)}"


def _histograms(story: Story) -> str:
    ran = [job for job in story.jobs if job.started is not None]
    waits = histogram("How long jobs waited", (_waited(job) for job in ran), "waits")
    runs = histogram("How long they ran", (job.ended - job.started for job in ran if job.ended is not None), "runs")  # type: ignore[operator]
    return element("div", waits, runs, class_="pair") if waits or runs else ""


def _waited(job: JobRecord) -> float:
    return max(0.0, (job.submitted if job.started is None else job.started) - job.submitted)


def _ran(job: JobRecord) -> float:
    return -1.0 if job.started is None or job.ended is None else job.ended - job.started


# ---- tables


def _tables(story: Story, numbers: Figures) -> Iterable[str]:
    yield _devices(numbers)
    yield _groups("Functions", "function", ((job.name, job) for job in story.jobs))
    if any(job.tenant is not None for job in story.jobs):
        yield _groups("Tenants", "tenant", ((job.tenant or "-", job) for job in story.jobs))
    calls = calls_of(story.jobs)
    slowest = _longest(story, "Slowest calls", [call for call in story.calls if call.ended is not None], by=_took)
    waiting = _longest(story, "Longest waits, by call", calls, by=_waited_most)
    if slowest or waiting:
        yield element("div", slowest, waiting, class_="pair")
    yield _failures(story)
    yield _lags(numbers)


def _devices(numbers: Figures) -> str:
    rows = [
        (device.label, device.name, str(share.slots), count(share.calls), percent(share.busy), percent(share.idle),
         percent(share.lost))
        for device, share in numbers.devices.items()
    ]  # fmt: skip
    return table("Devices", ("device", "name", "slots", "calls", "busy", "idle", "lost"), rows, words=2)


def _groups(caption: str, word: str, named: Iterable[tuple[str, JobRecord]]) -> str:
    """A table of the functions or tenants with the most jobs, and of the rest together."""
    by_name: defaultdict[str, list[JobRecord]] = defaultdict(list)
    for name, job in named:
        by_name[name].append(job)
    groups = sorted(by_name.items(), key=lambda item: (-len(item[1]), item[0]))
    shown, rest = groups[:_SHOWN_FUNCTIONS], [job for _, jobs in groups[_SHOWN_FUNCTIONS:] for job in jobs]
    rows = [_group(name, jobs) for name, jobs in [*shown, *([(_OTHER, rest)] if rest else [])]]
    head = (word, "jobs", "failed", "wait p50", "wait p99", "wait max", "run p50", "run p99", "run max", "total run")
    return table(caption, head, rows)


def _group(name: str, jobs: Sequence[JobRecord]) -> tuple[str, ...]:
    runs = distribution(_ran(job) for job in jobs if _ran(job) >= 0)
    waits = distribution(_waited(job) for job in jobs if job.started is not None)
    total = duration(runs.mean * runs.count) if runs else _NOTHING
    failed = sum(job.state == "failed" for job in jobs)
    return _short(name), count(len(jobs)), count(failed), *_three(waits), *_three(runs), total


def _three(values: Distribution | None) -> tuple[str, str, str]:
    if values is None:
        return (_NOTHING,) * 3
    return duration(values.p50), duration(values.p99), duration(values.longest)


def _took(call: Call) -> float:
    return -1.0 if call.ended is None else call.ended - call.began


def _waited_most(call: Call) -> float:
    return max(map(_waited, call.jobs))


def _longest(story: Story, caption: str, calls: Sequence[Call], by: Callable[[Call], float]) -> str:
    """The calls at the top of an order, a row for each, however many jobs it had."""
    if not calls:
        return ""
    rows = [
        (
            f"{_short(call.jobs[0].name)} #{call.jobs[0].job}",
            story.slots[call.slot].label,
            count(len(call.jobs)),
            duration(max(0.0, call.began - story.since)),
            duration(_waited_most(call)),
            "runs" if call.ended is None else duration(_took(call)),
        )
        for call in sorted(calls, key=by, reverse=True)[:_SHOWN]
    ]
    return table(caption, ("first job", "device", "jobs", "began", "waited", "ran"), rows, words=2)


def _failures(story: Story) -> str:
    errors = Counter((job.name, job.error) for job in story.jobs if job.error is not None)
    errors.update((f"load {load.model}", load.error) for load in story.loads if load.error is not None)
    errors.update((it.device.label, f"out of service: {it.reason}") for it in story.incidents if it.reason is not None)
    if not errors:
        return ""
    rows = [(error or "", _short(name), count(times)) for (name, error), times in errors.most_common(_SHOWN_FUNCTIONS)]
    return table("Failures", ("error", "where", "times"), rows, words=2)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _lags(numbers: Figures) -> str:
    lags = numbers.lags
    if lags is None:
        return ""
    said = (
        f"Until the event loop handled their outcomes, jobs waited {duration(lags.p50)} (p50), {duration(lags.p99)} "
        f"(p99), at most {duration(lags.longest)}. A busy or blocked event loop shows here; the "
        "devices don't wait for it."
    )
    return element("p", escape(said), class_="aside")


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
        element(
            "tr",
            *(
                cell("td", column, text, data_label=head[column]) if column else cell("th", column, text, scope="row")
                for column, text in enumerate(row)
            ),
        )
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
        tabindex="0",  # can be scrolled by keyboard
    )


# ---- histograms

_WIDTH, _HEIGHT, _FLOOR, _TOP = 480, 170, 138, 14
_PER_DECADE = 6


def histogram(title: str, seconds: Iterable[float], kind: str) -> str:
    """The distribution of durations on a logarithmic axis, as a picture with its numbers as text for screen readers."""
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
    missing = max(0, 2 * _PER_DECADE - (high - low))  # not a single bar as wide as the page
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
