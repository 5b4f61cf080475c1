"""Numbered frames for any number of viewers, made only while there are viewers.

Owner: the Feed, on the Director's loop.

A viewer first gets a frame with everything ("the whole"), then frames with what has changed. Both are made once for all
viewers. The last frames are kept, so that a viewer can reconnect and continue; so is the last whole, which the next
viewers get with the frames after it. A whole is made one track at a time, so that the loop can run other callbacks in
between. Without viewers nothing runs.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from director.dashboard._current import CurrentJobs, Meter
from director.dashboard._jobs import document, open_document, shown
from director.dashboard._recorder import Recorder
from director.dashboard._source import TooManyViewers
from director.dashboard._tally import SECONDS
from director.dashboard._tracks import WINDOW
from director.dashboard._view import SERIES, Snapshot, identity, points, track_changes, view

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from director.dashboard._source import Frame
    from director.dashboard._view import Shown

INTERVAL = 0.25  # seconds between frames
_KEPT = 40  # frames
_FORGOTTEN = 2.0  # seconds without a viewer, after which the next one gets a new whole
_SET = 0.5  # seconds that the time of day may differ from the event loop's clock before history is sent again
MOST_VIEWERS = 64  # at once; each costs the loop some time
_AGE = 4  # intervals after which a new whole is made for the next viewer
# The share of an interval after which a new frame may be made, so that viewers with different timing share frames.
_EARLY = 0.9


class Feed:
    """The state of a Director as frames: a `director.dashboard._source.Source`.

    Args:
        director: The Director.
        opened_at: When it was opened, by its clock, if it runs and takes hooks all the same.

    Raises:
        RuntimeError: It is running, and takes no more hooks.
    """

    def __init__(self, director: Shown, opened_at: float | None = None) -> None:
        self._director = director
        self._opened_at = opened_at
        self.recorder = Recorder(self._count_jobs, self._began)
        self._glance = CurrentJobs(self.recorder)
        self._meter = Meter()
        self._home: asyncio.AbstractEventLoop | None = None
        self._frames: deque[Frame] = deque(maxlen=_KEPT)
        # Random, so that a viewer of an earlier app with this address does not apply our frames to its state.
        self._number = secrets.randbits(48)
        self._cut_at = -math.inf  # by the event loop's time
        self._epoch = 0.0  # the time of day at which the event loop's clock was at 0
        self._told = -1  # the last second whose point was sent
        self._late = 0.0  # seconds by which the event loop was late, at worst, since the last frame
        self._view: dict[str, Any] = {}  # of the last frame
        self._viewers = 0
        self._whole: Frame | None = None  # the last one, if any
        self._whole_at = -math.inf  # when its frame was cut, by the event loop's time
        self._making = asyncio.Lock()  # held while one viewer makes a whole for all that wait
        director.add_hook(self.recorder)

    async def frames(self, after: int | None = None, interval: float = 0.0) -> AsyncGenerator[Frame, None]:
        """Yield frames without end; see `Source.frames`."""
        if self._viewers >= MOST_VIEWERS:
            raise TooManyViewers(f"{MOST_VIEWERS} viewers look at this Director already, which is the most")
        self._viewers += 1
        try:
            number = after
            pause = max(INTERVAL, interval)
            while True:
                self._check_loop()
                self._cut_if_due()
                lacking = self._after(number)
                for frame in await self._whole_and_after() if lacking is None else lacking:
                    yield frame
                    number = frame[0]
                await self._sleep(pause)
        finally:
            self._viewers -= 1

    async def snapshot(self) -> dict[str, Any]:
        """The current state, without history."""
        self._check_loop()
        return self._snapshot()

    async def job(self, number: int) -> dict[str, Any] | None:
        """One job, with the examples of its failure if it has failed."""
        self._check_loop()
        jobs, slots = self.recorder.jobs, self.recorder.slots
        raw = self._glance.find(number, self._director.stats().queued)
        if raw is not None:
            found = open_document(raw, slots, jobs.failed_tries(number), jobs.progress(number))
            return found | {"at": self.recorder.clock(), "why": None}
        ended = jobs.find(number)
        if ended is None:
            return None
        failure = None if ended.failure is None else self.recorder.failures.find(ended.failure)
        why = None if failure is None else failure.document()
        return document(ended, slots) | {"at": self.recorder.clock(), "why": why}

    async def failure(self, number: int) -> dict[str, Any] | None:
        """One kind of failure with its examples."""
        self._check_loop()
        failure = self.recorder.failures.find(number)
        return None if failure is None else failure.document() | {"at": self.recorder.clock()}

    def _take_snapshot(self) -> Snapshot:
        stats = self._director.stats()
        self._meter.refresh(self._director.devices)
        self._glance.refresh(stats.queued, asyncio.get_running_loop().time())
        for raw in self._glance.running:
            self.recorder.meet(shown(raw[1]))
        now = self.recorder.clock()
        self.recorder.tally.count_refused(stats.rejected, now)
        return Snapshot(now, self._late, self._director, stats, self.recorder, self._glance, self._meter)

    def _snapshot(self) -> dict[str, Any]:
        moment = self._take_snapshot()
        known, seen = identity(self._director, moment.stats), view(moment)
        devices = [fixed | moving for fixed, moving in zip(known["devices"], seen["devices"], strict=True)]
        return known | seen | {"devices": devices}

    def _count_jobs(self) -> tuple[int, int, int]:
        stats = self._director.stats()
        return stats.queued, stats.running, stats.rejected

    def _began(self) -> None:
        """The Director is about to open, maybe again: viewers get a new whole."""
        self._home = asyncio.get_running_loop()
        self._making = asyncio.Lock()
        if self._opened_at is not None:
            self.recorder.begin_late(self._opened_at, self._director.stats().rejected)
        self._restart()

    def _restart(self) -> None:
        # A new object: `_make_whole` detects by it that its result is outdated.
        self._frames = deque(maxlen=_KEPT)
        self._whole = None
        self._number += 1
        self._cut_at = -math.inf

    def _check_loop(self) -> None:
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
            self._restart()
            for track in self.recorder.tracks:
                # They are part of the whole that all viewers get now.
                track.forget_changes()
        self._cut_at = moment
        self._number += 1
        self._frames.append((self._number, self._frame()))

    def _clock_was_set(self, moment: float) -> bool:
        """Whether the time of day has been changed: then times that were sent before are wrong."""
        epoch = time.time() - moment
        off, self._epoch = abs(epoch - self._epoch), epoch
        return off > _SET

    def _frame(self) -> bytes:
        moment = self._take_snapshot()
        seen = view(moment)
        changed = {key: value for key, value in seen.items() if self._view.get(key, self) != value}
        seconds = [second for second in self.recorder.tally.last(SECONDS, moment.now) if second.at > self._told]
        self._told = seconds[-1].at if seconds else self._told
        self._view, self._late = seen, 0.0
        new = {"points": points(seconds, time.time() - moment.now), "tracks": track_changes(self.recorder)}
        return _encode({"number": self._number, **changed, **new})

    def _after(self, number: int | None) -> list[Frame] | None:
        """The frames after the one with this number; `None` if the viewer needs the whole."""
        if number is None or not 0 <= self._number - number <= len(self._frames):
            return None
        return [frame for frame in self._frames if frame[0] > number]

    async def _whole_and_after(self) -> list[Frame]:
        """The whole and all frames after it."""
        while True:
            async with self._making:
                self._cut_if_due()
                is_old = asyncio.get_running_loop().time() - self._whole_at > _AGE * INTERVAL
                if self._whole is None or is_old or self._after(self._whole[0]) is None:
                    self._whole_at, self._whole = self._cut_at, await self._make_whole()
            if self._whole is not None and (later := self._after(self._whole[0])) is not None:
                return [self._whole, *later]

    async def _make_whole(self) -> Frame | None:
        """The state of the last frame with its history; `None` if the Director was opened again meanwhile.

        A change on a track during this may be part of it already: the next frame contains it again.
        """
        number, frames, tracks, told = self._number, self._frames, self.recorder.tracks, self._told
        now = self.recorder.clock()
        seconds = [second for second in self.recorder.tally.last(SECONDS, now) if second.at <= told]
        head = {
            "number": number,
            "identity": identity(self._director, self._director.stats()),
            "series": SERIES,
            **self._view,
            "points": points(seconds, time.time() - now),
        }
        parts = []
        for slot, track in enumerate(tracks):
            await asyncio.sleep(0)
            if frames is not self._frames:
                return None
            parts.append(f'"{slot}":{track.encoded(now - WINDOW)}')
        return number, b'%b,"tracks":{%b}}' % (_encode(head)[:-1], ",".join(parts).encode())

    async def _sleep(self, pause: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(pause)
        self._late = max(self._late, loop.time() - began - pause)


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
