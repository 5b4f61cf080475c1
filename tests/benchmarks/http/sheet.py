"""What was measured, as a table, and which goals are reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVED = "director, server, two processes"  # of the contenders
OVERLOAD = 0.98  # of the requests answered in the time in which they came: less means that the line grew


@dataclass
class Load:
    """One server under one rate of requests, in one round. Seconds."""

    p50: float
    p99: float
    ideal_p99: float
    answered: float  # share

    @property
    def is_overload(self) -> bool:
        return self.answered < OVERLOAD


@dataclass
class Row:
    """One server, all rounds."""

    name: str
    closed: list[float] = field(default_factory=list)  # answers a second
    at_rest: list[float] = field(default_factory=list)  # share of a core
    client: list[float] = field(default_factory=list)  # the same of the client, in the closed loop
    server: list[float] = field(default_factory=list)  # seconds of cores for each answer there
    loads: dict[float, list[Load]] = field(default_factory=dict)

    def p99(self, share: float) -> float:
        """The median of the rounds; infinite in overload."""
        return median(float("inf") if load.is_overload else load.p99 for load in self.loads[share])


def table(rows: list[Row], peak: float) -> str:
    """All rows, as Markdown: medians, with the extremes of the rounds."""
    shares = list(rows[0].loads)
    heads = [
        "server",
        "closed loop, answers/s (share of peak)",
        "CPU there: µs an answer, client",
        "CPU at rest",
        *(f"at {share:.0%}: p50 / p99 ms (p99 / ideal)" for share in shares),
    ]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        cells = [
            row.name,
            f"{spread(row.closed, 1, 0)} ({median(row.closed) / peak:.2f})",
            f"{spread(row.server, 1e6, 0)}, {median(row.client):.0%}",
            f"{median(row.at_rest):.1%}",
            *(_load(row.loads[share]) for share in shares),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _load(rounds: list[Load]) -> str:
    p50, p99 = (spread([getattr(load, name) for load in rounds], 1000, 1) for name in ("p50", "p99"))
    if sum(load.is_overload for load in rounds) * 2 > len(rounds):
        return f"**overload** {p50} / {p99}"
    return f"{p50} / {p99} ({median(load.p99 / load.ideal_p99 for load in rounds):.2f})"


def spread(values: list[float], unit: float, digits: int) -> str:
    """The median in some unit, and the extremes if there are more than one."""
    low, middle, high = (f"{unit * value:,.{digits}f}" for value in (min(values), median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low}-{high})"


def goals(rows: list[Row], peak: float) -> list[str]:
    """A line for each goal: what was wanted, what it came to, and whether that is enough."""
    own, *others = rows
    lines = [
        _goal("closed loop, share of the model's peak", median(own.closed) / peak, ">=", 0.97),
        _goal("CPU at rest, per cent of a core", 100 * median(own.at_rest), "<=", 0.5),
    ]
    if (served := next((row for row in others if row.name == SERVED), None)) is not None:
        lines += _goals_of_served(served, own, [row for row in others if row.name.startswith("mosec")])
    for row in others:
        if row.name.startswith("director"):
            continue
        if row.name.startswith("mosec"):
            lines += [
                _goal(f"p99 at {share:.0%}, against {row.name}", own.p99(share) / row.p99(share), "<=", 1.0)
                for share in own.loads
                if row.p99(share) < float("inf")
            ]
        else:
            ratio = median(own.closed) / median(row.closed)
            lines.append(_goal(f"closed loop, against {row.name}", ratio, ">=", 1.6))
    return lines


def _goals_of_served(served: Row, own: Row, rivals: list[Row]) -> Iterator[str]:
    """Several processes before one server, against one process and the server that is written in Rust."""
    yield _goal(
        f"{served.name}: closed loop, against {own.name}", median(served.closed) / median(own.closed), ">=", 1.15
    )
    for row in rivals:
        yield _goal(
            f"{served.name}: closed loop, against {row.name}", median(served.closed) / median(row.closed), ">=", 1.0
        )
        for share in served.loads:
            if share <= 0.8 and row.p99(share) < float("inf"):
                what = f"{served.name}: p99 at {share:.0%}, against {row.name}"
                yield _goal(what, served.p99(share) / row.p99(share), "<=", 1.0)


def _goal(what: str, value: float, relation: str, bound: float) -> str:
    reached = value >= bound if relation == ">=" else value <= bound
    return f"{'reached' if reached else 'MISSED '}  {what}: {value:.2f} (goal {relation} {bound:g})"
