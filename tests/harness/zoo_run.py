"""Cells of the zoo: one hostile object through one door, with innocent jobs before, beside and after it on all devices.

As a program it runs cells in a process of its own and writes a line for each, so that one that hangs is named::

    PYTHONPATH=tests python -m harness.zoo_run thread "tenant" "hash raises"

`sweep` runs many, in as many such programs as it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import json
import logging
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from executors.process.leaks import children, open_files

from director import Director, DirectorError, HealthRules
from harness.leaks import tasks_left, threads_left
from harness.zoo import CLOSING, ERRORS, Inside, ZooError, make
from harness.zoo_doors import DOORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CLUSTER = "DIRECTOR_ZOO_CLUSTER"  # the variable with its address
TESTS = Path(__file__).parent.parent
BOUNDS = {"thread": 2.0, "process": 5.0, "ray": 20.0}  # seconds in which each caller has an outcome
CLOSES = {"thread": 5.0, "process": 10.0, "ray": 60.0}  # and in which a Director closes
STARTS = 60.0  # and in which its workers start
GROUP = {"thread": 300, "process": 150, "ray": 40}  # cells that share a Director
SPARE = 5.0  # seconds beyond these after which a cell is ended from outside
_CLEAR = (DirectorError, TypeError, ValueError, ZooError, RecursionError, pickle.PickleError, asyncio.CancelledError)
_NOT_CARRIED = ("raised StopIteration", "raised StopAsyncIteration", "raised CancelledError")
_OPTIONS = {
    *("tenant", "priority", "deadline", "timeout", "backoff", "retries", "devices", "name", "model", "max_batch_size"),
    *("max_wait", "batch_window", "max_batch_cost", "window", "buffer", "slow_reader_timeout", "replicas"),
}


@dataclass(frozen=True, order=True)
class Fault:
    """What went wrong in one cell, or at the end of a Director that many shared."""

    kind: str
    mode: str
    door: str
    thing: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.mode}, {self.door!r}, {self.thing!r}: {self.text}"


def echo(device: Any, number: int) -> tuple[str, int, str]:
    """An innocent job."""
    return "innocent", number, str(device)


# ---- one cell


@dataclass
class Shared:
    """A Director, and what is known to be wrong around it."""

    director: Director
    mode: str
    odd: list[str] = field(default_factory=list)
    number: int = 0

    def innocents(self) -> list[tuple[int, str, Any]]:
        """One job on each device, with what it is to return."""
        jobs = []
        for device in self.director.devices:
            self.number += 1
            jobs.append((self.number, str(device), self.director.submit(echo, self.number, devices=device)))
        return jobs

    async def run(self, door: str, thing: str) -> Iterator[tuple[str, str]]:
        """Put the thing through the door.

        Returns:
            Everything that is wrong, as kinds and texts.
        """
        bound, d, wrong = BOUNDS[self.mode], self.director, list[tuple[str, str]]()
        Inside.director, Inside.job, Inside.closing, Inside.calls = d, None, None, 0
        Inside.may_close = thing in CLOSING
        innocents = self.innocents()
        task = asyncio.create_task(_enter(door, d, thing))
        with contextlib.suppress(DirectorError if thing in CLOSING else ()):
            innocents += self.innocents()
            await asyncio.wait([task], timeout=bound)
            innocents += self.innocents()
        if not task.done():
            await asyncio.wait([task], timeout=bound)
        if task.done():
            wrong += _judge(door, thing, task.result())
        else:
            wrong.append(("hang", f"no outcome within {bound:g} s: {self._describe()}"))
            task.cancel()
        await asyncio.wait([job for _, _, job in innocents], timeout=bound)
        for number, device, job in innocents:
            wrong += self._check_innocent(number, device, job, thing in CLOSING)
        if thing not in CLOSING:
            wrong += await self._count(bound)
        elif Inside.closing is not None:
            await asyncio.wait([Inside.closing], timeout=CLOSES[self.mode])
        Inside.director = Inside.job = None
        wrong += [("odd report", text) for text in self.odd]
        self.odd.clear()
        return iter(wrong)

    def _check_innocent(self, number: int, device: str, job: Any, may_be_closed: bool) -> Iterator[tuple[str, str]]:
        if not job.done():
            yield "innocent hangs", repr(job)
        elif job.cancelled():
            if not may_be_closed:
                yield "innocent fails", f"{job!r}"
        elif (error := job.exception()) is not None:
            if not (may_be_closed and isinstance(error, DirectorError)):
                yield "innocent fails", f"{job!r}: {_name(error)}"
        elif job.result() != ("innocent", number, device) and self.mode == "thread":
            yield "innocent's value is foreign", f"{job.result()!r} for {number} on {device}"
        elif job.result()[:2] != ("innocent", number):
            yield "innocent's value is foreign", f"{job.result()!r} for {number}"

    async def _count(self, bound: float) -> list[tuple[str, str]]:
        """`stats()` adds up: every number that a job was ever given is in one of the counts."""
        until = time.monotonic() + bound
        while True:
            number = None
            with contextlib.suppress(Exception):
                job = self.director.submit(echo, 0)
                await asyncio.wait([job], timeout=bound)
                number = job.id
            stats = self.director.stats()
            ended = stats.succeeded + stats.failed + stats.cancelled + stats.rejected
            if number == ended and not (stats.queued or stats.running):
                return []
            if time.monotonic() > until:
                counts = f"{stats.queued} queued, {stats.running} running, {ended} ended, {number} numbered"
                return [("counts", f"{counts}: {self._describe()}")]
            await asyncio.sleep(0.01)

    def _describe(self) -> str:
        return repr(self.director)


async def _enter(door: str, d: Director, thing: str) -> Any:
    try:
        return await DOORS[door][0](d, thing)
    except BaseException as error:  # what would end the loop, too
        return error


def _judge(door: str, thing: str, outcome: Any) -> Iterator[tuple[str, str]]:
    """Whether it is an answer, or a clear error."""
    kind = type(outcome)
    if not issubclass(kind, BaseException) or _is_own(kind, thing) or _is_of_the_zoo(outcome):
        return
    if kind is SystemExit and "exit" in thing:  # raised by a method of its own, perhaps in a child
        return
    if kind is RuntimeError and str(outcome).endswith(_NOT_CARRIED):
        return  # a future takes no such exception as a job's own
    if not issubclass(kind, _CLEAR):
        yield "unclear error", _name(outcome)
    elif kind in (TypeError, ValueError) and door in _OPTIONS and door not in str(outcome):
        yield "does not name the option", _name(outcome)


def _is_own(kind: type, thing: str) -> bool:
    """The user's own exception."""
    if thing not in ERRORS:
        return False
    own = type(make(thing))
    # One of another class of this name: as a child knows it. A frozen dataclass says so when it is unpickled.
    return kind.__name__ in (own.__name__, f"{own.__name__}InstanceError")


