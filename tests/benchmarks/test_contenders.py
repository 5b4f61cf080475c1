"""Every contender does the work it is timed for: each job once, and never more at a time than there are slots."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from director.cli._bench.contenders import EVERYBODY, TO_THREAD, Contender, absent, present

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOTS = 2
UNBOUNDED = (TO_THREAD,)  # it knows nothing of slots: that is why it needs help


class Crowd:
    """Counts jobs, and how many there are at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0
        self.jobs = 0

    @contextmanager
    def _inside(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.jobs += 1
            self.most = max(self.most, self._now)
        yield
        with self._lock:
            self._now -= 1

    def __call__(self, *_device: object) -> None:
        with self._inside():
            threading.Event().wait(0.0005)  # gives the GIL up: a third job could come in


@pytest.fixture(params=present(EVERYBODY), ids=lambda contender: contender.name)
def contender(request: pytest.FixtureRequest) -> Contender:
    found: Contender = request.param
    return found


@pytest.mark.parametrize("wait", ["gather", "in_turn"])
async def test_a_burst_runs_every_job_once(contender: Contender, wait: str) -> None:
    crowd = Crowd()
    async with contender.open(SLOTS) as seat:
        await getattr(seat, wait)([seat.submit(crowd) for _ in range(40)])
    assert crowd.jobs == 40
    assert crowd.most <= SLOTS or contender in UNBOUNDED


async def test_round_trips_run_every_job_once(contender: Contender) -> None:
    crowd = Crowd()
    async with contender.open(SLOTS) as seat:
        await seat.closed(4, 10, crowd)
    assert crowd.jobs == 40
    assert crowd.most <= SLOTS or contender in UNBOUNDED


def test_who_is_not_installed_is_left_out() -> None:
    stranger = Contender("stranger", EVERYBODY[0].open, needs="no_such_module_at_all")
    assert present([stranger, *EVERYBODY[:1]]) == list(EVERYBODY[:1])
    assert absent([stranger]) == [stranger]
