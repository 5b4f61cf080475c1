"""Sends the values of a stream to the application that reads it. On the event loop only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from director._jobs.stream_channel import StreamChannel

if TYPE_CHECKING:
    from director._ipc.server.body import Content
    from director._jobs.job import ScheduledJob
    from director._runtime.backend import Backend
    from director._system.clock import Clock


class Application(Protocol):
    """The application; see `director._server.session.Session`."""

    @property
    def is_draining(self) -> bool:
        """No generator waits for its reader without limit."""

    def send_value(self, number: int, job: ScheduledJob[Any], value: Content) -> None:
        """Send a value. Raises `OSError` if there is no memory or no descriptor left."""

    def not_sent(self, number: int, problem: OSError) -> None:
        """A value could not be copied: that is the outcome of the job."""


class StreamPump:
    """Sends the values of one stream, as many at once as its reader has room for.

    Args:
        number: Of its job.
        settings: `JobHead.stream`.
        backend: The open Director.
        clock: Its clock.
        session: The application.
    """

    def __init__(
        self, number: int, settings: tuple[int, float, bool], backend: Backend, clock: Clock, session: Application
    ) -> None:
        size, limit, is_patient = settings
        self._number = number
        self._room = size
        self._session = session
        self._finish: Any = None
        self.job: ScheduledJob[Any]  # set before the event loop receives values
        self.channel: StreamChannel[Any] = StreamChannel(
            size, limit, lambda: is_patient and not session.is_draining, clock, backend.call, self._send
        )
        self.channel.expect()

    def taken(self, count: int) -> None:
        """The reader has taken `count` more values."""
        self._room += count
        self._send()

    def finish(self, send_outcome: Any) -> None:
        """The job is over: send the values that are left, and then its outcome."""
        self._finish = send_outcome
        self.channel.close_writer()
        self._send()

    def close(self) -> None:
        """The reader has left: no values are sent any more."""
        self.channel.close_reader()
        self._send()

    def _send(self) -> None:
        channel = self.channel
        # When the job is over all that is left, so that its end waits for no reader; the application has room for that.
        while (self._room > 0 or self._finish is not None) and (channel.has_value or not channel.expect()):
            self._room -= 1
            try:
                self._session.send_value(self._number, self.job, channel.take())
            except OSError as problem:  # there is no memory or no descriptor left
                channel.close_reader()
                self._session.not_sent(self._number, problem)
        if self._finish is not None:
            finish, self._finish = self._finish, None
            finish()
