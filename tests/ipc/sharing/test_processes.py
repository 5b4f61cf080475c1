"""Four real processes on two devices, and one of them is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

RIVAL = Path(__file__).with_name("rival.py")
PATIENCE = 20.0


class Rival:
    """One of the processes, and what it has said."""

    def __init__(self, role: str, folder: Path, heard: threading.Condition) -> None:
        self._heard = heard
        self.said: list[list[str]] = []
        command = [sys.executable, str(RIVAL), "rivals", role, str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._heard:
                self.said.append(line.split())
                self._heard.notify_all()
        with self._heard:
            self._heard.notify_all()

    def has_failed(self) -> bool:
        """It has ended by itself, with an error."""
        return (self.process.poll() or 0) > 0

    def count(self, *words: str) -> int:
        return sum(line[: len(words)] == list(words) for line in self.said)

    def finish(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()

    def end(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Rivals:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._heard = threading.Condition()
        self.all: list[Rival] = []

    def start(self, role: str) -> Rival:
        rival = Rival(role, self._folder, self._heard)
        self.all.append(rival)
        return rival

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what they have said makes it true."""
        with self._heard:
            self._heard.wait_for(lambda: condition() or any(rival.has_failed() for rival in self.all), PATIENCE)
            assert condition(), [rival.said[-3:] for rival in self.all]


@pytest.fixture
def rivals(tmp_path: Path) -> Iterator[Rivals]:
    (tmp_path / "marks").mkdir()
    rivals = Rivals(tmp_path / "marks")
    yield rivals
    for rival in rivals.all:
        rival.end()


def test_four_processes_share_and_one_is_killed(rivals: Rivals) -> None:
    victim = rivals.start("hold")
    rivals.until(lambda: victim.count("began") == 1)
    ((_, taken),) = victim.said
    free = {"simulated:0", "simulated:1"} - {taken}
    workers = [rivals.start("work") for _ in range(3)]

    # One device is taken: all work on the other one.
    rivals.until(lambda: all(worker.count("done") >= 10 for worker in workers))
    assert {line[1] for worker in workers for line in worker.said if line[0] == "done"} == free

    # Its holder dies: the others have it, all of them.
    victim.process.kill()
    rivals.until(lambda: all(worker.count("done", taken) >= 10 for worker in workers))

    # All have had their share of what was done since.
    before = [worker.count("done") for worker in workers]
    rivals.until(lambda: sum(worker.count("done") for worker in workers) >= sum(before) + 300)
    shares = [worker.count("done") - already for worker, already in zip(workers, before, strict=True)]
    assert min(shares) >= 30, shares

    for worker in workers:
        worker.finish()
    rivals.until(lambda: all(worker.count("closed") for worker in workers))
    assert Counter(line[0] for rival in rivals.all for line in rival.said)["clash"] == 0
    assert [worker.process.wait(PATIENCE) for worker in workers] == [0, 0, 0]


def test_a_clash_would_be_seen(tmp_path: Path, rivals: Rivals) -> None:
    """The check itself: a mark of a process that lives."""
    (tmp_path / "marks" / "SIM-0").write_text(f"work {os.getpid()}")
    worker = rivals.start("work")
    rivals.until(lambda: worker.count("clash", "simulated:0") > 0)
