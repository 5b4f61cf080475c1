"""Errors of jobs as HTTP answers: problem JSON, RFC 9457. The one place that knows which status an error has.

An answer has words of ours and finite numbers alone: what an error says may be the user's, and is for the log.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from director._user_objects import attribute_of, plain
from director.errors import (
    AdmissionError,
    DeadlineUnreachable,
    DeviceError,
    DirectorClosed,
    JobTimeout,
    PlacementError,
    QueueFull,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from director.asgi._types import Send
    from director.errors import DirectorError

MEDIA_TYPE = "application/problem+json"

_LONGEST = 3600.0  # seconds after which it makes sense to come back, at most
_SOON = 1.0  # seconds to come back in when nothing better is known


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer that says what went wrong, as RFC 9457 has it.

    Args:
        status: The HTTP status.
        detail: What went wrong this time, for people.
        kind: A word for programs, such as ``"queue-full"``.
        retry_after: Seconds after which it makes sense to come back; `None` where it doesn't.
        facts: Further members of the answer.
    """

    status: int
    detail: str
    kind: str
    retry_after: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, Any]:
        """The members of the answer."""
        return {
            **self.facts,
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "kind": self.kind,
        }

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After`` in whole seconds, where there is one. The media type is `director.asgi.MEDIA_TYPE`."""
        if self.retry_after is None:
            return {}
        return {"retry-after": str(max(1, math.ceil(min(self.retry_after, _LONGEST))))}

    async def send(self, send: Send) -> None:
        """Answer with it, as an ASGI application does."""
        body = json.dumps(self.content).encode()
        headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **self.headers}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


_TIME_IS_UP = {"queued": "Time was up before it could begin.", "running": "Time was up before it was done."}

CANCELLED = Problem(503, "The work for this request was cancelled.", "cancelled", _SOON)
"""For what is no error: somebody has cancelled a job of the request, the close of the Director for one."""


def problem_of(error: DirectorError) -> Problem:
    """The answer to a request whose job ended with `error`.

    A tenant's own bound is 429; everything else that was not accepted is 503, with ``Retry-After``; time that is up is
    504; lost devices are 503; what only the application can have caused is 500, without its details.
    """
    match error:
        case QueueFull():
            tenant, waiting = attribute_of(error, "tenant"), attribute_of(error, "waiting")
            status, kind, own = (503, "queue-full", "") if tenant is None else (429, "tenant-quota", " of yours")
            many = "Too many" if _number(waiting) is None else waiting
            detail = f"{many} requests{own} wait already."
            return Problem(status, detail, kind, _retry_after(error), _facts(waiting=waiting))
        case DirectorClosed():
            return Problem(503, "The service is not taking requests now.", "closed", _SOON)
        case DeadlineUnreachable():
            facts = _facts(deadline=attribute_of(error, "deadline"), predicted=attribute_of(error, "predicted"))
            return Problem(503, "It would be late.", "deadline-unreachable", _retry_after(error), facts)
        case AdmissionError():
            return Problem(503, "The service can't take it now.", "not-admitted", _SOON)
        case JobTimeout():
            phase = "running" if plain(attribute_of(error, "phase")) == "running" else "queued"
            return Problem(504, _TIME_IS_UP[phase], "timeout", None, {"phase": phase})
        case DeviceError():
            return Problem(503, "A device that the request needs is not available.", "device", _SOON)
        case PlacementError():
            return Problem(500, "No device of this service can ever run it.", "placement")
        case _:
            return Problem(500, "The job failed.", "job-failed")


def _retry_after(error: DirectorError) -> float:
    return _number(attribute_of(error, "retry_after")) or _SOON


def _facts(**found: object) -> dict[str, int | float]:
    return {name: number for name, each in found.items() if (number := _number(each)) is not None}


def _number(found: object) -> int | float | None:
    """A number that JSON can hold; `None` for anything else."""
    if (type(found) is float and math.isfinite(found)) or (type(found) is int and abs(found) < 2**53):
        return found
    return None
