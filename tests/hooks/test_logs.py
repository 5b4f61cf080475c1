"""`director.logs`: events as lines of the standard library's log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import Gate, outcome

from director import Director, Model, QueueFull, events
from director.logs import _LINES, Logs

if TYPE_CHECKING:
    from director.testing import TestClock


def fail(*_args: Any) -> None:
    raise ZeroDivisionError("no")


def test_every_event_has_a_line() -> None:
    kinds = {it for it in vars(events).values() if isinstance(it, type) and issubclass(it, events.Event)}
    assert set(_LINES) == {kind for kind in kinds if not kind.__subclasses__()}


async def play(gate: Gate, clock: TestClock) -> None:
    async with Director("simulated:1", hooks=[Logs()], clock=clock, max_queue=1) as director:
        model = Model(lambda _: 1, name="model")
        await director.run(lambda _: clock.advance(2), name="good", model=model)
        await outcome(director.run(fail))
        await outcome(director.run(lambda _: None, model=Model(fail, name="broken")))
        director.submit(gate, name="held")
        await gate.begun()
        waiting = director.submit(gate, name="waits")
        with pytest.raises(QueueFull):
            director.submit(gate, name="third")
        waiting.cancel()
        gate.open()


def said(caplog: pytest.LogCaptureFixture, name: str) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == name]


async def test_the_lines(caplog: pytest.LogCaptureFixture, gate: Gate, clock: TestClock) -> None:
    caplog.set_level(logging.DEBUG, logger="director")
    await play(gate, clock)
    assert said(caplog, "director") == [("INFO", "open on simulated:0"), ("INFO", "drained")]
    assert said(caplog, "director.jobs")[:5] == [
        ("DEBUG", "job 1 good submitted"),
        ("DEBUG", "job 1 good started on simulated:0 after 0.000000 s"),
        ("DEBUG", "job 1 good succeeded in 2.000000 s"),
        ("DEBUG", "job 2 fail submitted"),
        ("DEBUG", "job 2 fail started on simulated:0 after 0.000000 s"),
    ]
    assert ("INFO", "job 2 fail failed: ZeroDivisionError('no')") in said(caplog, "director.jobs")
    assert ("DEBUG", "job 5 waits cancelled") in said(caplog, "director.jobs")
    assert [line[:15] for level, line in said(caplog, "director.jobs") if level == "WARNING"] == ["third rejected:"]
    assert said(caplog, "director.models") == [
        ("INFO", "model loaded on simulated:0 in 0.000 s"),
        ("WARNING", "broken failed to load on simulated:0: ZeroDivisionError('no')"),
        ("INFO", "model unloaded from simulated:0"),
    ]
    assert said(caplog, "director.workers")[0] == ("DEBUG", "a worker begins on slot 0 of simulated:0")


async def test_a_record_has_the_facts_of_its_event(
    caplog: pytest.LogCaptureFixture, gate: Gate, clock: TestClock
) -> None:
    caplog.set_level(logging.DEBUG, logger="director.jobs")
    await play(gate, clock)
    facts: Any = next(record.director for record in caplog.records if "succeeded" in record.msg % record.args)  # type: ignore[attr-defined, operator]
    assert (facts["event"], facts["job"], facts["name"], facts["ran"]) == ("JobSucceeded", 1, "good", 2)
    assert facts["device"].label == "simulated:0"


async def test_quiet_by_default(caplog: pytest.LogCaptureFixture, gate: Gate, clock: TestClock) -> None:
    caplog.set_level(logging.WARNING, logger="director")
    assert {kind.__name__ for kind in Logs().wants} == {"JobRejected", "ModelFailed"}
    await play(gate, clock)
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert len(caplog.records) == 2


async def test_what_no_logger_takes_is_not_made(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, gate: Gate, clock: TestClock
) -> None:
    def refuse(*_args: Any) -> None:
        raise AssertionError("it was made")

    for kind in (events.JobSubmitted, events.JobStarted, events.JobSucceeded, events.WorkerHired):
        monkeypatch.setattr(kind, "__init__", refuse)
    caplog.set_level(logging.INFO, logger="director")
    await play(gate, clock)
    assert said(caplog, "director.jobs")[0][1] == "job 2 fail failed: ZeroDivisionError('no')"
