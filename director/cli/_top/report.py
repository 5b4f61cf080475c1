"""A snapshot of a Director as plain text: for pipes, logs, and terminals without rich. No state.

The snapshot has been escaped before, by `shown_document`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director import _format
from director._untrusted.numbers import size_text
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
        ("memory", memory(seen["devices"])),
        ("models", [model(each, seen["at"]) for each in seen["models"][:_MOST]]),
        ("waiting", [waiting(each) for each in seen["waiting"][:_MOST]]),
        ("running", [running(each, seen["at"]) for each in seen["running"][:_MOST]]),
        ("failures", [failure(each, seen["at"]) for each in seen["failures"][:_MOST]]),
        ("functions, the last minute", [group(each) for each in seen["functions"][:_MOST]]),
        ("tenants, the last minute", [group(each) for each in seen["tenants"][:_MOST]]),
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
    """The key figures on one line, each with the time that it is about."""
    counts = seen["counts"]
    slots = sum(len(device["slots"]) for device in seen["devices"])
    busy = sum(device["busy"] for device in seen["devices"])
    batches = seen["batches"]
    parts = {
        "": [
            f"{_format.count(counts['queued'])} waiting",
            f"{_format.count(counts['running'])} running",
            f"{_format.count(busy)} of {_format.counted(slots, 'slot')} busy",
        ],
        f"last {seen['recent']} s: ": [
            _format.rate(seen["per_second"]["succeeded"]),
            f"wait {percentiles(seen['waited'])}",
            f"run {percentiles(seen['ran'])}",
        ],
        "last minute: ": [
            *([f"{batches['mean']:.3g} jobs per call"] if batches and batches["mean"] > 1 else []),
            *_ends(seen["last_minute"]),
        ],
        "since the start: ": _ends(counts),
    }
    return "; ".join(f"{when}{', '.join(its)}" for when, its in parts.items() if its)


def _ends(counts: dict[str, int]) -> list[str]:
    """How many jobs have ended badly."""
    words = {"failed": "failed", "cancelled": "cancelled", "rejected": "refused"}
    return [f"{_format.count(counts[kind])} {word}" for kind, word in words.items() if counts[kind]]


def percentiles(found: dict[str, float] | None) -> str:
    """Median and 99th percentile."""
    if found is None:
        return "p50 -, p99 -"
    return f"p50 {_format.duration(found['p50'])}, p99 {_format.duration(found['p99'])}"


def group(each: dict[str, Any]) -> tuple[str, ...]:
    """What became of the jobs of a function or a tenant."""
    return (
        each["name"],
        _format.rate(each["per_second"]),
        f"{_format.count(each['failed'])} failed",
        f"wait {percentiles(each['waited'])}",
        f"run {percentiles(each['ran'])}",
    )


def memory_in_use(device: dict[str, Any]) -> str:
    """What is reserved of the budget; where nothing bounds that, used and total memory."""
    memory, total = device["memory"], device["total_memory"]
    if memory["budget"] is not None:
        return _share_of(memory["reserved"], memory["budget"])
    if total is None:
        return size(memory["reserved"]) if memory["reserved"] else "-"
    return size(total) if device["used_memory"] is None else _share_of(device["used_memory"], total)


def _share_of(part: int, whole: int) -> str:
    """Both with a unit, unless it is the same."""
    first, unit = size(part).split()
    second = size(whole)
    return f"{first} of {second}" if second.endswith(f" {unit}") else f"{first} {unit} of {second}"


def size(of: int | None) -> str:
    """Bytes for people; ``"-"`` where they are not known."""
    return "-" if of is None else size_text(of)


def memory(devices: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Of each device whose memory is accounted for: what is reserved of the budget, by what, and what is left."""
    return [
        (
            device["device"],
            memory_in_use(device),
            ", ".join(f"{kind} {size(part)}" for kind, part in memory["by"].items() if part),
            "" if memory["free"] is None else f"{size(memory['free'])} free",
            "" if device["used_memory"] is None else f"{size(device['used_memory'])} in use",
            f"{size(memory['asleep'])} of host asleep" if memory["asleep"] else "",
        )
        for device in devices
        if (memory := device["memory"])["budget"] is not None or memory["reserved"] or memory["asleep"]
    ]


def model(each: dict[str, Any], at: float) -> tuple[str, ...]:
    """A replica of a model."""
    used = "" if each["used_at"] is None else f"used {_ago(at, each['used_at'])}"
    state = f"{each['state']}, pinned" if each["pinned"] else each["state"]
    sizes = [f"{how} {size(each[how])}" for how in ("declared", "measured") if each[how] is not None]
    loaded = [f"loaded in {_format.duration(each['load_seconds'])}"] if each["load_seconds"] else []
    taken = size(each["bytes"]) + (" of host" if each["state"] == "asleep" else "")
    return each["model"], each["device"], state, taken, used, ", ".join([*sizes, *loaded])


def out_of_service(device: dict[str, Any]) -> str:
    """A device that is out of service, and the reason, which is too long for a table."""
    return f"{device['device']} is {device['health']}: {device['reason']}"


def waiting(each: dict[str, Any]) -> tuple[str, ...]:
    """Jobs of one function that wait."""
    oldest = "" if each["oldest"] is None else f"for up to {_format.duration(each['oldest'])}"
    return each["name"], _format.counted(each["jobs"], "job"), oldest


def _numbers(job: dict[str, Any]) -> str:
    """The number of a job, and how many others are in its call."""
    return str(job["job"]) if job["jobs"] == 1 else f"{job['job']} +{job['jobs'] - 1}"


def running(job: dict[str, Any], at: float) -> tuple[str, ...]:
    """A call that runs."""
    progress = job["progress"]
    if isinstance(progress, float) and 0 <= progress <= 1:
        progress = f"{progress * 100:.0f} %"
    reported = "" if progress is None else str(progress)
    return _numbers(job), job["name"], job["device"] or "-", f"for {_format.duration(at - job['started'])}", reported


def ended(job: dict[str, Any]) -> tuple[str, ...]:
    """A call that is over, or a job that never ran."""
    state = f"{job['state']}, call goes on" if job["call_goes_on"] else job["state"]
    ran = "" if job["ran"] is None else f"ran {_format.duration(job['ran'])}"
    waited = "" if job["waited"] is None else f"waited {_format.duration(job['waited'])}"
    return _numbers(job), job["name"], job["device"] or "-", state, waited, ran


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
        f"{device['busy']}/{len(device['slots'])}" + (f", {held} abandoned" if (held := device["abandoned"]) else ""),
        _format.count(device["jobs"]),
        memory_in_use(device),
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
