"""Exceptions and progress of any kind: the event loop runs none of their code, each says once what it is."""

from __future__ import annotations

import asyncio
import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE

from dashboard.stories import DEVICES
from director import Director, report
from director._format import known_line, known_repr, known_text
from director.dashboard import Dashboard
from director.dashboard import _failures as _describer
from director.dashboard._failures import ErrorDescriber, Failures
from director.errors import BatchMismatch, DirectorClosed, JobTimeout, QueueFull
from director.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable


class Asked(Exception):
    """Notes the thread of each question."""

    def __init__(self) -> None:
        self.threads: list[str] = []

    def __str__(self) -> str:
        self.threads.append(threading.current_thread().name)
        return "said"


class Says(Exception):
    """Calls a function to say what it is."""

    def __init__(self, say: Callable[[], Any]) -> None:
        self.say = say

    def __str__(self) -> str:
        return self.say()  # type: ignore[no-any-return]


def leave() -> str:
    raise SystemExit(9)


class Odd:
    def __init__(self, say: Callable[[], Any] = leave) -> None:
        self.say = say

    def __repr__(self) -> str:
        return self.say()  # type: ignore[no-any-return]

    __str__ = __repr__


def told(failures: Failures, error: BaseException) -> dict[str, Any]:
    number = failures.add("failed", "f", error, 0.0, 1, DEVICES[0])
    failures.describer.wait_idle()
    failure = failures.find(number)
    assert failure is not None
    example: dict[str, Any] = failure.document()["examples"][0]
    return example


async def test_an_error_is_asked_once_and_off_the_loop() -> None:
    error = Asked()
    failures = Failures()
    assert told(failures, error)["message"] == "said"
    assert told(failures, error)["traceback"].endswith("Asked: said\n")
    assert error.threads == ["director-describer"], "a second of the same kind is counted and not asked"


async def test_with_all_observers_the_loop_asks_nothing() -> None:
    """Of a job that fails, one that is tried again, and a model that can't be loaded."""
    errors = [Asked() for _ in range(3)]

    def fail(device: object, number: int) -> None:
        raise errors[number]

    def load(device: object) -> None:
        raise errors[2]

    from director import Model
    from director.logs import Logs

    timeline = Timeline()
    director = Director("simulated:1", hooks=[timeline, Logs()])
    dashboard = Dashboard(director)
    async with director:
        for job in (
            director.submit(fail, 0),
            director.submit(fail, 1, retries=1, retry_on=(Asked,)),
            director.submit(fail, 2, model=Model(load)),
        ):
            with pytest.raises(Asked):
                await job
        await dashboard.snapshot()
        feed: Any = dashboard._source
        feed.recorder.failures.describer.wait_idle()
    me = threading.current_thread().name
    assert [me in error.threads for error in errors] == [False] * 3
    assert [error.threads.count("director-describer") for error in errors[::2]] == [1, 1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Says(leave), "its str() raised SystemExit"),
        (Says(lambda: 3), "its str() raised TypeError"),
        (Says(lambda: "x" * 50_000_000), "x" * 299 + "…"),
        (ValueError("x" * 100_000_000), "x" * 299 + "…"),
        (ValueError(Odd()), "its str() raised SystemExit"),
        (KeyError(Odd(lambda: "odd")), "odd"),
        (ExceptionGroup("g", [ValueError(n) for n in range(100_000)]), "g (100000 sub-exceptions)"),
    ],
)
def test_what_an_error_says(error: BaseException, message: str) -> None:
    example = told(Failures(), error)
    assert example["message"] == message
    assert len(example["traceback"]) <= 12_000


def test_long_chains_and_deep_recursion_are_told_in_short() -> None:
    error: BaseException = ValueError(0)
    for number in range(1, 3000):
        following = ValueError(number)
        following.__cause__ = error
        error = following
    story = told(Failures(), error)["traceback"]
    assert story.count("was the direct cause of") == 5
    assert story.endswith("ValueError: 2999\n")

    def descend() -> None:
        descend()

    with pytest.raises(RecursionError) as deep:
        descend()
    assert told(Failures(), deep.value)["traceback"].count("in descend") <= 30
    cycle = ValueError("a")
    other = ValueError("b")
    cycle.__context__, other.__context__ = other, cycle
    assert told(Failures(), cycle)["traceback"].count("During handling") == 1


def test_a_group_tells_of_some_members_and_notes_are_shown() -> None:
    error = ExceptionGroup("g", [ValueError(n) for n in range(8)])
    error.add_note("look there")
    error.__notes__.append(Odd())
    lines = told(Failures(), error)["traceback"].splitlines()
    assert lines[-7:] == ["look there", *(f"  | ValueError: {n}" for n in range(5)), "  | and 3 more"]


