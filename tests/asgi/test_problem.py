"""Which answer an error becomes."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from harness.gates import Gate

from asgi.wire import Exchange
from director import Director
from director.asgi import MEDIA_TYPE, Problem, ProblemMiddleware, problem_of
from director.errors import (
    AdmissionError,
    DeadlineUnreachable,
    DeviceLost,
    DirectorClosed,
    DirectorError,
    JobError,
    JobTimeout,
    NoDevices,
    PlacementError,
    QueueFull,
    WorkerDied,
)
from director.testing import simulated_devices

DEVICE = simulated_devices(1)[0]


@pytest.mark.parametrize(
    ("error", "status", "kind", "retry"),
    [
        (QueueFull(8, 9, 2.1), 503, "queue-full", "3"),
        (QueueFull(8, 9, 0.01), 503, "queue-full", "1"),
        (QueueFull(8, 9, None), 503, "queue-full", "1"),
        (QueueFull(8, 9, 2.0, "a"), 429, "tenant-quota", "2"),
        (DeadlineUnreachable(0.5, 2.7), 503, "deadline-unreachable", "3"),
        (DirectorClosed("draining"), 503, "closed", "1"),
        (AdmissionError("it would be late"), 503, "not-admitted", "1"),
        (JobTimeout("queued"), 504, "timeout", None),
        (JobTimeout("queued", "deadline", 2), 504, "timeout", None),
        (JobTimeout("queued", "start_within", 2), 503, "not-started", "1"),
        (JobTimeout("running"), 504, "timeout", None),
        (DeviceLost(DEVICE), 503, "device", "1"),
        (NoDevices("none"), 503, "device", "1"),
        (PlacementError("never"), 500, "placement", None),
        (WorkerDied(-9, DEVICE), 500, "job-failed", None),
        (JobError("failed"), 500, "job-failed", None),
    ],
    ids=repr,
)
def test_every_error_has_its_status(error: DirectorError, status: int, kind: str, retry: str | None) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.kind) == (status, kind)
    assert problem.headers.get("retry-after") == retry


@pytest.mark.parametrize(
    ("error", "ran"),
    [
        (QueueFull(8, 9, 2.1), False),
        (QueueFull(8, 9, 2.0, "a"), False),
        (DeadlineUnreachable(0.5, 2.7), False),
        (DirectorClosed("draining"), False),
        (AdmissionError("it would be late"), False),
        (PlacementError("never"), False),
        (JobTimeout("queued"), False),
        (JobTimeout("queued", "start_within", 2), False),
        (JobTimeout("running"), True),
        (DeviceLost(DEVICE), True),
        (WorkerDied(-9, DEVICE), True),
        (JobError("failed"), True),
    ],
    ids=repr,
)
def test_every_answer_says_whether_anything_ran_or_may_have(error: DirectorError, ran: bool) -> None:
    assert problem_of(error).content["ran"] is ran


def test_the_answer_is_a_problem_document() -> None:
    assert problem_of(QueueFull(8, 9, 2.1)).content == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "9 requests wait already.",
        "kind": "queue-full",
        "waiting": 9,
        "ran": False,
    }


class SecretTimeout(JobTimeout):
    def __str__(self) -> str:
        return "secret"


class SecretFull(QueueFull):
    def __str__(self) -> str:
        return "secret"


def secrets_of(error: Any, **facts: Any) -> DirectorError:
    for name, value in facts.items():
        setattr(error, name, value)
    found: DirectorError = error
    return found


@pytest.mark.parametrize(
    "error",
    [
        PlacementError("secret"),
        JobError("secret"),
        AdmissionError("secret"),
        DirectorError("secret"),
        NoDevices("secret"),
        SecretTimeout("running"),
        SecretFull(1, 2, 3.0),
        secrets_of(JobTimeout("running"), phase="secret"),
        secrets_of(QueueFull(1, 2, 3.0), waiting="secret", retry_after="secret"),
        secrets_of(DeadlineUnreachable(1.0, 2.0), deadline="secret", predicted=["secret"]),
        type("secret", (JobError,), {"__module__": "secret"})("secret"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_no_text_of_an_error_reaches_the_client(error: DirectorError, caplog: pytest.LogCaptureFixture) -> None:
    """It may be the user's, in a subclass or as an argument: the answer has our words alone, and the log the rest."""
    caplog.set_level("INFO")
    error.__cause__ = ValueError("secret")
    exchange = await Exchange().through(await raising(error))
    assert b"secret" not in exchange.text
    assert "secret" not in json.dumps(exchange.answered)
    assert len([record for record in caplog.records if record.name == "director"]) == 1


