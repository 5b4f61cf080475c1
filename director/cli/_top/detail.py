"""Everything about one job or one kind of failure, as lines. No state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director.cli import _words
from director.cli._table import table

if TYPE_CHECKING:
    from collections.abc import Iterator


def tell(kind: str, found: dict[str, Any]) -> Iterator[str]:
    """The lines about a ``"job"`` or a ``"failure"``."""
    yield from (_job if kind == "job" else _failure)(found)


def _job(job: dict[str, Any]) -> Iterator[str]:
    state = f"{job['state']} for its caller; the call goes on" if job["call_goes_on"] else job["state"]
    yield from _facts(
        function=job["name"],
        state=state,
        device=job["device"],
        slot=job["slot"],
        submitted=_ago(job["at"], job["submitted"]),
        waited=_words.duration(job["waited"]) if job["waited"] is not None else None,
        ran=_words.duration(job["ran"]) if job["ran"] is not None else None,
        started=_ago(job["at"], job["started"]),
        attempts=job["attempts"] if job["attempts"] > 1 else None,
        progress=job["progress"],
    )
    why = job["why"]
    if why is None:
        return
    yield ""
    yield f"{why['error']} in {why['name']}, {_words.counted(why['count'], 'time')}"
    own = next((each for each in why["examples"] if each["job"] == job["job"]), None)
    if own is not None:
        yield from _traceback(own)


def _failure(failure: dict[str, Any]) -> Iterator[str]:
    devices = ", ".join(f"{label} {_words.counted(count, 'time')}" for label, count in failure["devices"].items())
    yield from _facts(
        error=failure["error"],
        function=failure["name"],
        times=_words.count(failure["count"]),
        first=_ago(failure["at"], failure["first"]),
        last=_ago(failure["at"], failure["last"]),
        devices=devices or None,
    )
    for example in failure["examples"]:
        where = f" on {example['device']}" if example["device"] else ""
        job = f", job {example['job']}" if example["job"] is not None else ""
        yield ""
        yield f"{_ago(failure['at'], example['at'])}{where}{job}"
        yield from _traceback(example)


def _traceback(example: dict[str, Any]) -> Iterator[str]:
    yield from example["traceback"].splitlines()


def _facts(**facts: Any) -> list[str]:
    rows = [(name.replace("_", " "), str(value)) for name, value in facts.items() if value is not None]
    return table(rows[0], rows[1:], left=2)


def _ago(at: float, moment: float | None) -> str | None:
    return None if moment is None else f"{_words.about(max(0.0, at - moment))} ago"
