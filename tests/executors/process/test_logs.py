"""What a child logs comes to the parent's loggers, with texts, levels and tracebacks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from director import Director
from executors.process import calls

if TYPE_CHECKING:
    import pytest


async def test_records_come_to_the_logger_of_the_same_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with Director("cpu", executor="process") as director:
        process = await director.run(calls.process_id)
        await director.run(calls.log, "app.model", logging.INFO, "batch of %d on %s", 3, object)
    (record,) = [record for record in caplog.records if record.name == "app.model"]
    assert record.getMessage() == "batch of 3 on <class 'object'>"
    assert record.process == process
    assert record.processName == "cpu:0"
    assert record.funcName == "log"
    assert record.levelno == logging.INFO


async def test_errors_bring_their_traceback_and_extras(caplog: pytest.LogCaptureFixture) -> None:
    async with Director("cpu", executor="process") as director:
        await director.run(calls.log_error)
    (record,) = caplog.records
    assert "ValueError: the reason" in (record.exc_text or "")
    assert "in _refuse" in caplog.text
    assert record.request == 17  # type: ignore[attr-defined]
    assert "object object" in record.odd  # type: ignore[attr-defined]


async def test_levels_are_those_of_the_parent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="app.quiet")
    caplog.set_level(logging.DEBUG, logger="app.chatty")  # and of the fixture's own handler
    async with Director("cpu", executor="process") as director:
        for name in ("app.chatty", "app.quiet", "app.other"):
            await director.run(calls.log, name, logging.DEBUG, "debug")
            await director.run(calls.log, name, logging.WARNING, "warning")
    assert [(record.name, record.msg) for record in caplog.records] == [
        ("app.chatty", "debug"),
        ("app.chatty", "warning"),
        ("app.other", "warning"),
    ]


async def test_a_level_that_is_raised_later_holds_too(caplog: pytest.LogCaptureFixture) -> None:
    async with Director("cpu", executor="process") as director:
        await director.run(calls.echo)
        caplog.set_level(logging.CRITICAL, logger="app")
        await director.run(calls.log, "app", logging.ERROR, "error")
    assert caplog.records == []


async def test_long_records_and_many(caplog: pytest.LogCaptureFixture) -> None:
    async with Director("cpu", executor="process") as director:
        for n in range(200):
            await director.run(calls.log, "app", logging.ERROR, f"{n} " + "x" * (n * 100))
    assert [int(record.message.split()[0]) for record in caplog.records] == list(range(200))


async def test_finalizers_that_log_in_the_midst_of_a_record(caplog: pytest.LogCaptureFixture) -> None:
    async with Director("cpu", executor="process") as director:
        await director.run(calls.log_in_finalizers)
        assert await director.run(calls.echo, 1) == 1
    messages = [record.message for record in caplog.records]
    assert [message for message in messages if message.startswith("line")] == [f"line {n}" for n in range(50)]
    assert messages.count("collected") >= 40


async def test_a_parent_s_handler_that_fails_harms_no_job(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise ValueError("broken")

    logger = logging.getLogger("app.broken")
    handler = Broken()
    logger.addHandler(handler)
    try:
        async with Director("cpu", executor="process") as director:
            await director.run(calls.log, "app.broken", logging.ERROR, "x")
            assert await director.run(calls.echo, 1) == 1
    finally:
        logger.removeHandler(handler)
    assert "an answer from the process of cpu:0 can't be read" in caplog.text
