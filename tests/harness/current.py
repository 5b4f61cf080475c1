"""Functions that tell what `director.current_job()` gives, wherever they are called."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import director

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Account:
    """A tenant that is no plain value."""

    number: int


class Unsendable:
    """A tenant that can't be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def facts(*_given: Any) -> dict[str, Any]:
    """All that the contract names."""
    job = director.current_job()
    before = job.progress
    director.report({"done": 1})
    told: dict[str, Any] = {
        name: getattr(job, name) for name in ("id", "state", "device", "priority", "waited", "ran", "attempts", "name")
    }
    told |= {"tenant": tenant(), "done": job.done(), "cancelled": job.cancelled(), "text": repr(job)}
    told["progress"] = before, job.progress, director.current_job().progress
    told["refused"] = [_refusal(call) for call in (job.cancel, job.result, job.exception)]
    return told


def tenant(*_given: Any) -> Any:
    """The tenant, or what asking for it raises."""
    try:
        return director.current_job().tenant
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def tenants(_resource: Any, items: list[Any]) -> list[Any]:
    """Of a batch."""
    return [tenant() for _ in items]


def stream(_resource: Any, count: int) -> Iterator[Any]:
    """A generator."""
    for _ in range(count):
        yield tenant()


def _refusal(call: Any) -> str:
    try:
        return f"returned {call()}"
    except Exception as error:
        return type(error).__name__
