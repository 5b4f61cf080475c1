"""Which devices this server has, while another one with other code is there too. On the event loop only.

Each device has a lock, which the server holds while it has the device. One that wants it waits for the lock, and rings:
it writes to a named pipe that the holder alone reads. A server that has no other beside it holds all locks all the
time, and is never rung.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from director._devices.health.rules import Health
from director._ipc.sharing.slot_lock import SlotLock
from director._system.threads import call_once

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from director._ipc.sharing.lock_file import Folder
    from director._runtime.stats import Stats
    from director._scheduler.slots import DeviceSlots

logger = logging.getLogger("director")
TURN = 10.0
"""Seconds after which a server hands a device over that another one waits for, though jobs of its own wait too."""

_AGAIN = 1.0  # seconds


class Lender(Protocol):
    """The open Director."""

    async def lend(self, place: DeviceSlots) -> None:
        """Give a device no work, wait until its calls have ended, and unload what is loaded there."""

    def take_back(self, place: DeviceSlots) -> None:
        """Give it work again."""

    def has_waiting(self, place: DeviceSlots) -> bool:
        """Whether a job waits that may run there."""


class DeviceTurns:
    """The devices of one server.

    Args:
        home: The folder of the locks.
        places: The devices, none of which has work.
        lender: The Director that has them.
        seconds: See `TURN`.
    """

    def __init__(self, home: Folder, places: list[DeviceSlots], lender: Lender, seconds: float = TURN) -> None:
        self._loop = asyncio.get_running_loop()
        self._lender = lender
        self._seconds = seconds
        self._turns = [_Turn(place, home) for place in places]
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False
        self.is_alone = True  # it has all devices, and none of them is wanted

    async def begin(self) -> None:
        """Take the devices that no other server has, and wait for the others meanwhile."""
        for turn in self._turns:
            if turn.lock.try_enter():
                self._taken(turn)
            else:
                await self._lender.lend(turn.place)
                self._want(turn)

    def close(self) -> None:
        """The server ends, and with it its locks."""
        self._is_over = True
        for task in self._tasks:
            task.cancel()
        for turn in self._turns:
            turn.stop_listening()

    def note_work(self) -> None:
        """A job waits: it may need any device."""
        for turn in self._turns:
            self._want(turn)

    def note_end(self) -> None:
        """A job has ended."""
        for turn in self._turns:
            self._look(turn)

    def tell(self, stats: Stats) -> Stats:
        """A snapshot that says which devices another server has had for longer than a turn."""
        now = self._loop.time()
        late = {
            turn.place.device: f"another server process has had it for {now - turn.since:.0f} s"
            for turn in self._turns
            if not turn.is_held and turn.is_wanting and now - turn.since > self._seconds
        }
        if not late:
            return stats
        devices = tuple(
            dataclasses.replace(device, health=Health.QUARANTINED, reason=late[device.device])
            if device.device in late and device.health is Health.HEALTHY
            else device
            for device in stats.devices
        )
        return dataclasses.replace(stats, devices=devices)

    # ---- a device that another server has

    def _want(self, turn: _Turn) -> None:
        if turn.is_held or turn.is_wanting or self._is_over:
            return
        self.is_alone = False
        turn.is_wanting, turn.since = True, self._loop.time()
        self._spawn(self._wait_for(turn))

    async def _wait_for(self, turn: _Turn) -> None:
        told = self._loop.call_later(self._seconds, self._warn, turn)
        try:
            await asyncio.wrap_future(call_once("director:device", partial(turn.lock.enter, turn.ring)))
        except (OSError, RuntimeError) as error:  # the system has no descriptor, no thread or no space left
            logger.error("%s can't be taken over: %s. Tried again in %g s", turn.place.device.label, error, _AGAIN)
            turn.is_wanting = False
            self._loop.call_later(_AGAIN, self._want, turn)
            return
        finally:
            told.cancel()
        self._taken(turn)
        self._lender.take_back(turn.place)

    def _warn(self, turn: _Turn) -> None:
        logger.warning(
            "%s: a server process with other code has had it for %g s, because its jobs there do not end; the jobs of "
            "this one wait, or run on other devices",
            turn.place.device.label,
            self._seconds,
        )

    # ---- a device that this server has

    def _taken(self, turn: _Turn) -> None:
        turn.is_held, turn.is_wanting, turn.since = True, False, self._loop.time()
        try:
            turn.listen(partial(self._look, turn))
        except OSError as error:
            logger.error("%s: a server with other code can't ask for it: %s", turn.place.device.label, error)
        self._look(turn)

    def _look(self, turn: _Turn) -> None:
        """Hand the device over if another server wants it, and this one does not need it or has had it for a turn."""
        turn.read()
        if not turn.is_held or turn.is_leaving:
            return
        if not turn.lock.is_wanted():
            turn.stop_timer()
            self._settle()
            return
        self.is_alone = False
        rest = turn.since + self._seconds - self._loop.time()
        if rest <= 0 or not self._lender.has_waiting(turn.place):
            turn.is_leaving = True
            self._spawn(self._hand_over(turn))
        elif turn.timer is None:
            turn.timer = self._loop.call_later(rest, self._look, turn)

    async def _hand_over(self, turn: _Turn) -> None:
        await self._lender.lend(turn.place)
        turn.stop_listening()
        turn.is_held = turn.is_leaving = False
        turn.lock.leave()
        if self._lender.has_waiting(turn.place):
            self._want(turn)

    def _settle(self) -> None:
        self.is_alone = all(turn.is_held and not turn.is_leaving and turn.timer is None for turn in self._turns)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work, name="director:device")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("a device could not be handed over or taken", exc_info=error)


class _Turn:
    """One device."""

    def __init__(self, place: DeviceSlots, home: Folder) -> None:
        name = place.device.uuid.replace("/", "-")
        self.place = place
        self.lock = SlotLock(home, name)
        self.is_held = self.is_wanting = self.is_leaving = False
        self.since = 0.0  # when it was taken, or is wanted
        self.timer: asyncio.TimerHandle | None = None  # ends the turn
        self._pipe = home.path / f"{name}.wanted"
        self._descriptor = -1

    def ring(self) -> None:
        """On a thread: have the holder look. It has looked already if it does not read."""
        with suppress(OSError):
            descriptor = os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(descriptor, b"!")
            finally:
                os.close(descriptor)

    def listen(self, rung: Callable[[], None]) -> None:
        """Call `rung` when another server rings."""
        with suppress(FileExistsError):
            os.mkfifo(self._pipe, 0o600)
        self._descriptor = os.open(self._pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        asyncio.get_running_loop().add_reader(self._descriptor, rung)

    def read(self) -> None:
        """Forget the rings until now."""
        if self._descriptor >= 0:
            with suppress(BlockingIOError):
                os.read(self._descriptor, 4096)

    def stop_timer(self) -> None:
        """The turn does not end by itself."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def stop_listening(self) -> None:
        """The device is given away."""
        self.stop_timer()
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
