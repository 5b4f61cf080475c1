"""Numbered frames for any number of viewers, cut only while somebody looks. Owner: the Feed, on the Director's loop.

A viewer first gets the whole, then frames with what has changed. A frame is made once for all who look, and the last
ones are kept, so that a viewer that was cut off goes on where it was. With no viewers nothing runs.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from director.dashboard._glance import Glance
from director.dashboard._jobs import document, open_document
from director.dashboard._meter import Meter
from director.dashboard._recorder import Recorder
from director.dashboard._tally import SECONDS
from director.dashboard._tracks import WINDOW
from director.dashboard._view import SERIES, Moment, identity, points, track_changes, tracks_since, view

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from director import Director
    from director.dashboard._source import Frame

INTERVAL = 0.25  # seconds between frames
_KEPT = 40  # frames
_FORGOTTEN = 5.0  # seconds without a viewer, after which the next one begins anew
_SET = 0.5  # seconds by which the time of day may be off the event loop's clock, before history is told anew
_EARLY = 0.9  # of an interval, after which a frame may be cut, so that viewers who look in turn get the same one


class Feed:
    """What a Director does, as frames: a `director.dashboard._source.Source`.

    Args:
        director: Which; it must not be running yet.

    Raises:
        RuntimeError: The Director is running.
    """

    def __init__(self, director: Director) -> None:
        self._director = director
        self._recorder = Recorder(self._weigh, self._began)
        self._glance = Glance(self._recorder)
        self._meter = Meter()
        self._home: asyncio.AbstractEventLoop | None = None
        self._frames: deque[Frame] = deque(maxlen=_KEPT)
        self._number = secrets.randbits(48)  # so that no viewer of the app before takes our changes for that one's
        self._cut_at = -math.inf  # by the event loop's time
        self._epoch = 0.0  # the time of day at which the event loop's clock was at 0
        self._told = -1  # the last second whose point was told
        self._late = 0.0  # seconds by which the event loop was late, at worst, since the last frame
        self._view: dict[str, Any] = {}  # of the last frame
        director.add_hook(self._recorder)

    async def frames(self, after: int | None = None, interval: float = 0.0) -> AsyncGenerator[Frame, None]:
        """Frames, for ever; see `Source.frames`."""
        number = after
        pause = max(INTERVAL, interval)
        while True:
            self._check_home()
            self._cut_if_due()
            for frame in self._after(number):
                yield frame
                number = frame[0]
            await self._sleep(pause)

    async def snapshot(self) -> dict[str, Any]:
        """This moment, without history."""
        self._check_home()
        return self._snapshot()

    async def job(self, number: int) -> dict[str, Any] | None:
        """One job, with the examples of its failure if it has failed."""
        self._check_home()
        jobs, slots = self._recorder.jobs, self._recorder.slots
        raw = self._glance.find(number, self._director.stats().queued)
        if raw is not None:
            found = open_document(raw, slots, jobs.failed_tries(number), jobs.progress(number))
            return found | {"at": self._recorder.clock(), "why": None}
        ended = jobs.find(number)
        if ended is None:
            return None
        failure = None if ended.failure is None else self._recorder.failures.find(ended.failure)
        why = None if failure is None else failure.document()
        return document(ended, slots) | {"at": self._recorder.clock(), "why": why}

    async def failure(self, number: int) -> dict[str, Any] | None:
        """One kind of failure with its examples."""
        self._check_home()
        failure = self._recorder.failures.find(number)
        return None if failure is None else failure.document() | {"at": self._recorder.clock()}

    def _look(self) -> Moment:
        stats = self._director.stats()
        self._meter.refresh(self._director.devices)
        self._glance.look(stats.queued, asyncio.get_running_loop().time())
        now = self._recorder.clock()
        return Moment(now, self._late, self._director, stats, self._recorder, self._glance, self._meter)

    def _snapshot(self) -> dict[str, Any]:
        moment = self._look()
        known, seen = identity(self._director, moment.stats), view(moment)
        devices = [fixed | moving for fixed, moving in zip(known["devices"], seen["devices"], strict=True)]
        return known | seen | {"devices": devices}

    def _weigh(self) -> tuple[int, int]:
        stats = self._director.stats()
        return stats.queued, stats.running

    def _began(self) -> None:
        """The Director is about to open, maybe again: viewers begin anew."""
        self._home = asyncio.get_running_loop()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._frames.clear()
        self._number += 1
        self._cut_at = -math.inf

    def _check_home(self) -> None:
        if self._home not in (None, asyncio.get_running_loop()):
            raise RuntimeError(
                "a dashboard is served by the event loop that its Director runs on; "
                "from another one, use `director top --web` on the socket that `Dashboard.serve` opens"
            )

    def _cut_if_due(self) -> None:
        moment = asyncio.get_running_loop().time()
        if moment - self._cut_at < _EARLY * INTERVAL:
            return
        was_set = self._clock_was_set(moment)
        if was_set or moment - self._cut_at > _FORGOTTEN:
            self._begin_anew()
            track_changes(self._recorder)  # they are part of the whole that everybody gets now
        self._cut_at = moment
        self._number += 1
        self._frames.append((self._number, self._frame()))

    def _clock_was_set(self, moment: float) -> bool:
        """Whether the time of day has jumped: then moments that were told before are wrong."""
        epoch = time.time() - moment
        off, self._epoch = abs(epoch - self._epoch), epoch
        return off > _SET

    def _frame(self) -> bytes:
        moment = self._look()
        seen = view(moment)
        changed = {key: value for key, value in seen.items() if self._view.get(key, self) != value}
        seconds = [second for second in self._recorder.tally.last(SECONDS, moment.now) if second.at > self._told]
        self._told = seconds[-1].at if seconds else self._told
        self._view, self._late = seen, 0.0
        new = {"points": points(seconds, time.time() - moment.now), "tracks": track_changes(self._recorder)}
        return _encode({"number": self._number, **changed, **new})

    def _whole(self) -> bytes:
        now = self._recorder.clock()
        known = identity(self._director, self._director.stats())
        seconds = self._recorder.tally.last(SECONDS, now)
        history = {"points": points(seconds, time.time() - now), "tracks": tracks_since(self._recorder, now - WINDOW)}
        return _encode({"number": self._number, "identity": known, "series": SERIES, **self._view, **history})

    def _after(self, number: int | None) -> list[Frame]:
        """The frames that a viewer lacks who has the one with this number."""
        later = [frame for frame in self._frames if number is not None and frame[0] > number]
        if number == self._number or (later and later[0][0] == (number or 0) + 1):
            return later
        return [(self._number, self._whole())]

    async def _sleep(self, pause: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(pause)
        self._late = max(self._late, loop.time() - began - pause)


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
