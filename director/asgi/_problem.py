"""Errors of jobs as HTTP answers: problem JSON, RFC 9457. The one place that knows which status an error has."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

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
        return {} if self.retry_after is None else {"retry-after": str(max(1, math.ceil(self.retry_after)))}

    async def send(self, send: Send) -> None:
        """Answer with it, as an ASGI application does."""
        body = json.dumps(self.content).encode()
        headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **self.headers}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


CANCELLED = Problem(503, "The work for this request was cancelled.", "cancelled", _SOON)
"""For what is no error: somebody has cancelled a job of the request, the close of the Director for one."""


def problem_of(error: DirectorError) -> Problem:
    """The answer to a request whose job ended with `error`.

    A tenant's own bound is 429; everything else that was not accepted is 503, with ``Retry-After``; time that is up is
    504; lost devices are 503; what only the application can have caused is 500, without its details.
    """
    match error:
        case QueueFull():
            status, kind = (503, "queue-full") if error.tenant is None else (429, "tenant-quota")
            return Problem(status, _sentence(error), kind, error.retry_after or _SOON, {"waiting": error.waiting})
        case DirectorClosed():
            return Problem(503, "The service is not taking requests now.", "closed", _SOON)
        case DeadlineUnreachable():
            facts = {"deadline": error.deadline, "predicted": error.predicted}
            return Problem(503, "It would be late.", "deadline-unreachable", error.retry_after, facts)
        case AdmissionError():
            return Problem(503, str(error), "not-admitted", _SOON)
        case JobTimeout():
            return Problem(504, str(error), "timeout", None, {"phase": error.phase})
        case DeviceError():
            return Problem(503, "A device that the request needs is not available.", "device", _SOON)
        case PlacementError():
            return Problem(500, "No device of this service can ever run it.", "placement")
        case _:
            return Problem(500, "The job failed.", "job-failed")


def _sentence(full: QueueFull) -> str:
    """For who is at the other end of the line: the error's own message speaks to the programmer."""
    own = "" if full.tenant is None else " of yours"
    return f"{full.waiting} requests{own} wait already."
