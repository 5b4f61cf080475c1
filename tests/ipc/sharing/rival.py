"""One of several processes on the same two devices: `python rival.py NAME ROLE FOLDER`.

`work` runs jobs until its standard input is closed, and `hold` runs one that never ends. Both say on their output what
happens, one line each: `began DEVICE`, `done DEVICE`, and `clash DEVICE` if somebody else is on the device.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from director import Director

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director import Device

NAME, ROLE, FOLDER = sys.argv[1:]


def say(*words: object) -> None:
    os.write(1, f"{' '.join(map(str, words))}\n".encode())  # one call: lines stay whole


@contextmanager
def alone(device: Device) -> Iterator[None]:
    """Watch that nobody else is on the device, in another way than the Directors': a file that only one can make."""
    mark = Path(FOLDER, device.uuid)
    while True:
        try:
            file = os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError:
            if not was_left_by_the_dead(mark):
                say("clash", device.label)
            mark.unlink(missing_ok=True)
    os.write(file, f"{ROLE} {os.getpid()}".encode())
    os.close(file)
    yield
    mark.unlink(missing_ok=True)


def was_left_by_the_dead(mark: Path) -> bool:
    """Only who holds is ever killed; its locks may be gone a moment before it is."""
    try:
        role, pid = mark.read_text().split()
    except (FileNotFoundError, ValueError):
        return False
    deadline = time.monotonic() + 5
    while role == "hold" and time.monotonic() < deadline:
        if not is_alive(int(pid)):
            return True
        time.sleep(0.001)
    return False


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # a zombie runs nothing


def work(device: Device) -> None:
    with alone(device):
        time.sleep(0.004)
    say("done", device.label)


def hold(device: Device) -> None:
    with alone(device):
        say("began", device.label)
        threading.Event().wait()


async def main() -> None:
    async with Director("simulated:2", shared=NAME) as director:
        if ROLE == "hold":
            await director.run(hold)
        say("ready")
        working = [asyncio.create_task(keep_working(director)) for _ in range(4)]
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for task in working:
            task.cancel()
        await asyncio.wait(working)
    say("closed")


async def keep_working(director: Director) -> None:
    while True:
        await director.run(work)


asyncio.run(main())
