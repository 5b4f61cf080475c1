"""Writes events to the log of the standard library. Without this hook a Director only logs warnings."""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from director._format import known_repr, known_text, plain
from director._untrusted.numbers import size_text
from director.events import (
    DeviceJoined,
    DeviceQuarantined,
    DeviceRestored,
    DirectorDrained,
    DirectorOpened,
    Event,
    JobCancelled,
    JobEvent,
    JobFailed,
    JobProgressed,
    JobRejected,
    JobRetried,
    JobStarted,
    JobSubmitted,
    JobSucceeded,
    MemoryVeto,
    ModelEvicted,
    ModelFailed,
    ModelLoaded,
    ModelUnloaded,
    WorkerHired,
    WorkerReaped,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Logs"]

_LONGEST = 1_000  # characters of an error or a progress


def _shown(value: object) -> str:
    return known_repr(value, _LONGEST)


# The logger, the level and the words of each kind of event.
_DIRECTOR, _JOBS, _MODELS, _WORKERS = "director", "director.jobs", "director.models", "director.workers"
_LINES: dict[type[Event], tuple[str, int, Callable[[Any], str]]] = {
    DirectorOpened: (_DIRECTOR, logging.INFO, lambda it: f"open on {', '.join(d.label for d in it.devices)}"),
    DirectorDrained: (_DIRECTOR, logging.INFO, lambda it: "drained"),
    JobSubmitted: (_JOBS, logging.DEBUG, lambda it: f"{_job(it)} submitted"),
    JobRejected: (_JOBS, logging.WARNING, lambda it: f"{it.name} rejected: {known_text(it.error, _LONGEST)}"),
    JobStarted: (_JOBS, logging.DEBUG, lambda it: f"{_job(it)} started on {it.device.label} after {it.waited:.6f} s"),
    JobProgressed: (_JOBS, logging.DEBUG, lambda it: f"{_job(it)}: {_shown(it.progress)}"),
    JobRetried: (
        _JOBS,
        logging.INFO,
        lambda it: f"{_job(it)} is tried again after try {it.attempt}: {_shown(it.error)}",
    ),
    JobSucceeded: (_JOBS, logging.DEBUG, lambda it: f"{_job(it)} succeeded in {it.ran or 0.0:.6f} s"),
    JobFailed: (_JOBS, logging.INFO, lambda it: f"{_job(it)} failed: {_shown(it.error)}"),
    JobCancelled: (_JOBS, logging.DEBUG, lambda it: f"{_job(it)} cancelled"),
    WorkerHired: (_WORKERS, logging.DEBUG, lambda it: f"a worker begins on slot {it.slot} of {it.device.label}"),
    WorkerReaped: (_WORKERS, logging.DEBUG, lambda it: f"the worker on slot {it.slot} of {it.device.label} has left"),
    DeviceJoined: (_DIRECTOR, logging.INFO, lambda it: f"{it.device.label} has joined"),
    DeviceQuarantined: (_DIRECTOR, logging.INFO, lambda it: f"{it.device.label} in quarantine: {it.reason}"),
    DeviceRestored: (_DIRECTOR, logging.INFO, lambda it: f"{it.device.label} back from quarantine"),
    ModelLoaded: (_MODELS, logging.INFO, lambda it: f"{it.model} loaded on {it.device.label} in {it.seconds:.3f} s"),
    ModelFailed: (
        _MODELS,
        logging.WARNING,
        lambda it: f"{it.model} failed to load on {it.device.label}: {_shown(it.error)}",
    ),
    ModelEvicted: (
        _MODELS,
        logging.INFO,
        lambda it: f"{it.model} leaves {it.device.label} for {it.wanted}: {size_text(it.bytes)}",
    ),
    MemoryVeto: (
        _MODELS,
        logging.INFO,
        lambda it: (
            f"{it.model} waits on {it.device.label}: it needs {size_text(it.bytes)}, and {size_text(it.free)} are free"
        ),
    ),
    ModelUnloaded: (_MODELS, logging.INFO, lambda it: f"{it.model} unloaded from {it.device.label}"),
}


class Logs:
    """A hook that writes one line for each event: ``Director(hooks=[Logs()])``.

    Lines go to ``director`` (INFO), ``director.jobs`` (DEBUG; a failure or a retry
    INFO, because the caller gets the error too; a rejected job WARNING), ``director.models`` (INFO; a failure WARNING)
    and ``director.workers`` (DEBUG). Each record has the facts of its event as the dict `director`, for formatters that
    write JSON.

    Events that no logger is enabled for when the Director starts cost nothing: they are not made.
    """

    @property
    def wants(self) -> tuple[type[Event], ...]:
        """The kinds of events that a logger is enabled for at present."""
        return tuple(kind for kind, (part, level, _) in _LINES.items() if logging.getLogger(part).isEnabledFor(level))

    def __call__(self, event: Event) -> None:
        """Write its line."""
        name, level, words = _LINES[type(event)]
        logger = logging.getLogger(name)
        if logger.isEnabledFor(level):
            facts = {field.name: getattr(event, field.name) for field in fields(event)}
            logger.log(level, "%s", plain(words(event)), extra={"director": {"event": type(event).__name__, **facts}})


def _job(event: JobEvent) -> str:
    return f"job {event.job} {event.name}"