async def test_a_fault_of_the_service_has_one_id_for_the_client_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    exchange = await Exchange().through(await raising(JobError("secret")))
    assert len(exchange.json()["id"]) == 16
    assert exchange.json()["id"] in caplog.text
    assert "secret" in caplog.text


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e300, -5.0, 10**400])
def test_numbers_that_json_and_headers_can_not_hold(seconds: float) -> None:
    for error in (DeadlineUnreachable(0.5, seconds), QueueFull(1, 2, seconds)):
        problem = problem_of(error)
        json.dumps(problem.content, allow_nan=False)
        assert 1 <= int(problem.headers["retry-after"]) <= 3600


async def raising(error: BaseException, before: bool = True) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not before:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return ProblemMiddleware(app)


async def test_an_error_is_answered() -> None:
    exchange = await Exchange().through(await raising(QueueFull(8, 9, 2.1)))
    assert exchange.status == 503
    assert exchange.answered["content-type"] == MEDIA_TYPE
    assert exchange.answered["retry-after"] == "3"
    assert exchange.answered["content-length"] == str(len(exchange.text))
    assert exchange.json()["kind"] == "queue-full"


async def test_what_is_no_error_of_ours_passes() -> None:
    with pytest.raises(ZeroDivisionError):
        await Exchange().through(await raising(ZeroDivisionError()))


async def test_once_the_answer_has_begun_errors_pass() -> None:
    with pytest.raises(QueueFull):
        await Exchange().through(await raising(QueueFull(8, 9, 2.1), before=False))


async def test_work_that_somebody_has_cancelled_is_answered() -> None:
    """By the close, or by a call of `Job.cancel`: the request itself is not cancelled, and somebody waits for it."""
    exchange = await Exchange().through(await raising(asyncio.CancelledError()))
    assert (exchange.status, exchange.json()["kind"]) == (503, "cancelled")
    assert exchange.answered["retry-after"] == "1"


async def test_errors_that_come_together_are_answered_as_the_first() -> None:
    """As they leave an `asyncio.TaskGroup` in which a request runs several jobs."""
    errors = ExceptionGroup("", [ExceptionGroup("", [QueueFull(8, 9, 2.1)]), JobTimeout("queued")])
    exchange = await Exchange().through(await raising(errors))
    assert (exchange.status, exchange.json()["kind"], exchange.answered["retry-after"]) == (503, "queue-full", "3")


async def test_jobs_of_a_task_group_that_are_refused() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(one())

    async def one() -> None:
        await director.submit(gate)

    gate = Gate()
    async with Director("simulated:1", max_queue=1) as director:
        busy = director.submit(gate)
        await gate.begun()
        exchange = await Exchange().through(ProblemMiddleware(app))
        assert director.stats().queued == 0, "the one that was accepted is cancelled"
        gate.open()
        await busy
    assert exchange.json()["kind"] == "queue-full"


@pytest.mark.parametrize("other", [ZeroDivisionError(), ExceptionGroup("", [OSError(), JobTimeout("queued")])])
async def test_errors_that_come_together_with_others_pass(other: Exception) -> None:
    with pytest.raises(ExceptionGroup):
        await Exchange().through(await raising(ExceptionGroup("", [QueueFull(8, 9, 2.1), other])))


async def test_once_the_answer_has_begun_errors_that_come_together_pass() -> None:
    with pytest.raises(ExceptionGroup):
        await Exchange().through(await raising(ExceptionGroup("", [QueueFull(8, 9, 2.1)]), before=False))


async def test_a_request_that_is_cancelled_is_not_answered() -> None:
    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    exchange = Exchange()
    task = asyncio.create_task(exchange.through(ProblemMiddleware(waiting)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert exchange.sent == []


async def test_a_fault_of_the_service_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    error = PlacementError("secret")
    exchange = await Exchange(path="/classify").through(await raising(error))
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.ERROR,
        f"a job of '/classify' failed, id {exchange.json()['id']}",
    )
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_other_kinds_of_connections_pass() -> None:
    with pytest.raises(QueueFull):
        await Exchange(kind="websocket").through(await raising(QueueFull(8, 9, 2.1)))


def test_a_problem_of_ones_own() -> None:
    problem = Problem(418, "I am a teapot.", "teapot", facts={"pot": "brown"})
    assert problem.content["title"] == "I'm a Teapot"
    assert problem.content["pot"] == "brown"
