"""What failed, grouped by function and kind of error, with a few examples of each. Written by the recorder alone.

Exceptions are not kept: their frames would keep the arguments of jobs alive, and with them memory of the device. Only
the thread of the `ErrorDescriber` has one until it is described. Few of them are: a traceback costs a hundred times
more than the rest, and a user's `__str__` may take any time.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from director._format import known_text
from director._untrusted.objects import (
    ForeignError,
    attribute_of,
    describe,
    is_a,
    members_of,
    module_name,
    origin_of,
    plain,
    qualified_name,
    traceback_of,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from director import Device

Kind: TypeAlias = Literal["failed", "rejected", "retried", "model"]

_MOST_KINDS = 100
_MOST_EXAMPLES = 5
_MOST_DEVICES = 64
_PAUSE = 0.5  # seconds between two examples of a kind
_MOST_CHARACTERS = 300  # of a message
_MOST_TRACEBACK = 12_000  # characters, the last ones
_MOST_FRAMES = 30  # of a traceback, the last ones
_MOST_ORIGINS = 5  # causes and contexts of an exception
_MOST_MEMBERS = 5  # of a group
_MOST_NOTES = 10


class Failure:
    """One kind of failure."""

    def __init__(self, number: int, kind: Kind, name: str, error: str, at: float, describer: ErrorDescriber) -> None:
        self._describer = describer
        self.number = number
        self.kind = kind
        self.name = name
        self.error = error
        self.count = 0
        self.first = self.last = at
        self.by_device: dict[str, int] = {}
        self.examples: deque[dict[str, Any]] = deque(maxlen=_MOST_EXAMPLES)

    def add(self, at: float, job: int | None, device: Device | None, error: BaseException) -> None:
        """Count one more, and keep it as an example if the last one is old enough."""
        self.count += 1
        self.last = at
        if device is not None and (device.label in self.by_device or len(self.by_device) < _MOST_DEVICES):
            self.by_device[device.label] = self.by_device.get(device.label, 0) + 1
        if not self.examples or at - self.examples[-1]["at"] >= _PAUSE:
            label = None if device is None else device.label
            example = {"at": at, "job": job, "device": label, "message": "", "traceback": ""}
            example["message"] = "" if is_a(error, ForeignError) else known_text(error, _MOST_CHARACTERS) or ""
            self.examples.append(example)
            self._describer.submit(partial(_describe, example, error))

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
    """All kinds of failure; when there are too many, the one that was counted least recently is dropped."""

    def __init__(self) -> None:
        self.describer = ErrorDescriber()
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
            failure = Failure(self._next, *key, at, self.describer)
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


def _type_name(error: BaseException) -> str:
    if is_a(error, ForeignError):
        module, _, name = error.told()[0].rpartition(".")
    else:
        module, name = module_name(type(error)), qualified_name(type(error))
    return name if module in ("", "builtins", "director.errors") else f"{module}.{name}"


# ---- on the thread of the ErrorDescriber


def _message(error: BaseException) -> str:
    known = known_text(error, _MOST_CHARACTERS)
    return describe(error, _MOST_CHARACTERS)[len(type_name(error)) + 2 :] if known is None else known


def _describe(example: dict[str, Any], error: BaseException) -> None:
    """Complete an example. Its keys exist already, because the event loop may read it at any time."""
    if is_a(error, ForeignError):
        _, text, told = error.told()
        example["message"], example["traceback"] = text[:_MOST_CHARACTERS], told[-_MOST_TRACEBACK:]
        return
    text = _message(error)
    example["message"] = text
    example["traceback"] = "".join(_traceback_lines(error, text))[-_MOST_TRACEBACK:]


def _traceback_lines(error: BaseException, text: str) -> list[str]:
    """The traceback as Python prints it, shortened; the message of each exception is computed once."""
    parts = _own_lines(error, text)
    seen = {id(error)}
    origin, is_cause = origin_of(error)
    while origin is not None and id(origin) not in seen and len(seen) <= _MOST_ORIGINS:
        seen.add(id(origin))
        link = "The above exception was the direct cause of the following exception:"
        if not is_cause:
            link = "During handling of the above exception, another exception occurred:"
        parts = [*_own_lines(origin, _message(origin)), f"\n{link}\n\n", *parts]
        origin, is_cause = origin_of(origin)
    return parts


def _own_lines(error: BaseException, text: str) -> list[str]:
    parts = []
    with suppress(BaseException):  # reads the sources of the user's modules
        if (entries := traceback_of(error)) is not None:
            parts = ["Traceback (most recent call last):\n", *traceback.format_tb(entries, limit=-_MOST_FRAMES)]
    parts.append(f"{_type_name(error)}: {text}\n" if text else f"{_type_name(error)}\n")
    notes = attribute_of(error, "__notes__")
    if type(notes) is list:
        parts += [f"{note}\n" for each in notes[:_MOST_NOTES] if (note := plain(each)) is not None]
    members = members_of(error)
    parts += [f"  | {_type_name(each)}: {_message(each)}\n" for each in members[:_MOST_MEMBERS]]
    if len(members) > _MOST_MEMBERS:
        parts.append(f"  | and {len(members) - _MOST_MEMBERS:,} more\n")
    return parts


_MOST_WAITING = 100  # tasks
_PATIENCE = 1.0  # seconds
_MOST_STUCK = 4  # threads


class ErrorDescriber:
    """Runs one task after the other on a thread, which ends when there are no more."""

    def __init__(self) -> None:
        # Held briefly, never while a task runs. Reentrant: a finalizer or a signal handler that runs meanwhile may
        # submit.
        self._lock = threading.RLock()
        self._tasks: deque[Callable[[], None]] = deque()
        self._worker: threading.Thread | None = None  # the thread that takes the next task
        self._since = 0.0  # when its current task began
        self._stuck = 0

    def submit(self, task: Callable[[], None]) -> bool:
        """Call `task` soon on another thread; returns False if that is not possible. It must not raise."""
        with self._lock:
            if self._worker is not None and monotonic() - self._since > _PATIENCE:
                if self._stuck == _MOST_STUCK:
                    # Deleted after the lock was released: that may run user code.
                    _dropped = self._clear()
                    return False
                # The stuck thread ends when its task returns.
                self._worker = None
                self._stuck += 1
            if len(self._tasks) >= _MOST_WAITING:
                return False
            self._tasks.append(task)
            if self._worker is None:
                worker, now = threading.Thread(target=self._work, name="director-describer", daemon=True), monotonic()
                # Checked again: a finalizer may have submitted in between.
                if self._worker is None:
                    self._worker, self._since = worker, now
                    try:
                        worker.start()
                    except (RuntimeError, MemoryError):
                        # No thread can be started now.
                        self._worker = None
                        _dropped = self._clear()
                        return False
        return True

    def _clear(self) -> deque[Callable[[], None]]:
        unasked, self._tasks = self._tasks, deque()
        return unasked

    def wait_idle(self, seconds: float = 10.0) -> None:
        """Wait until all tasks have run."""
        worker = self._worker
        if worker is not None:
            worker.join(seconds)

    def _work(self) -> None:
        mine = threading.current_thread()
        while True:
            with self._lock:
                if self._worker is not mine:
                    # The task that was stuck has returned.
                    self._stuck -= 1
                    return
                if not self._tasks:
                    self._worker = None
                    return
                task = self._tasks.popleft()
                self._since = monotonic()
            task()
            del task  # drops the reference to the exception
