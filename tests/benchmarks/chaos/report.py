"""What a storm was like, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.chaos.storm import Outcome

ALL_WELL = (
    "All is well: each job ended exactly once, each value is its caller's own, every permit is back, "
    "nothing is left behind."
)


def text(outcome: Outcome) -> str:
    """Some lines, the last of which says how it ended."""
    return "\n".join(_lines(outcome))


def _lines(outcome: Outcome) -> Iterator[str]:
    plan, before, after = outcome.plan, outcome.before, outcome.after
    yield f"chaos, seed {plan.seed}: {outcome.jobs:,} jobs on {outcome.slots} slots in {outcome.seconds:.1f} s"
    yield f"ended:       {_counts(outcome.outcomes)}"
    yield f"values:      {', '.join(f'{count:,} {what}' for what, count in outcome.values.items())}"
    yield f"troubles:    {_counts(outcome.troubles)}"
    yield f"memory:      {before.memory / 1e6:,.0f} MB after a third of it, {after.memory / 1e6:,.0f} MB in the end"
    yield f"objects:     {before.objects:,}, then {after.objects:,}; jobs still alive: {after.jobs}"
    yield f"descriptors: {before.descriptors}, then {after.descriptors}"
    if outcome.faults:
        yield from (f"WRONG: {fault}" for fault in outcome.faults)
    else:
        yield ALL_WELL


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items(), key=lambda entry: -entry[1]))
