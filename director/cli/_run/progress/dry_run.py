"""`--dry-run`: what a run would do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from director import _format
from director.cli import _status
from director.cli._console import print_text, shown
from director.cli._run.output.sinks import Descriptor

if TYPE_CHECKING:
    import argparse

    from director import Model
    from director.cli._run.input.sources import Source
    from director.cli._run.journal.history import History
    from director.cli._run.journal.pending import Pending
    from director.cli._run.output.saved import Template

_EXAMPLES = 3
_REASONS = {
    "changed": "to be run again: their files have changed",
    "retried": "to be tried again: they have failed",
    "ok": "left out: done before",
    "failed": "left out: failed before",
    "untried": "left out: not tried yet",
    "elsewhere": "left out: of other shards",
    "existing": "left out: their files are there",
}


def print_plan(
    options: argparse.Namespace,
    stdout: int | None,
    pending: Pending,
    source: Source,
    model: Model[Any] | None,
    template: Template | None,
    history: History | None,
) -> int:
    """Read the input, and print what would be run; no model is loaded and no device is opened.

    Returns:
        The exit status.
    """
    examples: list[str] = []
    if source.can_repeat:
        for item in pending:
            if len(examples) < _EXAMPLES:
                examples.append(template.target(item) if template is not None and not item.error else item.name)
    counts = pending.counts
    plan = {
        "to_run": counts.to_run if source.can_repeat else None,
        "new": counts.new,
        **{name: getattr(counts, name) for name in _REASONS},
        "resumes": history is not None,
        "lost": 0 if history is None else history.lost,
        "function": options.function,
        "model": None if model is None else {"name": model.name, "memory": getattr(model, "memory", None)},
        "devices": options.devices or "gpu",
        "examples": examples,
    }
    text = json.dumps(plan) if options.json else "\n".join(_lines(plan, source))
    if stdout is None:
        print_text(text)
    else:
        Descriptor(stdout).write(f"{shown(text)}\n".encode("utf-8", "backslashreplace"))
    return _status.DONE


def _lines(plan: dict[str, Any], source: Source) -> list[str]:
    if source.can_repeat:
        lines = [f"{_format.counted(plan['to_run'], 'item')} to run with {plan['function']}"]
    else:
        lines = [f"items of a stream, which is not read, to run with {plan['function']}"]
    lines += [f"  {_format.counted(plan[name], 'item')} {why}" for name, why in _REASONS.items() if plan[name]]
    if plan["lost"]:
        lines.append(f"  {_format.counted(plan['lost'], 'result')} of the journal not in the output: to be run again")
    if plan["model"] is not None:
        memory = plan["model"]["memory"]
        lines.append(f"model {plan['model']['name']}" + ("" if memory is None else f", {memory / 2**30:.2f} GiB each"))
    lines.append(f"devices {plan['devices']}")
    lines += [f"  {example}" for example in plan["examples"]]
    return lines
