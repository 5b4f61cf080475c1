"""What `director.current_job()` returns in a child: the facts of a job, whose handle is in the parent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._ipc.shared_page import Notice
from director._jobs.state import JobState

if TYPE_CHECKING:
    from director._device import Device
    from director._ipc.protocol import Facts
    from director._ipc.shared_page import SharedPage

_STATES = {Notice.NONE: JobState.RUNNING, Notice.CANCELLED: JobState.CANCELLED, Notice.TIME_IS_UP: JobState.FAILED}


class WorkerJob:
    """The facts of a running job; its result and callbacks belong to the parent's event loop.

    Args:
        page: Has the parent's notices.
        number: The number of the request.
        device: The device.
        name: The job's name.
        facts: Its other facts.
    """

    def __init__(self, page: SharedPage, number: int, device: Device, name: str, facts: Facts) -> None:
        self._page = page
        self._number = number
        self.device = device
        self.name = name
        self.id, self.priority, self.attempts, self.waited = facts
        self.ran: float | None = None
        self.progress: Any = None

    @property
    def state(self) -> JobState:
        """RUNNING until the parent has posted a notice."""
        return _STATES[Notice(self._page.look(self._number))]

    def done(self) -> bool:
        """Whether it has ended for its caller."""
        return self.state is not JobState.RUNNING

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.state is JobState.CANCELLED

    # Also called by `director.check_cancelled`.

    def due_at(self) -> None:
        """None: the parent watches the time, and posts a notice."""

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.name!r} {self.state.value} on {self.device.label}>"
