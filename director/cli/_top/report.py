"""A snapshot of a Director as plain text: for pipes, logs, and terminals without rich. No state.

The snapshot has been escaped before, by `shown_document`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director import _format
from director.cli._console import table

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 10  # rows of a list


def report(seen: dict[str, Any]) -> Iterator[str]:
    """The lines of a snapshot."""
    yield title(seen)
    yield figures(seen)
    if seen["why_waiting"]:
        yield f"waiting: {seen['why_waiting']}"
    yield from map(out_of_service, (device for device in seen["devices"] if device["health"] != "healthy"))
    yield ""
    head = ("device", "health", "models", "busy", "slots", "jobs", "memory")
    yield from table(head, [_device(device) for device in seen["devices"]], left=3)
    for name, lines in (
        ("waiting", [waiting(each) for each in seen["waiting"][:_MOST]]),
        ("running", [running(each, seen["at"]) for each in seen["running"][:_MOST]]),
        ("failures", [failure(each, seen["at"]) for each in seen["failures"][:_MOST]]),
    ):
        if lines:
            yield ""
            yield f"{name}:"
            yield from (f"  {line}" for line in table(lines[0], lines[1:], left=3))


def title(seen: dict[str, Any]) -> str:
    """The name, state and process of the Director."""
    return (
        f"{seen['name'] or 'director'}: {seen['state']} for {_format.about(seen['open_for'])}, "
        f"process {seen['pid']} on {seen['host']}"
    )


def figures(seen: dict[str, Any]) -> str:
    """The key figures on one line."""
    counts = seen["counts"]
    slots = sum(len(device["slots"]) for device in seen["devices"])
    busy = sum(device["busy"] for device in seen["devices"])
    parts = [
        f"{_format.count(counts['queued'])} waiting",
        f"{_format.count(counts['running'])} running",
        f"{_format.count(busy)} of {_format.counted(slots, 'slot')} busy",
        f"{_format.rate(seen['per_second']['succeeded'])}",
        f"wait {percentiles(seen['waited'])}",
        f"run {percentiles(seen['ran'])}",
        *(f"{_format.count(counts[kind])} {kind}" for kind in ("failed", "cancelled", "rejected") if counts[kind]),
    ]
    if seen["batches"] and seen["batches"]["mean"] > 1:
        parts.insert(4, f"{seen['batches']['mean']:.3g} jobs per call")
    return ", ".join(parts)


def percentiles(found: dict[str, float] | None) -> str:
    """Median and 99th percentile."""
    return "unknown" if found is None else f"{_format.duration(found['p50'])} (99 %: {_format.duration(found['p99'])})"


def memory(device: dict[str, Any]) -> str:
    """Used and total memory."""
    if device["total_memory"] is None:
        return "-"
    total = f"{device['total_memory'] / 2**30:.1f} GiB"
    return total if device["used_memory"] is None else f"{device['used_memory'] / 2**30:.1f} of {total}"


def out_of_service(device: dict[str, Any]) -> str:
    """A device that is out of service, and the reason, which is too long for a table."""
    return f"{device['device']} is {device['health']}: {device['reason']}"


def waiting(each: dict[str, Any]) -> tuple[str, ...]:
    """Jobs of one function that wait."""
    oldest = "" if each["oldest"] is None else f"for up to {_format.duration(each['oldest'])}"
    return each["name"], _format.counted(each["jobs"], "job"), oldest


def running(job: dict[str, Any], at: float) -> tuple[str, ...]:
    """A job that runs."""
    progress = job["progress"]
    if isinstance(progress, float) and 0 <= progress <= 1:
        progress = f"{progress * 100:.0f} %"
    reported = "" if progress is None else str(progress)
    return str(job["job"]), job["name"], job["device"] or "-", f"for {_format.duration(at - job['started'])}", reported


def ended(job: dict[str, Any]) -> tuple[str, ...]:
    """A job that is over."""
    state = f"{job['state']}, call goes on" if job["call_goes_on"] else job["state"]
    ran = "" if job["ran"] is None else f"ran {_format.duration(job['ran'])}"
    waited = "" if job["waited"] is None else f"waited {_format.duration(job['waited'])}"
    return str(job["job"]), job["name"], job["device"] or "-", state, waited, ran


def failure(each: dict[str, Any], at: float) -> tuple[str, ...]:
    """A kind of failure."""
    when = f"{_format.about(at - each['last'])} ago"
    message = " ".join(each["message"].split())
    return each["error"], each["name"], message, _format.counted(each["count"], "time"), when


def _device(device: dict[str, Any]) -> tuple[str, ...]:
    return (
        device["device"],
        device["health"],
        ", ".join(device["models"]) or "-",
        _format.percent(device["share"]),
        f"{device['busy']}/{len(device['slots'])}",
        _format.count(device["jobs"]),
        memory(device),
    )


def describe(kind: str, found: dict[str, Any]) -> Iterator[str]:
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
        waited=_format.duration(job["waited"]) if job["waited"] is not None else None,
        ran=_format.duration(job["ran"]) if job["ran"] is not None else None,
        started=_ago(job["at"], job["started"]),
        attempts=job["attempts"] if job["attempts"] > 1 else None,
        progress=job["progress"],
    )
    why = job["why"]
    if why is None:
        return
    yield ""
    yield f"{why['error']} in {why['name']}, {_format.counted(why['count'], 'time')}"
    own = next((each for each in why["examples"] if each["job"] == job["job"]), None)
    if own is not None:
        yield from _traceback(own)


def _failure(failure: dict[str, Any]) -> Iterator[str]:
    devices = ", ".join(f"{label} {_format.counted(count, 'time')}" for label, count in failure["devices"].items())
    yield from _facts(
        error=failure["error"],
        function=failure["name"],
        times=_format.count(failure["count"]),
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
    return None if moment is None else f"{_format.about(max(0.0, at - moment))} ago"
