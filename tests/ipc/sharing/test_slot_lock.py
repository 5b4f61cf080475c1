"""One slot, several who want it. Two locks in one process hold each other off as those of two processes do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from director import Director
from director._ipc.sharing.lock_file import Folder, LockFile
from director._ipc.sharing.slot_lock import SharedSlots, SlotLock
from director.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE = 5.0
FIRST, SECOND = simulated_devices(2)


@pytest.fixture
def slot_lock() -> Callable[[], SlotLock]:
    return lambda: SharedSlots("x").slot_lock(FIRST, 0)


class Entering:
    """Stands in the line on a thread of its own."""

    def __init__(self, slot_lock: SlotLock) -> None:
        self.slot_lock = slot_lock
        self.thread = threading.Thread(target=slot_lock.enter, daemon=True)
        self.thread.start()

    def is_in(self) -> bool:
        self.thread.join(PATIENCE)
        return self.slot_lock.is_mine


def test_one_at_a_time(slot_lock: Callable[[], SlotLock]) -> None:
    one, two = slot_lock(), slot_lock()
    assert one.try_enter()
    assert not two.try_enter()
    entering = Entering(two)
    one.leave()
    assert entering.is_in()
    assert not one.try_enter()
    two.leave()
    assert one.try_enter(), "nobody has it and nobody waits"


def test_other_slots_are_others(slot_lock: Callable[[], SlotLock]) -> None:
    assert slot_lock().try_enter()
    assert SharedSlots("x").slot_lock(FIRST, 1).try_enter()
    assert SharedSlots("y").slot_lock(FIRST, 0).try_enter()
    assert SharedSlots("x").slot_lock(SECOND, 0).try_enter()


def test_who_has_it_sees_that_somebody_waits(slot_lock: Callable[[], SlotLock]) -> None:
    one, two = slot_lock(), slot_lock()
    assert one.try_enter()
    assert not one.is_wanted()
    assert not two.try_enter()
    assert one.is_wanted(), "it stands in the line already"
    entering = Entering(two)
    one.leave()
    assert entering.is_in()
    assert not two.is_wanted()


def test_who_has_just_left_overtakes_nobody(slot_lock: Callable[[], SlotLock]) -> None:
    one, two = slot_lock(), slot_lock()
    assert one.try_enter()
    assert not two.try_enter()
    one.leave()
    assert not one.try_enter(), "the other is next, though it has not come in yet"
    entering = Entering(one)
    two.enter()
    two.leave()
    assert entering.is_in()


def test_two_take_turns(slot_lock: Callable[[], SlotLock]) -> None:
    """Each leaves as soon as the other wants it: they alternate strictly."""
    turns: list[int] = []
    both_in_line = threading.Barrier(2)

    def take_turns(number: int) -> None:
        mine = slot_lock()
        both_in_line.wait(PATIENCE)
        for _ in range(50):
            mine.enter()
            turns.append(number)
            while len(turns) < 99 and not mine.is_wanted():
                pass
            mine.leave()

    threads = [threading.Thread(target=take_turns, args=[n], daemon=True) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * PATIENCE)
    assert len(turns) == 100
    assert all(a != b for a, b in pairwise(turns[:98]))


CHILD = """
import sys
from director._ipc.sharing.slot_lock import SharedSlots
from director.testing import simulated_devices
(device,) = simulated_devices(1)
slot_lock = SharedSlots("x").slot_lock(device, 0)
{how}
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["slot_lock.try_enter()", "slot_lock.try_enter(); slot_lock.enter()"])
def test_the_dead_hold_nothing(slot_lock: Callable[[], SlotLock], how: str) -> None:
    """Neither the slot nor the place in the line."""
    program = [sys.executable, "-c", CHILD.format(how=how)]
    mine = slot_lock()
    waits = "enter()" in how.split(";")[-1] and ";" in how
    if waits:
        assert mine.try_enter()
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        if waits:
            while not mine.is_wanted():
                pass
        else:
            child.stdout.readline()  # type: ignore[union-attr]
            assert not mine.try_enter()
        child.kill()
    if waits:
        assert not mine.is_wanted()
    else:
        mine.enter()
        assert mine.is_mine


def test_a_forked_child_holds_nothing(slot_lock: Callable[[], SlotLock]) -> None:
    """It has copies of its parent's files, and may live longer."""
    mine = slot_lock()
    assert mine.try_enter()
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b".")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    mine._slot.close()  # as if the parent had died
    mine._line.close()
    assert slot_lock().try_enter()
    os.write(go[1], b".")
    os.waitpid(child, 0)
    for end in (*ready, *go):
        os.close(end)


def test_files_that_were_tidied_away_are_made_anew(slot_lock: Callable[[], SlotLock], runtime: Path) -> None:
    one, two = slot_lock(), slot_lock()
    assert one.try_enter()
    one.leave()
    for file in runtime.rglob("SIM-0*"):
        file.unlink()
    assert two.try_enter()
    assert not one.try_enter(), "both look at the new files"
    two.leave()


def test_a_file_that_was_tidied_away_is_noticed_after_the_wait(tmp_path: Path) -> None:
    first, second, third = (LockFile(Folder(tmp_path), "file") for _ in range(3))
    first.lock()
    assert not second.try_lock()
    thread = threading.Thread(target=second.lock, daemon=True)
    thread.start()
    (tmp_path / "file").unlink()
    first.unlock()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not third.try_lock(), "the second holds what is there now"


@pytest.mark.parametrize(("name", "error"), [("", ValueError), ("a/b", ValueError), ("..", ValueError), (3, TypeError)])
def test_a_name_must_make_a_file(name: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="shared must be"):
        Director("simulated:1", shared=name)  # type: ignore[arg-type]


async def test_where_there_are_no_locks_sharing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("director._ipc.sharing.slot_lock.HAS_LOCKS", False)
    with pytest.raises(RuntimeError, match="needs flock"):
        await Director("simulated:1", shared="x").start()
