"""What `director.current_job()` gives inside a child: the facts of a job, whose handle lives in the parent."""

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
        page: Where the parent says that nobody waits for the job any more.
        number: Of its request.
        device: Where it runs.
        name: As the job's.
        facts: The job's others.
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
        """Whether it still runs for its caller."""
        return _STATES[Notice(self._page.look(self._number))]

    def done(self) -> bool:
        """Whether it is over for its caller."""
        return self.state is not JobState.RUNNING

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.state is JobState.CANCELLED

    # What `director.check_cancelled` asks of a job too.

    def due_at(self) -> None:
        """The parent watches the time, and says so on the page."""

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.name!r} {self.state.value} on {self.device.label}>"
