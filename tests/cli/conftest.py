"""A module of functions to run, and the command line as a child process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WORK = '''
"""Functions that the tests run."""
import os
import sys
import threading

from director import Model

loads = []


def echo(device, item):
    return item


def where(device, item):
    return device.label


def odd_fails(device, item):
    if int(item) % 2:
        raise ValueError(f"{item} is odd\\nand that is that")
    return int(item)


def fails(device, item):
    raise ValueError(item)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("nothing to say")


def returns_bytes(device, item):
    return item.encode()


def falls_silent(device, item):
    raise Mute


def noisy(device, item):
    print("noise from Python")
    os.write(1, b"noise from C\\n")
    return item


def gated(device, item):
    """Say that it has begun, wait until somebody opens the gate; both are pipes with a name."""
    folder, name = os.path.split(item)
    with open(os.path.join(folder, "begun"), "w") as begun:
        begun.write(name + "\\n")
    with open(item) as gate:
        return gate.read()


def size(device, item):
    return len(item)


def stop(device, item):
    raise SystemExit("stop")


def load(device):
    loads.append(device.label)
    return f"replica on {device.label}"


model = Model(load)


def use(replica, item):
    return [replica, item]


def broken_load(device):
    raise OSError("no weights here")


async def coroutine(device, item):
    pass


def generator(device, item):
    yield item


def only_item(item):
    pass


class Counter:
    def __init__(self):
        self.count = 0

    def add(self, device, item):
        return item


counter = Counter()
number = 3
'''


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A file with functions to run; the tests' `MODULE` is its path."""
    path = tmp_path / "work.py"
    path.write_text(WORK)
    return path


@dataclass(frozen=True)
class Ended:
    """A child process that has ended."""

    status: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """The results it wrote, in the order it wrote them."""
        return [json.loads(line) for line in self.out.splitlines()]


class Child:
    """A `director` command in a process of its own, talked to through pipes."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "director", *arguments],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a signal is for it alone
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.stdin, self.stdout, self.stderr = self._process.stdin, self._process.stdout, self._process.stderr

    @property
    def pid(self) -> int:
        return self._process.pid

    def interrupt(self, number: int = signal.SIGINT) -> None:
        self._process.send_signal(number)

    def read_error_until(self, words: str) -> str:
        """The first line of the standard error with these words."""
        for line in self.stderr:
            if words in line.decode():
                return line.decode()
        raise AssertionError(f"it ended without saying {words!r}")

    def end(self, stdin: bytes = b"") -> Ended:
        """Give it the rest of its input and wait for its end."""
        out, err = self._process.communicate(stdin)
        return Ended(self._process.returncode, out.decode(), err.decode())

    def wait(self) -> int:
        """Wait for its end without taking its output."""
        return self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(BrokenPipeError):  # what is left in our own buffer has nowhere to go
                pipe.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Start `director` with these arguments, in the folder of the test."""
    children: list[Child] = []

    def start(*arguments: str) -> Child:
        children.append(Child(tmp_path, *arguments))
        return children[-1]

    yield start
    for child in children:
        child.kill()


@pytest.fixture
def run(start: Callable[..., Child]) -> Callable[..., Ended]:
    """Run `director` with these arguments to its end."""

    def run(*arguments: str, stdin: bytes = b"") -> Ended:
        return start(*arguments).end(stdin)

    return run


class Gates:
    """Named pipes that `work.gated` waits at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        os.mkfifo(folder / "begun")
        # Open all the time, as if it wrote too: what is written between two readers of a named pipe is lost.
        self.begun = (folder / "begun").open("r+b", buffering=0)  # the fixture closes it

    def make(self, name: str) -> str:
        """A closed gate; its path is the item."""
        os.mkfifo(self._folder / name)
        return str(self._folder / name)

    def wait_for(self, number: int) -> set[str]:
        """Wait until that many have begun; their names."""
        begun: set[str] = set()
        while len(begun) < number:
            begun.add(self.begun.readline().decode().strip())
        return begun

    def open(self, name: str, result: str = "") -> None:
        """Let one go on, once it is there."""
        (self._folder / name).write_text(result)


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    folder = tmp_path / "gates"
    folder.mkdir()
    gates = Gates(folder)
    with gates.begun:
        yield gates
