"""Watches the GPUs of a running Director: reads them regularly, receives their errors, and reports verdicts.

Only the watch's own thread makes and reports verdicts. It never calls NVML itself, because NVML may hang for ever when
a GPU dies. Each checkup runs on a daemon thread of its own that is not joined: one per device in ten seconds, and none
for a device whose last checkup has not returned. Another thread listens to events. All of them post to one inbox, so
the watch wakes at once, also to end. At rest it wakes for each round of checkups, and the listener four times a second.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, TypeAlias

from director._devices.health.diagnosis import Checkup, Diagnosis, Verdict, Xid
from director._devices.health.nvml_checkup import NvmlCheckup
from director._devices.health.nvml_events import DeviceChanged, NvmlEvents
from director._devices.isolated import extra_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from director._device import Device
    from director._devices.health.rules import HealthRules

_log = logging.getLogger("director")

# Seconds for an answer of NVML: a healthy GPU takes milliseconds, and one that was asleep a few seconds.
ANSWER_TIMEOUT = 10.0
_OFTEN = 1.0  # seconds between checkups after an ambiguous error or an event


class _CannotWatch:
    """Posted for a device that can't be watched."""

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid


class _Stop:
    """Posted by `stop`."""


_Post: TypeAlias = Checkup | _CannotWatch | Xid | DeviceChanged | _Stop


class NvmlWatch:
    """Watches devices from `start` to `stop`; ignores those that are not GPUs or unknown to NVML.

    Args:
        devices: The Director's devices.
        on_verdict: Called with each verdict on the watch's thread, in the order of events; must return at once. Not
            called after `stop` has returned.
        rules: The user's rules.
        answer_timeout: Seconds that NVML has for an answer.
    """

    def __init__(
        self,
        devices: Iterable[Device],
        on_verdict: Callable[[Verdict], object],
        rules: HealthRules,
        *,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        self._readers = {device.uuid: NvmlCheckup(device.uuid) for device in devices if device.kind == "cuda"}
        self._on_verdict = on_verdict
        self._interval = rules.interval
        self._answer_timeout = answer_timeout
        self._diagnosis = Diagnosis(self._readers, rules)
        self._inbox: queue.SimpleQueue[_Post] = queue.SimpleQueue()
        self._listener = NvmlEvents(self._readers, self._inbox.put)
        self._thread = threading.Thread(target=self._run, name="director:watch", daemon=True)
        self._asked: dict[str, float] = {}  # running checkups, and when they began
        self._late: set[str] = set()  # those of them that have exceeded the timeout once
        self._silent: set[str] = set()
        self._checkups: dict[str, Checkup] = {}
        self._next_round = self._last_round = 0.0
        # Held during `on_verdict`, so that none is called after `stop` has returned. Reentrant, because `on_verdict`
        # may call `stop`.
        self._lock = threading.RLock()
        self._over = False

    @property
    def checkups(self) -> Mapping[str, Checkup]:
        """The last checkup of each device that has one, by UUID; on any thread."""
        return dict(self._checkups)

    @property
    def is_running(self) -> bool:
        """Whether its thread has been started and has not ended."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start to watch. Starts nothing if there is nothing to watch; warns if no thread can be started."""
        if not self._readers or self._interval is None:
            return
        try:
            self._thread.start()
            self._listener.start()
        except (RuntimeError, MemoryError) as error:
            what = "XIDs of the GPUs are not seen" if self._thread.ident else "the health of the GPUs is not watched"
            _log.warning("%s: %s", what, error)

    def stop(self) -> None:
        """Report no more verdicts, and let the threads end; returns at once."""
        with self._lock:
            self._over = True
        self._inbox.put(_Stop())
        self._listener.stop()

    def join(self, timeout: float = 1.0) -> bool:
        """Wait after `stop` until the threads have ended; returns False if NVML blocks one of them.

        Never called at exit.
        """
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        return self._listener.join(timeout) and not self._thread.is_alive()

    # From here on: the watch's thread.

    def _run(self) -> None:
        self._read_all(time.monotonic())
        while not self._over and self._readers:
            try:
                post = self._inbox.get(timeout=max(0.0, self._due() - time.monotonic()))
            except queue.Empty:
                pass
            else:
                self._open(post)
            self._check_all(time.monotonic())
        self._listener.stop()

    def _due(self) -> float:
        """When the thread has to wake up without a message."""
        overdue = [begun + self._answer_timeout for uuid, begun in self._asked.items() if uuid not in self._silent]
        return min([self._next_round, *overdue])

    def _open(self, post: _Post) -> None:
        match post:
            case Checkup():
                self._add_checkup(post)
            case _CannotWatch():
                del self._readers[post.uuid], self._asked[post.uuid]
                self._late.discard(post.uuid)
                self._silent.discard(post.uuid)
                self._diagnosis.drop(post.uuid)
            case Xid():
                verdict = self._diagnosis.add_xid(post, time.monotonic())
                if verdict is not None:
                    self._report(verdict)
            case DeviceChanged():
                self._read_all_now()

    def _add_checkup(self, checkup: Checkup) -> None:
        before = self._checkups.get(checkup.uuid)
        del self._asked[checkup.uuid]
        self._late.discard(checkup.uuid)
        self._silent.discard(checkup.uuid)
        self._checkups[checkup.uuid] = checkup
        self._diagnosis.add_checkup(checkup)
        if self._diagnosis.in_doubt:
            self._read_all_now()
        if before is not None and before.condition == "lost" != checkup.condition:
            self._listener.renew()

    def _check_all(self, now: float) -> None:
        for uuid, begun in self._asked.items():
            if uuid in self._silent or now < begun + self._answer_timeout:
                continue
            if uuid not in self._late:
                self._late.add(uuid)
                self._asked[uuid] = now + extra_wait(self._answer_timeout) - self._answer_timeout
            else:
                self._silent.add(uuid)
                self._diagnosis.add_timeout(uuid, now)
                self._read_all_now()  # the answers of the others show which one is broken
        for verdict in self._diagnosis.changes(now):
            self._report(verdict)
        if now >= self._next_round:
            self._read_all(now)

    def _read_all_now(self) -> None:
        self._next_round = min(self._next_round, self._last_round + _OFTEN)

    def _read_all(self, now: float) -> None:
        assert self._interval is not None
        self._last_round, self._next_round = now, now + self._interval
        for uuid, reader in self._readers.items():
            if uuid not in self._asked:
                self._asked[uuid] = now
                self._start_checkup(uuid, reader)

    def _start_checkup(self, uuid: str, reader: NvmlCheckup) -> None:
        def read() -> None:
            checkup = None
            try:
                checkup = reader.read()
            except Exception:  # noqa: BLE001 - a bug of ours must not look like a device that does not answer
                _log.exception("The health of device %s can't be read: it is watched no more.", uuid)
            self._inbox.put(checkup or _CannotWatch(uuid))

        try:
            threading.Thread(target=read, name="director-checkup", daemon=True).start()
        except (RuntimeError, MemoryError):  # no thread can be started now: tried again later
            del self._asked[uuid]

    def _report(self, verdict: Verdict) -> None:
        with self._lock:
            if self._over:
                return
            try:
                self._on_verdict(verdict)
            except Exception:  # noqa: BLE001 - our own bug, or an event loop that was closed under us
                self._over = True
                _log.exception("The health of the devices can't be reported: they are watched no more.")
