"""Ctrl-C: once drains, twice leaves at once."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Child, Gates

    Start = Callable[..., Child]

pytestmark = pytest.mark.usefixtures("work")


@pytest.fixture
def running(start: Start, gates: Gates) -> Child:
    """A run with two items that run and one that waits; its input is still open."""
    paths = [gates.make(name) for name in ("first", "second", "third")]
    child = start("run", "work:gated", "-", "--lines", "--devices", "cpu:2")
    child.stdin.write("".join(f"{path}\n" for path in paths).encode())
    child.stdin.flush()
    gates.wait_for(2)
    return child


@pytest.mark.parametrize(
    ("number", "status", "limit"),
    [(signal.SIGINT, 130, "Ctrl-C again leaves at once"), (signal.SIGTERM, 143, "at most 4 s")],
)
def test_once_drains(number: int, status: int, limit: str, running: Child, gates: Gates) -> None:
    running.interrupt(number)
    said = running.read_error_until("interrupted")
    assert said == f"interrupted: waiting for 2 items to finish; {limit}\n"
    gates.open("first", "1")
    gates.open("second", "2")
    ended = running.end()
    assert ended.status == status
    assert {record["result"] for record in ended.records} == {"1", "2"}
    assert "interrupted: 2 items" in ended.err
    assert "1 item not run" in ended.err
    assert "Traceback" not in ended.err


def test_one_sigterm_is_enough_though_an_item_never_ends(start: Start, gates: Gates) -> None:
    paths = [gates.make(name) for name in ("done", "hung")]
    child = start("run", "work:gated", "-", "--lines", "--devices", "cpu:2", "--grace", "0.1")
    child.stdin.write("".join(f"{path}\n" for path in paths).encode())
    child.stdin.flush()
    gates.wait_for(2)
    gates.open("done", "1")
    assert json.loads(child.stdout.readline())["result"] == "1"
    child.interrupt(signal.SIGTERM)
    assert child.wait() == 143  # its input is still open, and one call still runs


def test_twice_leaves_at_once_with_what_is_done(running: Child, gates: Gates) -> None:
    gates.open("first", "1")
    assert json.loads(running.stdout.readline())["result"] == "1"
    gates.wait_for(1)
    running.interrupt()
    running.read_error_until("interrupted")
    running.interrupt()
    ended = running.end()
    assert ended.status == 130
    assert ended.out == ""
    assert "interrupted: 1 item in" in ended.err
    assert "Traceback" not in ended.err


def test_while_the_model_loads_once_is_enough(start: Start, gates: Gates, work: object) -> None:
    path = gates.make("weights")
    source = f"import work\ndef load(device): return work.gated(device, {path!r})\ndef f(r, x): return x\n"
    (gates._folder.parent / "slow_model.py").write_text(source)
    child = start("run", "slow_model:f", "-", "--lines", "--model", "slow_model:load", "--devices", "cpu")
    gates.wait_for(1)
    child.interrupt()
    ended = child.end()
    assert (ended.status, ended.out) == (130, "")
    assert "Traceback" not in ended.err


def test_a_reader_that_takes_nothing_does_not_keep_it(start: Start) -> None:
    """The pipe of the results is full; the second Ctrl-C gets through all the same."""
    child = start("run", "work:echo", "-", "--lines", "--devices", "cpu")
    child.stdin.write(b"x" * 500_000 + b"\n")
    child.stdin.flush()
    assert child.stdout.read(1) == b"{"
    child.interrupt()
    child.read_error_until("interrupted")
    child.interrupt()
    child.stdin.close()
    assert child.wait() == 130