# ---- the limit


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_describer, "_PATIENCE", 0.0)


@pytest.mark.usefixtures("impatient")
def test_one_that_takes_for_ever_holds_up_no_other() -> None:
    never = threading.Event()
    begun = threading.Event()

    def block() -> str:
        begun.set()
        never.wait(PATIENCE)
        return "at last"

    failures = Failures()
    stuck = failures.add("failed", "f", Says(block), 0.0)
    assert begun.wait(PATIENCE)
    assert told(failures, Asked())["message"] == "said"
    (example,) = (failures.find(stuck) or pytest.fail("not kept")).document()["examples"]
    assert example["message"] == ""
    never.set()


@pytest.mark.usefixtures("impatient")
def test_after_several_of_those_nothing_more_is_asked() -> None:
    never, begun = threading.Event(), threading.Semaphore(0)

    def block() -> None:
        begun.release()
        never.wait(PATIENCE)

    describer = ErrorDescriber()
    for _ in range(1 + _describer._MOST_STUCK):
        assert describer.submit(block)
        assert begun.acquire(timeout=PATIENCE)
    assert not describer.submit(block)
    assert not describer._tasks, "nothing of what isn't asked is kept"
    never.set()
    describer.wait_idle()
    deadline = time.monotonic() + PATIENCE
    while describer._stuck and time.monotonic() < deadline:
        time.sleep(0.001)
    assert describer.submit(lambda: begun.release())
    assert begun.acquire(timeout=PATIENCE)


def test_the_thread_ends_when_there_is_nothing_to_ask() -> None:
    describer = ErrorDescriber()
    done = threading.Event()
    assert describer.submit(done.set)
    assert done.wait(PATIENCE)
    describer.wait_idle()
    assert not [each for each in threading.enumerate() if each.name == "director-describer"]


def test_where_no_thread_can_be_started_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    failures = Failures()
    failures.add("failed", "f", ValueError("odd"), 0.0)
    assert failures.latest(1)[0].summary()["message"] == "odd"


# ---- progress


async def test_progress_is_shown_without_asking_it() -> None:
    asked: list[str] = []

    def say() -> str:
        asked.append("x")
        return "x"

    def work(device: object) -> None:
        report(Odd(say))
        report(Odd())

    director = Director("simulated:1")
    dashboard = Dashboard(director)
    async with director:
        job = director.submit(work)
        await job
        assert (await dashboard._source.job(job.id) or {})["progress"] == "<Odd>"
    assert asked == []
    await asyncio.sleep(0)


# ---- what is known without asking


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        ValueError("odd"),
        ValueError(3, "odd", None, 2.5, b"x"),
        ValueError([1, {"a": (2,)}]),
        KeyError("odd"),
        KeyError("a", "b"),
        OSError(2, "No such file", "name"),
        OSError("odd"),
        FileNotFoundError(2, "No such file", "a", None, "b"),
        ImportError("odd", name="x"),
        ExceptionGroup("g", [ValueError()]),
        QueueFull(1, 1, None),
        DirectorClosed("closed"),
        JobTimeout("queued"),
        BatchMismatch("f", 1, 2),
        type("Own", (RuntimeError,), {})("odd"),
    ],
)
def test_what_plain_errors_say_is_known(error: BaseException) -> None:
    assert known_text(error, 10_000) == str(error)
    line = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    assert known_line(error, 200) == line.partition("\n")[0][:200]


class OwnText(str):
    def __str__(self) -> str:
        raise SystemExit(9)

    __repr__ = __str__


@pytest.mark.parametrize(
    "error",
    [
        Says(leave),
        ValueError(Odd()),
        ValueError([Odd()]),
        ValueError(OwnText("x")),
        OSError(2, Odd()),
        OSError(2, "No such file", Odd()),
        ValueError(Decimal(1)),
        ValueError(list(range(1000))),
        ValueError(10**5000),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "odd"),
    ],
)
def test_what_only_users_code_could_say_is_not_known(error: BaseException) -> None:
    assert known_text(error, 100) is None
    assert known_line(error, 200) == type(error).__name__


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        ({"a": [1, 2.5, "x"]}, "{'a': [1, 2.5, 'x']}"),
        (Odd(), "<Odd>"),
        ([Odd()], "<list>"),
        ({OwnText("x"): 1}, "<dict>"),
        (Decimal(1), "<Decimal>"),
        (ValueError("odd"), "ValueError('odd')"),
        (ValueError(1, 2), "ValueError(1, 2)"),
        (ValueError(), "ValueError()"),
        (ValueError(Odd()), "<ValueError>"),
        (Says(leave), "<Says>"),
    ],
)
def test_what_is_shown_of_a_value(value: object, shown: str) -> None:
    assert known_repr(value, 200) == shown
