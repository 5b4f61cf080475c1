"""What failed, grouped by function and kind of error, with a few examples of each. Written by the recorder alone.

Exceptions are never kept: their frames would keep the arguments of jobs alive, and with them memory of the device. What
can be said of them is written down at once; tracebacks only now and then, for they cost a hundred times more.
"""

from __future__ import annotations

import traceback
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from director import Device

Kind: TypeAlias = Literal["failed", "rejected", "retried", "model"]

_MOST_KINDS = 100
_MOST_EXAMPLES = 5
_MOST_DEVICES = 64
_PAUSE = 0.5  # seconds between two examples of a kind
_MOST_CHARACTERS = 300  # of a message
_MOST_TRACEBACK = 12_000  # characters, the last ones
_MOST_FRAMES = 30


class Failure:
    """One kind of failure."""

    def __init__(self, number: int, kind: Kind, name: str, error: str, at: float) -> None:
        self.number = number
        self.kind = kind
        self.name = name
        self.error = error
        self.count = 0
        self.first = self.last = at
        self.by_device: dict[str, int] = {}
        self.examples: deque[dict[str, Any]] = deque(maxlen=_MOST_EXAMPLES)

    def add(self, at: float, job: int | None, device: Device | None, error: BaseException) -> None:
        """One more."""
        self.count += 1
        self.last = at
        if device is not None and (device.label in self.by_device or len(self.by_device) < _MOST_DEVICES):
            self.by_device[device.label] = self.by_device.get(device.label, 0) + 1
        if not self.examples or at - self.examples[-1]["at"] >= _PAUSE:
            self.examples.append(_example(at, job, device, error))

    def summary(self) -> dict[str, Any]:
        """As it travels in a list."""
        latest = self.examples[-1]
        return {
            "failure": self.number,
            "kind": self.kind,
            "name": self.name,
            "error": self.error,
            "message": latest["message"],
            "job": latest["job"],
            "count": self.count,
            "first": self.first,
            "last": self.last,
            "devices": self.by_device,
        }

    def document(self) -> dict[str, Any]:
        """With its examples, the latest first."""
        return self.summary() | {"examples": list(reversed(self.examples))}


class Failures:
    """All kinds of failure, of which the longest unseen are forgotten."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[Kind, str, str], Failure] = {}  # the latest last
        self._next = 1

    def add(
        self,
        kind: Kind,
        name: str,
        error: BaseException,
        at: float,
        job: int | None = None,
        device: Device | None = None,
    ) -> int:
        """Count one more; returns the number of its kind."""
        key = kind, name, _type_name(error)
        failure = self._kinds.pop(key, None)
        if failure is None:
            failure = Failure(self._next, *key, at)
            self._next += 1
            if len(self._kinds) >= _MOST_KINDS:
                del self._kinds[next(iter(self._kinds))]
        failure.add(at, job, device, error)
        self._kinds[key] = failure
        return failure.number

    def latest(self, count: int) -> list[Failure]:
        """The latest, newest first."""
        return list(reversed(self._kinds.values()))[:count]

    def find(self, number: int) -> Failure | None:
        """The one with this number, if it is kept."""
        return next((failure for failure in self._kinds.values() if failure.number == number), None)


def _example(at: float, job: int | None, device: Device | None, error: BaseException) -> dict[str, Any]:
    return {
        "at": at,
        "job": job,
        "device": None if device is None else device.label,
        "message": _message(error),
        "traceback": _traceback(error),
    }


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ in ("builtins", "director.errors")
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _message(error: BaseException) -> str:
    try:
        return str(error)[:_MOST_CHARACTERS]
    except Exception as wrong:  # noqa: BLE001 - a user's own __str__
        return f"<str() raised {type(wrong).__name__}>"


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-_MOST_FRAMES))[-_MOST_TRACEBACK:]