def _name(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException as other:
        return f"{type.__getattribute__(type(error), '__name__')} that raises {type(other).__name__}"


# ---- many in this process


class _Strict(logging.Handler):
    """Formats every record, and tells what raises while it does so."""

    def __init__(self, odd: list[str]) -> None:
        super().__init__()
        self._odd = odd

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.format(record)
        except BaseException as error:
            if record.name.startswith("director"):
                self._odd.append(f"a log record of {record.name} can't be formatted: {_name(error)}")


def _watch_reports(odd: list[str], loop: asyncio.AbstractEventLoop) -> None:
    """Note what is reported to nobody: unraisable exceptions, threads that die, callbacks that raise."""

    def note(where: str, error: BaseException | None) -> None:
        own = error is None or isinstance(error, (ZooError, RecursionError)) or _is_of_the_zoo(error)
        if not own:
            last = traceback.extract_tb(error.__traceback__)[-1:] if error is not None else []
            odd.append(f"{where}: {_name(error) if error is not None else ''} {last}")

    sys.unraisablehook = lambda report: note("unraisable", report.exc_value)
    threading.excepthook = lambda report: note(f"thread {report.thread and report.thread.name}", report.exc_value)
    loop.set_exception_handler(lambda _, context: note(f"loop: {context['message'][:80]}", context.get("exception")))
    logging.getLogger().handlers[:] = [_Strict(odd)]


def _is_of_the_zoo(error: BaseException) -> bool:
    """Raised by a hostile object itself."""
    if isinstance(error, ReferenceError):
        return True
    try:
        frames = traceback.extract_tb(error.__traceback__)
    except BaseException:
        return True
    if len(frames) == 1 and frames[0].name == "_run" and Path(frames[0].filename).name == "events.py":
        return True  # a callback that can't be called
    return bool(frames) and Path(frames[-1].filename).name in ("zoo.py", "mock.py")


async def run_here(mode: str, cells: list[tuple[str, str]], executor: Any = None) -> None:
    """Run cells, and write a line before and after each."""
    odd: list[str] = []
    _watch_reports(odd, asyncio.get_running_loop())
    await _close(
        await _open(mode, odd, executor), set(threading.enumerate()), set(), None
    )  # what only the first one opens
    gc.collect()
    threads, tasks, files = set(threading.enumerate()), asyncio.all_tasks(), open_files()
    shared, left = None, 0
    for index, (door, thing) in enumerate(cells):
        _write("BEGIN", index)
        if shared is None:
            shared, left = await _open(mode, odd, executor), GROUP[mode]
        wrong = list(await shared.run(door, thing))
        left -= 1
        if wrong or not left or thing in CLOSING or index == len(cells) - 1:
            wrong += await _close(shared, threads, tasks, files if executor is None else None)
            shared = None
            if wrong:  # what it leaves behind is told once
                threads, tasks, files = set(threading.enumerate()), asyncio.all_tasks(), open_files()
        _write("END", index, wrong)
    _write("DONE", len(cells))


async def _open(mode: str, odd: list[str], executor: Any) -> Shared:
    devices = None if executor is not None else "simulated:2"
    director = Director(devices, executor=executor or mode, max_queue=None, health=HealthRules(failures=1_000_000))
    await director.start()
    first = [director.submit(echo, 0, devices=device) for device in director.devices]
    await asyncio.wait(first, timeout=STARTS)  # a child, or an actor, takes its time to start, whoever asks for it
    return Shared(director, mode, odd)


async def _close(
    shared: Shared, threads: set[threading.Thread], tasks: set[asyncio.Task[Any]], files: int | None
) -> list[tuple[str, str]]:
    """Close a Director; it is to leave nothing behind."""
    wrong, bound = [], CLOSES[shared.mode]
    closing = asyncio.create_task(shared.director.close(1.0))
    await asyncio.wait([closing], timeout=bound)
    if not closing.done():
        return [("close hangs", f"{bound:g} s: {shared.director!r}")]
    if (error := closing.exception()) is not None:
        wrong.append(("close fails", _name(error)))
    if left := threads_left(threads):
        wrong.append(("threads are left", left[:2000]))
    if asyncio.all_tasks() - tasks and (left := await tasks_left()):
        wrong.append(("tasks are left", left[:1000]))
    if files is not None:
        wrong += await _left(files)
    return wrong


async def _left(files: int) -> list[tuple[str, str]]:
    until = time.monotonic() + 2.0
    while True:
        gc.collect()
        wrong = []
        if left := children():
            wrong.append(("children are left", str(left)))
        if open_files() > files:
            wrong.append(("descriptors are left", f"{files}, then {open_files()}: {_targets()}"))
        if not wrong or time.monotonic() > until:
            return wrong
        await asyncio.sleep(0.02)


def _targets() -> list[str]:
    """What the descriptors of this process lead to."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(path.readlink()))
    return sorted(found)


class _Watchdog:
    """Ends this process when a cell takes much longer than it may: the event loop may be dead-locked."""

    def __init__(self, mode: str) -> None:
        self._limit = 4 * BOUNDS[mode] + CLOSES[mode] + SPARE + (0 if mode == "thread" else STARTS)
        self._beat = time.monotonic()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def beat(self) -> None:
        """Another line was written."""
        self._beat = time.monotonic()

    def _watch(self) -> None:
        while time.monotonic() < self._beat + self._limit:
            time.sleep(0.1)
        print("HUNG", flush=True)
        faulthandler.dump_traceback(all_threads=True)
        os._exit(9)


_watchdog: _Watchdog | None = None


def _write(*fact: Any) -> None:
    if _watchdog is not None:
        _watchdog.beat()
    print(json.dumps(fact), flush=True)


def main(arguments: list[str]) -> None:
    """Run the cells named, or those in a file."""
    global _watchdog
    mode, *rest = arguments
    executor = None
    if mode == "ray":
        from director.ray import RayExecutor

        executor = RayExecutor(address=os.environ[CLUSTER])
    _watchdog = _Watchdog(mode)
    cells = json.loads(Path(rest[0]).read_text()) if len(rest) == 1 else [tuple(rest)]
    asyncio.run(run_here(mode, cells, executor))
    sys.stdout.flush()
    os._exit(0)  # a thread that was left behind has been told of


# ---- many in other processes


def sweep(mode: str, cells: list[tuple[str, str]], folder: Path, programs: int = 1) -> list[Fault]:
    """Run cells in programs of their own; one that hangs is ended and counts, and another goes on behind it."""
    shares = [cells[n::programs] for n in range(programs)]
    faults: list[list[Fault]] = [[] for _ in shares]

    def run(n: int) -> None:
        faults[n] += _run_share(mode, shares[n], folder / f"{mode}-{n}.json")

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(shares))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(fault for each in faults for fault in each)


def _run_share(mode: str, cells: list[tuple[str, str]], path: Path) -> Iterable[Fault]:
    while cells:
        path.write_text(json.dumps(cells))
        done = 0
        for verb, index, *rest in _lines(mode, path):
            if verb == "BEGIN":
                done = index
            elif verb == "END":
                done = index + 1
                for kind, text in rest[0]:
                    yield Fault(kind, mode, *cells[index], text)
            elif verb == "DONE":
                return
            else:
                yield Fault(f"the program {verb}", mode, *cells[min(done, len(cells) - 1)], rest[0])
                done += 1
        cells = cells[done:]


def _lines(mode: str, path: Path) -> Iterator[tuple[Any, ...]]:
    strict = [] if mode == "ray" else ["-W", "error"]  # Ray warns of its own future
    command = [sys.executable, *strict, "-m", "harness.zoo_run", mode, str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    errors = path.with_suffix(".err")
    lines: queue.Queue[str | None] = queue.Queue()
    with (
        errors.open("wb") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment) as program,
    ):
        assert program.stdout is not None
        stdout = program.stdout

        def read() -> None:
            for line in stdout:
                lines.put(line)
            lines.put(None)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            end = "ends"
            while True:
                line = lines.get(timeout=6 * BOUNDS[mode] + CLOSES[mode] + STARTS + 3 * SPARE)
                if line is None:
                    break
                if line.startswith("["):
                    fact = json.loads(line)
                    yield tuple(fact)
                    if fact[0] == "DONE":
                        return
                else:
                    end = "hangs"
        except queue.Empty:
            end = "hangs and holds the interpreter"
        finally:
            program.kill()
            reader.join()
    yield end, 0, f"exit status {program.returncode}: {errors.read_text(errors='replace')[-3000:]}"


def summary(faults: list[Fault]) -> str:
    """Faults by kind and door, with one cell of each."""
    counts = Counter((fault.kind, fault.mode, fault.door) for fault in faults)
    firsts = {(fault.kind, fault.mode, fault.door): fault for fault in reversed(faults)}
    return "\n".join(f"{count} x {firsts[key]}" for key, count in counts.most_common())


if __name__ == "__main__":
    main(sys.argv[1:])
